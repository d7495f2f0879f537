"""The delays between attempts: full jitter below a bound that doubles up to a cap."""

from __future__ import annotations

import random

import pytest

from bpipe.net.backoff import FIRST_DELAY, SHORTEST_CAP, Backoff


class Highest(random.Random):
    """Always draws the largest that is allowed."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


def test_the_bound_doubles_up_to_the_cap() -> None:
    backoff = Backoff(1.0, Highest())
    delays = [backoff.next() for _ in range(8)]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_it_never_grows_beyond_the_cap_however_long_the_outage_lasts() -> None:
    backoff = Backoff(0.3, Highest())
    assert max(backoff.next() for _ in range(5000)) == 0.3


def test_the_end_of_an_outage_starts_anew() -> None:
    backoff = Backoff(1.0, Highest())
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() == FIRST_DELAY


def test_the_jitter_is_full() -> None:
    backoff = Backoff(1.0, random.Random(3))
    for _ in range(10):
        backoff.next()
    delays = [backoff.next() for _ in range(1000)]
    assert all(0 <= delay <= 1 for delay in delays)
    assert min(delays) < 0.05
    assert max(delays) > 0.95


def test_a_cap_of_nothing_still_leaves_a_pause() -> None:
    backoff = Backoff(0.0)
    delays = [backoff.next() for _ in range(200)]
    assert max(delays) <= SHORTEST_CAP
    assert sum(delays) > 20 * SHORTEST_CAP


def test_a_pause_may_be_drawn_from_its_upper_part_only() -> None:
    backoff = Backoff(8.0, random.Random(3), first=2.0, drawn=0.25)
    assert 1.5 <= backoff.next() <= 2
    assert 3 <= backoff.next() <= 4
    delays = [backoff.next() for _ in range(1000)]
    assert 6 <= min(delays) < 6.1
    assert 7.9 < max(delays) <= 8
    backoff.reset()
    assert 1.5 <= backoff.next() <= 2
