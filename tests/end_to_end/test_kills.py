"""A few kills, of everybody, at random bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.end_to_end.kills import Tally, kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_some_kills(path: Path) -> None:
    tally = Tally(12, random.SystemRandom().randrange(10**9), sealed=False)
    kill(tally, 4, path.parent)
    assert tally.wrong == [], f"seed {tally.seed}"
    assert tally.happened.total() >= 12
    assert tally.whole > 0
