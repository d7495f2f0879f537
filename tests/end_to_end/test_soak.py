"""A short soak: two hundred cuts, of every kind, at random bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bpipe.demo.faults import Fault
from tests.end_to_end.soak import soak


@pytest.mark.slow
def test_two_hundred_cuts(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    outcome = soak(200, 4, seed, tmp_path)
    assert outcome.wrong == [], f"seed {seed}"
    assert outcome.cuts.total() >= 200
    assert set(outcome.cuts) == set(Fault)
