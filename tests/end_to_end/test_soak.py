"""A short soak: a hundred cuts at random bytes; one in nine is a silence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bpipe.demo.faults import Fault
from tests.end_to_end.soak import soak


@pytest.mark.slow
def test_a_hundred_cuts(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    outcome = soak(100, 4, seed, tmp_path)
    assert outcome.wrong == [], f"seed {seed}"
    assert outcome.cuts.total() >= 100
    assert {Fault.RESET, Fault.EOF} < set(outcome.cuts)
