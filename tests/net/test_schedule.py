"""When to dial, and which attempt to abandon."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from bpipe.net.backoff import Backoff
from bpipe.net.schedule import ATTEMPT_TIMEOUT, ATTEMPTS, OVERLAP, Schedule


class Steady(Backoff):
    """A delay of one second, and then of one more each time."""

    def __init__(self) -> None:
        super().__init__(60.0)
        self._delay = 0.0

    def reset(self) -> None:
        self._delay = 0.0

    def next(self) -> float:
        self._delay += 1.0
        return self._delay


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(Steady())


def test_after_a_good_link_it_dials_at_once(schedule: Schedule) -> None:
    schedule.begin(100.0, fresh=True)
    assert schedule.next_at == schedule.deadline() == 100.0


def test_after_a_link_without_progress_it_waits(schedule: Schedule) -> None:
    schedule.begin(100.0, fresh=True)
    schedule.begin(100.0, fresh=False)
    assert schedule.next_at == 101.0
    schedule.begin(101.0, fresh=False)
    assert schedule.next_at == 103.0
    schedule.begin(103.0, fresh=True)
    schedule.begin(103.0, fresh=False)
    assert schedule.next_at == 104.0  # the outage was over


def test_attempts_without_an_answer_overlap(schedule: Schedule) -> None:
    schedule.begin(100.0, fresh=True)
    assert schedule.start(100.0) == 1
    assert schedule.deadline() == 100.0 + OVERLAP
    assert schedule.abandon(100.0 + OVERLAP) is None
    assert schedule.start(100.0 + OVERLAP) == 2
    assert schedule.start(100.0 + 2 * OVERLAP) == 3


def test_the_oldest_attempt_has_its_time_and_the_others_are_replaced_in_turn(
    schedule: Schedule,
) -> None:
    schedule.begin(0.0, fresh=True)
    under_way: list[int] = []
    abandoned: list[int] = []
    now = 0.0
    while now < ATTEMPT_TIMEOUT:
        while (number := schedule.abandon(now)) is not None:
            under_way.remove(number)
            abandoned.append(number)
        assert schedule.next_at == now
        under_way.append(schedule.start(now))
        assert len(under_way) <= ATTEMPTS
        assert under_way[0] == 1
        now = schedule.deadline()
    started = math.ceil(ATTEMPT_TIMEOUT / OVERLAP)
    assert abandoned == list(range(2, started + 2 - ATTEMPTS))
    assert schedule.abandon(ATTEMPT_TIMEOUT) == 1


LATE = 1.03  # times as long as they are to be: a kernel's timers


@pytest.mark.parametrize(
    ("repeats", "longest", "most"),
    [((0, 1, 2, 3, 4, 5, 6, 7), 0.27, 6), ((0, 1, 3, 7), 0.44, 4)],
    ids=["Linux since 6.5", "others"],
)
def test_what_the_kernel_repeats_falls_between_the_attempts(
    schedule: Schedule, repeats: tuple[int, ...], longest: float, most: int
) -> None:
    """While nobody answers, for as long as one likes: a path that is back meets one of these."""
    schedule.begin(0.0, fresh=True)
    began: dict[int, float] = {}
    sent: list[float] = []
    now, over = 0.0, 60.0
    while now < over:
        while (number := schedule.abandon(now)) is not None:
            life = now - began[number]
            times = [each * LATE for each in repeats]
            sent += [began[number] + each for each in times if each < life]
        if schedule.due(now):
            began[schedule.start(now)] = now
        now = schedule.deadline()
    steady = sorted(each for each in sent if 10 <= each < over - 10)
    assert max(b - a for a, b in pairwise(steady)) < longest
    assert len(steady) <= most * (over - 20)


def test_an_attempt_that_fails_is_followed_after_the_backoff(schedule: Schedule) -> None:
    schedule.begin(0.0, fresh=True)
    first = schedule.start(0.0)
    schedule.failed(first, 0.1)
    assert schedule.deadline() == 1.1
    second = schedule.start(1.1)
    schedule.failed(second, 1.2)
    assert schedule.deadline() == 3.2


def test_an_attempt_that_is_answered_is_not_abandoned(schedule: Schedule) -> None:
    schedule.begin(0.0, fresh=True)
    schedule.answered(schedule.start(0.0))
    assert schedule.abandon(ATTEMPT_TIMEOUT + 1) is None


def test_hurry_is_now(schedule: Schedule) -> None:
    schedule.begin(0.0, fresh=False)
    schedule.failed(schedule.start(1.0), 1.0)
    schedule.hurry(1.5)
    assert schedule.deadline() == 1.5


def test_a_new_search_forgets_the_old_attempts(schedule: Schedule) -> None:
    schedule.begin(0.0, fresh=True)
    schedule.start(0.0)
    schedule.clear()
    schedule.begin(50.0, fresh=True)
    assert schedule.abandon(50.0) is None
    assert schedule.attempts == 0


def test_attempts_beside_a_link_in_doubt_go_on_when_it_is_given_up(schedule: Schedule) -> None:
    schedule.hurry(3.0)
    first = schedule.start(3.0)
    schedule.begin(6.0, fresh=True)
    assert schedule.attempts == 1  # it is this outage's now
    assert schedule.start(6.0) != first
    assert schedule.abandon(3.0 + ATTEMPT_TIMEOUT) == first


def test_a_way_makes_an_attempt_due_and_never_later_than_it_was(schedule: Schedule) -> None:
    schedule.begin(100.0, fresh=True)
    schedule.failed(schedule.start(100.0), 100.0)
    assert schedule.next_at == 101.0
    schedule.nudge(100.5)
    assert schedule.next_at == 100.5
    assert schedule.due(100.5)
    schedule.nudge(100.7)
    assert schedule.next_at == 100.5
