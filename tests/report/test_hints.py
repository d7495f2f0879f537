"""What is told without being asked: after a moment, once, and only to those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bpipe.report import hints as module
from bpipe.report.events import Event, Trying, WaitingForPeer
from bpipe.report.hints import Hints, StdinHint
from bpipe.status import State, Status
from tests.support.statuses import BEFORE

MOMENT = 0.03
CALLING = replace(BEFORE, cause="refused", cause_code="refused", gives_up_in=25.0)
UP = replace(BEFORE, state=State.CONNECTED, links=1, written=10, confirmed=10, finished=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER", MOMENT)
    monkeypatch.setattr(module, "OVERDUE", 60.0)  # this machine may be busy


class Pipe:
    """One whose status a test sets, and what is told of it."""

    def __init__(self, status: Status) -> None:
        self.now = status
        self.asked = 0
        self.told: list[Event] = []

    def status(self) -> Status:
        self.asked += 1
        return self.now

    async def looks(self, count: int) -> None:
        """Wait until its status was asked for so often."""
        while self.asked < count:
            await asyncio.sleep(MOMENT / 10)


def run(check: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(check(), 20))


@pytest.mark.parametrize(
    ("status", "waits", "told"),
    [
        (CALLING, False, [Trying("there:1", "refused", "refused", 25.0)]),
        (
            replace(CALLING, cause="", cause_code=""),
            False,
            [Trying("there:1", "no answer yet", "silent", 25.0)],
        ),
        (CALLING, True, []),
        (replace(CALLING, gives_up_in=0.5), False, []),
        (replace(CALLING, gives_up_in=None), False, []),
        (replace(UP, finished=False), False, []),
    ],
)
def test_whoever_waits_for_a_listener_is_told_after_a_moment(
    status: Status, waits: bool, told: list[Event]
) -> None:
    async def check() -> None:
        pipe = Pipe(status)
        hints = Hints(pipe.told.append, pipe.status, waits=waits)
        hints.look(status)
        assert pipe.told == []
        await pipe.looks(3)
        assert pipe.told == told

    run(check)


@pytest.mark.parametrize("code", ["secret", "no-such-name", "another-user"])
def test_what_does_not_mend_itself_is_told_at_once(code: str) -> None:
    async def check() -> None:
        status = replace(CALLING, cause_code=code)
        pipe = Pipe(status)
        hints = Hints(pipe.told.append, pipe.status, waits=False)
        hints.look(status)
        hints.look(status)
        assert pipe.told == [Trying("there:1", "refused", code, 25.0)]
        await pipe.looks(2)
        assert len(pipe.told) == 1

    run(check)


class Slow(Pipe):
    """Something comes before each of the first looks."""

    def status(self) -> Status:
        super().status()
        return replace(UP, received=min(self.asked, 4))


def test_a_peer_that_does_not_finish_is_told_of_once_when_nothing_comes() -> None:
    async def check() -> None:
        pipe = Slow(UP)
        Hints(pipe.told.append, pipe.status, waits=False)
        while not pipe.told:
            await asyncio.sleep(MOMENT / 10)
        assert pipe.asked == 5
        await asyncio.sleep(3 * MOMENT)
        assert pipe.told == [WaitingForPeer()]
        assert pipe.asked == 5

    run(check)


@pytest.mark.parametrize(
    "status",
    [replace(UP, peer_finished=True), replace(UP, written=0, confirmed=0)],
    ids=["finished", "nothing sent"],
)
def test_nobody_looks_any_more_when_nothing_can_be_waited_for(status: Status) -> None:
    async def check() -> None:
        pipe = Pipe(status)
        Hints(pipe.told.append, pipe.status, waits=False)
        await pipe.looks(1)
        await asyncio.sleep(3 * MOMENT)
        assert (pipe.asked, pipe.told) == (1, [])

    run(check)


# --- stdin ---


class Engine:
    """One whose peer has finished, while stdin is silent."""

    connected = spacious = True

    def __init__(self) -> None:
        self.reader = SimpleNamespace(done=True)
        self.writer = SimpleNamespace(written=7)
        self.ended = False
        self.asked = 0

    @property
    def refusing(self) -> bool:
        self.asked += 1
        return self.ended


class Hint:
    """The hint, and how often it was given."""

    def __init__(self, engine: Any) -> None:
        self.told = 0
        hint = StdinHint(engine, self._tell)
        for _ in range(3):
            hint.look()

    def _tell(self) -> None:
        self.told += 1


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(MOMENT / 10)


def test_an_open_silent_stdin_is_told_of_once() -> None:
    async def check() -> None:
        engine = Engine()
        hint = Hint(engine)
        assert hint.told == 0
        await until(lambda: hint.told)
        await asyncio.sleep(3 * MOMENT)
        assert (hint.told, engine.asked) == (1, 1)

    run(check)


def test_not_before_the_peers_stream_was_taken_to_its_end() -> None:
    async def check() -> None:
        engine = Engine()
        engine.reader.done = False
        hint = Hint(engine)
        await asyncio.sleep(3 * MOMENT)
        assert (hint.told, engine.asked) == (0, 0)

    run(check)


def test_a_stdin_that_has_ended_is_not_waited_for() -> None:
    async def check() -> None:
        engine = Engine()
        engine.ended = True
        hint = Hint(engine)
        await until(lambda: engine.asked)
        await asyncio.sleep(3 * MOMENT)
        assert (hint.told, engine.asked) == (0, 1)

    run(check)


@pytest.mark.parametrize("what", ["connected", "spacious"])
def test_a_stdin_that_cannot_be_read_now_is_looked_at_again(what: str) -> None:
    async def check() -> None:
        engine = Engine()
        setattr(engine, what, False)
        hint = Hint(engine)
        await until(lambda: engine.asked >= 3)
        assert hint.told == 0
        setattr(engine, what, True)
        await until(lambda: hint.told)

    run(check)


class Busy(Engine):
    """Something comes from its stdin before each of the first looks."""

    @property
    def refusing(self) -> bool:
        refusing = super().refusing
        self.writer.written = min(7 + self.asked, 10)
        return refusing


def test_a_stdin_that_is_busy_is_looked_at_again() -> None:
    async def check() -> None:
        engine = Busy()
        hint = Hint(engine)
        await until(lambda: hint.told)
        assert (hint.told, engine.asked) == (1, 4)

    run(check)


def test_a_process_that_was_stopped_meanwhile_looks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        monkeypatch.setattr(module, "OVERDUE", -1.0)
        engine = Engine()
        hint = Hint(engine)
        await until(lambda: engine.asked >= 3)
        assert hint.told == 0
        monkeypatch.setattr(module, "OVERDUE", 60.0)
        await until(lambda: hint.told)

    run(check)
