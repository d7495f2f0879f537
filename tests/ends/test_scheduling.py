"""How a thread asks for its turns on the processor."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import pytest

from bpipe.ends import scheduling
from bpipe.ends.scheduling import BULK, PERIOD, Turns


def _prompt() -> bool:
    """Whether this process is scheduled as others are, and may choose to be otherwise."""
    with contextlib.suppress(AttributeError, OSError):
        return hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
    return False


CHOOSING = pytest.mark.skipif(not _prompt(), reason="there is no policy to choose here")

pytestmark = CHOOSING

Move = Callable[[float, float], int]

LONG = PERIOD * 2


def choose(policy: int) -> None:
    os.sched_setscheduler(0, policy, os.sched_param(0))


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Iterator[Move]:
    """Moves so many bytes in a second, for so long; returns the thread's policy from then on."""
    now, count = 100.0, 0.0
    policy = os.sched_getscheduler
    monkeypatch.setattr(scheduling, "clock", lambda: now)
    looking = Turns(lambda: int(count))

    def move(rate: float, seconds: float) -> int:
        nonlocal now, count
        now += seconds
        count += rate * seconds
        looking.look()
        return policy(0)

    yield move
    choose(os.SCHED_OTHER)


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
