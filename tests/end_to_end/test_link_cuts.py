"""A hundred cuts of sessions that have three links."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bpipe.demo.faults import Fault
from tests.end_to_end.link_cuts import Cuts


@pytest.mark.slow
def test_a_hundred_cuts_over_three_links(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    outcome = Cuts(100, seed, tmp_path, 3, "20ms").run(at_once=1)
    assert not outcome.wrong, f"seed {seed}"
    assert outcome.cuts.total() >= 100
    assert {Fault.RESET, Fault.EOF} < set(outcome.cuts)
