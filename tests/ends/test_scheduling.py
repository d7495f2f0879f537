"""How a thread asks for its turns on the processor."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bpipe.ends import scheduling
from bpipe.ends.scheduling import BULK, PERIOD, BatchScheduling, LoopScheduling
from tests.support.scheduling import CHOOSING, choose

pytestmark = CHOOSING

Move = Callable[[float, float], int]

LONG = PERIOD * 2


class Time:
    """What the clock says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    time = Time()
    monkeypatch.setattr(scheduling, "clock", time)
    yield time
    choose(os.SCHED_OTHER)


@pytest.fixture
def move(time: Time) -> Move:
    """Moves so many bytes in a second, for so long; returns the thread's policy from then on."""
    count = 0.0
    policy = os.sched_getscheduler
    batch = BatchScheduling(lambda: int(count))

    def move(rate: float, seconds: float) -> int:
        nonlocal count
        time.now += seconds
        count += rate * seconds
        batch.look()
        return policy(0)

    return move


def test_bulk_is_patient_and_little_is_prompt(move: Move) -> None:
    assert move(BULK * 2, PERIOD / 2) == os.SCHED_OTHER  # too early to tell
    assert move(BULK * 2, LONG) == os.SCHED_BATCH
    assert move(BULK * 2, LONG) == os.SCHED_BATCH
    assert move(BULK / 2, LONG) == os.SCHED_OTHER
    assert move(BULK * 2, LONG) == os.SCHED_BATCH
    assert move(1, 60) == os.SCHED_OTHER  # the first byte after a rest


def test_what_somebody_else_has_chosen_stays(move: Move) -> None:
    choose(os.SCHED_BATCH)
    assert move(BULK * 2, LONG) == os.SCHED_BATCH
    assert move(0, LONG) == os.SCHED_BATCH


def test_what_somebody_else_changes_meanwhile_stays(move: Move) -> None:
    assert move(BULK * 2, LONG) == os.SCHED_BATCH
    choose(os.SCHED_OTHER)
    assert move(0, LONG) == os.SCHED_OTHER
    assert move(BULK * 2, LONG) == os.SCHED_OTHER


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("function", ["sched_getscheduler", "sched_setscheduler"])
def test_a_system_that_does_not_allow_it_is_asked_once(
    move: Move, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    asked = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse)
        for _ in range(3):
            assert move(BULK * 2, LONG) == move(0, LONG) == os.SCHED_OTHER
    assert len(asked) == 1


# --- several pipes in one event loop ---


class Moving:
    """An engine, as far as it is counted."""

    def __init__(self, time: Time) -> None:
        self.writer = SimpleNamespace(sent=0)
        self.reader = SimpleNamespace(received=0)
        self._time = time
        self._observers: list[Callable[[], None]] = []

    def observe(self, callback: Callable[[], None]) -> None:
        self._observers.append(callback)

    def move(self, rate: float, seconds: float = LONG) -> int:
        """So many bytes in a second, half of them each way; returns the thread's policy then."""
        self._time.now += seconds
        self.writer.sent += int(rate * seconds / 2)
        self.reader.received += int(rate * seconds / 2)
        for observer in self._observers:
            observer()
        return os.sched_getscheduler(0)


@pytest.fixture
def engines(time: Time) -> list[Any]:
    return [Moving(time), Moving(time)]


def test_the_bytes_of_all_pipes_count_together(engines: list[Any]) -> None:
    first, second = engines
    shared = LoopScheduling()
    with shared.counting(first), shared.counting(second):
        assert first.move(BULK * 2) == os.SCHED_BATCH
        assert second.move(BULK * 2) == os.SCHED_BATCH  # it is nobody else's choice
        assert first.move(0) == os.SCHED_OTHER
        assert second.move(BULK * 2) == os.SCHED_BATCH
        assert first.move(BULK * 0.7, 0) == os.SCHED_BATCH
        second.writer.sent += int(BULK * 0.7 * LONG)
        assert first.move(BULK * 0.7) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_one_that_ends_in_bulk_leaves_the_thread_prompt(engines: list[Any]) -> None:
    shared = LoopScheduling()
    for engine in engines:
        with shared.counting(engine):
            assert engine.move(BULK * 2) == os.SCHED_BATCH
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_was_moved_before_the_end_makes_nobody_patient_after_it(engines: list[Any]) -> None:
    """An engine that is closed drives once more, and who looks then has looked long ago."""
    shared = LoopScheduling()
    with shared.counting(engines[0]):
        assert engines[0].move(BULK * 99, PERIOD / 2) == os.SCHED_OTHER  # too early to tell
    assert engines[0].move(0) == os.SCHED_OTHER


def test_one_that_ends_leaves_the_count_of_the_others_alone(engines: list[Any]) -> None:
    first, second = engines
    shared = LoopScheduling()
    with shared.counting(second):
        with shared.counting(first):
            assert first.move(BULK * 9) == os.SCHED_BATCH
        assert second.move(BULK * 2) == os.SCHED_BATCH


def test_what_is_started_while_another_pipe_moves_bulk_begins_prompt(engines: list[Any]) -> None:
    """A new thread inherits the policy, and takes it for somebody else's choice."""
    first, second = engines
    shared = LoopScheduling()
    with shared.counting(first):
        assert first.move(BULK * 2) == os.SCHED_BATCH
        with shared.counting(second):
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
            assert first.move(BULK * 2) == os.SCHED_BATCH
