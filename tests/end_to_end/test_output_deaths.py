"""A few deaths of those who make a file of a stream, and a few power cuts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.end_to_end import power
from tests.end_to_end.output_deaths import Tally, die

pytestmark = pytest.mark.slow


def test_after_some_deaths_the_same_commands_go_on(path: Path) -> None:
    tally = Tally(4, random.SystemRandom().randrange(10**9))
    die(tally, 2, path.parent)
    assert tally.wrong == [], f"seed {tally.seed}"
    assert tally.happened.total() >= 4
    assert tally.well > 0
    assert tally.exact == tally.well


def test_what_a_power_cut_leaves_of_a_page_is_old_or_new_or_torn_or_zeros() -> None:
    old, new = b"o" * 10 * power.PAGE, b"n" * 20 * power.PAGE
    seen: set[bytes] = set()
    for seed in range(50):
        left = power.mixed(old, new, random.Random(seed))
        assert len(old) <= len(left) <= len(new)
        seen |= {left[at : at + power.SECTOR] for at in range(0, len(old), power.SECTOR)}
    assert {b"o", b"n", b"\0"} == {bytes(set(each)) for each in seen}
