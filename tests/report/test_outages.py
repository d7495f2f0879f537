"""What is told of sessions that call: of first connections, and of an outage of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from bpipe.engine import Engine
from bpipe.report import outages as module
from bpipe.report.events import Event, Trying
from bpipe.report.outages import AllLost, Outages, Regained
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level
from bpipe.status import State, Status
from tests.support.pairs import until
from tests.support.statuses import BEFORE

CALLING = replace(BEFORE, cause="refused", cause_code="refused", gives_up_in=25.0)
UP = replace(BEFORE, state=State.CONNECTED, links=1)
LOST = replace(UP, state=State.RECONNECTING, away=7.0, cause="reset", cause_code="reset")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER", 0.03)


class World:
    """Sessions whose status a test sets, and what is told of them: with their number, or of all."""

    level = Level.NORMAL

    def __init__(self) -> None:
        self.told: list[Event | tuple[int, Event]] = []
        self.outages = Outages(self.told.append)
        self.now: dict[int, Status] = {}

    def come(self, number: int, status: Status = CALLING) -> None:
        outer = self

        class One:
            level = Level.NORMAL

            def status(self) -> Status:
                return outer.now[number]

            def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
                outer.told.append((number, event))

        self.now[number] = status
        self.outages.came(number, cast(Engine, One()), cast(Teller, One()))
        self.outages.look(number, status)

    def be(self, number: int, status: Status) -> None:
        self.now[number] = status
        self.outages.look(number, status)

    async def tells(self, number: int) -> None:
        """Wait until so much was told."""
        await until(lambda: len(self.told) >= number)


def run(check: Callable[[World], Awaitable[Any]]) -> list[Event | tuple[int, Event]]:
    async def begin() -> World:
        world = World()
        await check(world)
        return world

    return asyncio.run(asyncio.wait_for(begin(), 20)).told


TRYING = Trying("there:1", "refused", "refused", 25.0)


def test_a_session_without_a_first_connection_says_why_after_a_moment() -> None:
    async def check(world: World) -> None:
        world.come(1)
        assert world.told == []
        await world.tells(1)

    assert run(check) == [(1, TRYING)]


def test_what_does_not_mend_itself_is_said_at_once_and_not_again() -> None:
    async def check(world: World) -> None:
        world.come(1)
        secret = replace(CALLING, cause_code="secret")
        world.be(1, secret)
        world.be(1, secret)
        assert world.told == [(1, TRYING._replace(code="secret"))]
        await asyncio.sleep(0.05)

    assert len(run(check)) == 1


def test_of_many_sessions_one_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(world: World) -> None:
        for number in range(1, 9):
            world.come(number)
        await world.tells(1)
        await asyncio.sleep(0.05)
        assert world.told == [(1, TRYING)]
        monkeypatch.setattr(module, "clock", lambda: float("inf"))  # later
        world.come(9)
        await world.tells(2)

    assert run(check)[1] == (9, TRYING)


def test_who_is_connected_in_time_or_has_ended_says_nothing() -> None:
    async def check(world: World) -> None:
        for number in (1, 2, 3):
            world.come(number)
        world.be(1, UP)
        world.outages.gone(2)
        world.be(3, replace(UP, state=State.OVER))
        world.outages.gone(3)
        await asyncio.sleep(0.06)

    assert run(check) == []


def test_that_all_have_lost_their_connection_is_told_and_that_it_is_back() -> None:
    async def check(world: World) -> None:
        for number in (1, 2):
            world.come(number, UP)
            world.be(number, LOST)
        await world.tells(1)
        world.come(3, replace(CALLING, gives_up_in=None))
        assert len(world.told) == 1
        world.be(2, UP)
        world.be(1, UP)

    lost, back = run(check)
    assert lost == AllLost(2, "there:1: reset", "reset")
    assert isinstance(back, Regained)
    assert back.outage > 7


def test_an_outage_of_a_moment_or_of_some_is_not_told() -> None:
    async def check(world: World) -> None:
        for number in (1, 2):
            world.come(number, UP)
        world.be(1, LOST)
        await asyncio.sleep(0.06)
        assert world.told == []
        world.be(2, LOST)
        world.be(2, UP)
        await asyncio.sleep(0.06)

    assert run(check) == []


def test_sessions_that_end_during_an_outage_are_not_connected_again() -> None:
    async def check(world: World) -> None:
        for number in (1, 2):
            world.come(number, UP)
            world.be(number, LOST)
        await world.tells(1)
        world.be(1, replace(LOST, state=State.ABORTING))
        world.outages.gone(1)
        world.outages.gone(2)
        world.come(3, UP)

    assert len(run(check)) == 1


def test_the_words() -> None:
    assert AllLost(3, "there:1: reset", "reset").words() == (
        "the connection of all 3 sessions is lost: there:1: reset; reconnecting"
    )
    assert AllLost(1, "why", "reset").words().startswith("the connection of the only session is")
    assert Regained(12.3).words() == "connected again after 12s"
