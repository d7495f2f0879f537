"""When a carrier is started: one at a time, with pauses, and without a limit while it may ask."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from bpipe.net.schedule import CARRIER, Schedule


class Highest(random.Random):
    """The longest pause that there may be."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def schedule() -> Schedule:
    schedule = Schedule(CARRIER.backoff(rng=Highest()), CARRIER)
    schedule.begin(100.0, fresh=True)
    return schedule


def failing(schedule: Schedule, times: int, seconds: float = 0.0) -> list[float]:
    """When so many attempts begin that each take so long, and fail."""
    found, now = [], 100.0
    for _ in range(times):
        now = max(now, schedule.deadline())
        assert schedule.due(now)
        found.append(now)
        number = schedule.start(now)
        now += seconds
        schedule.failed(number, now)
    return found


def test_the_pauses_double_from_one_second_to_fifteen(schedule: Schedule) -> None:
    begun = failing(schedule, 8)
    assert [b - a for a, b in pairwise(begun)] == [1, 2, 4, 8, 15, 15, 15]


def test_a_pause_is_from_its_upper_quarter() -> None:
    rng = random.Random(5)
    for _ in range(200):
        backoff = CARRIER.backoff(rng=rng)
        pauses = [backoff.next() for _ in range(6)]
        for pause, bound in zip(pauses, (1, 2, 4, 8, 15, 15), strict=True):
            assert 0.75 * bound <= pause <= bound


def test_the_longest_pause_may_be_another_one() -> None:
    schedule = Schedule(CARRIER.backoff(0.5, Highest()), CARRIER)
    assert [b - a for a, b in pairwise(failing(schedule, 3))] == [0.5, 0.5]


def test_there_is_one_attempt_at_a_time(schedule: Schedule) -> None:
    first = schedule.start(100.0)
    for now in (100.0, 101.0, 109.9):
        assert not schedule.due(now)
        assert schedule.abandon(now) is None
    assert schedule.deadline() == 110.0
    assert schedule.abandon(110.0) == first
    assert not schedule.due(110.0)
    assert schedule.deadline() == 111.0


def test_one_that_may_ask_has_no_limit(schedule: Schedule) -> None:
    schedule.behave(CARRIER.asking())
    assert schedule.manners.asks
    first = schedule.start(100.0)
    schedule.behave(CARRIER)  # is for the next one
    assert schedule.deadline() == math.inf
    schedule.hurry(4000.0)
    assert schedule.abandon(5000.0) is None
    assert not schedule.due(5000.0)
    schedule.failed(first, 5000.0)
    assert schedule.deadline() == 5001.0


def test_who_knows_that_the_path_is_back_has_it_begun_anew(schedule: Schedule) -> None:
    first = schedule.start(100.0)
    schedule.hurry(103.0)
    assert schedule.abandon(103.0) == first
    assert schedule.due(103.0)
    schedule.start(103.0)
    assert schedule.abandon(103.0) is None


def test_after_a_lost_link_the_next_is_begun_at_once(schedule: Schedule) -> None:
    schedule.answered(schedule.start(100.0))
    schedule.begin(500.0, fresh=True)
    assert schedule.due(500.0)


def test_one_that_was_lost_as_soon_as_it_was_there_is_not_begun_at_once(schedule: Schedule) -> None:
    schedule.answered(schedule.start(100.0))
    schedule.begin(100.2, fresh=True)
    assert schedule.deadline() == 101.0


def test_that_distance_is_no_longer_than_the_longest_pause() -> None:
    schedule = Schedule(CARRIER.backoff(0.01, Highest()), CARRIER)
    schedule.answered(schedule.start(100.0))
    schedule.begin(100.001, fresh=True)
    assert schedule.deadline() == 100.01


def test_a_way_has_one_begun_anew_but_not_as_often_as_the_system_tells(schedule: Schedule) -> None:
    first = schedule.start(100.0)
    schedule.nudge(100.5)
    assert schedule.abandon(100.9) is None
    schedule.nudge(101.0)
    assert schedule.abandon(101.0) == first
    assert schedule.due(101.0)
    schedule.failed(schedule.start(101.0), 101.1)
    schedule.nudge(101.2)
    assert schedule.next_at == 102.0
