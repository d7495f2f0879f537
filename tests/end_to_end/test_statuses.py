"""A sample of the ways in which a program can end, and of those in which a connection can."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.end_to_end.statuses import CUTS, Lab, cases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_status_of_a_program_arrives_whatever_the_connection_does(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**9)
    rng, lab = random.Random(seed), Lab(tmp_path, seed)
    every = cases()
    sample = [each for cut in CUTS for each in rng.sample([c for c in every if c.cut == cut], 2)]
    asyncio.run(lab.run(sample, jobs=4))
    assert lab.wrong == [], f"seed {seed}"
    assert lab.seen.total() == len(sample) + 4
    assert lab.seen["cut before that"] > 0
