"""Several links of one caller: who asks for them, and what is told of all together."""

from __future__ import annotations

import asyncio
import math
from functools import partial

from bpipe.demo.faults import Cut, Fault
from bpipe.engine import Engine
from bpipe.net.address import parse
from bpipe.net.connectors import Connection, Tcp
from bpipe.net.dialers import Dialers
from bpipe.net.origin import parse_origin
from bpipe.protocol.session import Session
from bpipe.status import State
from tests.support.pipes import run, until
from tests.support.slots import several


class Silent(Tcp):
    """Where nobody ever answers; it counts who asks."""

    def __init__(self) -> None:
        super().__init__(parse("127.0.0.1:9"))
        self.asked = 0
        self.closed = self.abandoned = False

    async def connect(self, turn: int) -> Connection:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.abandoned = True


def test_each_slot_has_a_dialer_of_its_own() -> None:
    async def check() -> None:
        calls = [Silent(), Silent(), Silent()]
        dialers = Dialers(Session(100, links=3), calls)
        dialers.start(lambda: None)
        searches = [asyncio.ensure_future(dialers.next_link(slot)) for slot in (0, 2)]
        await until(lambda: [each.asked for each in calls] == [1, 0, 1])
        assert (dialers.attempts, dialers.change, dialers.asks) == (1, 2, False)
        dialers.hurry()
        await until(lambda: [each.asked for each in calls] == [2, 0, 2])
        assert dialers.next_at < math.inf
        dialers.abandon()
        await dialers.close()
        for search in searches:
            search.cancel()
        assert [(each.closed, each.abandoned) for each in calls] == [(True, True)] * 3

    run(check)


def test_the_links_of_a_session_are_those_of_its_slots() -> None:
    async def check() -> None:
        async with several([(), (), (), ()], most=3) as at:
            for engine in (at.caller.engine, at.listener.engine):
                await until(partial(_has, engine, 3))
                assert {slot: link.slot for slot, link in engine.links.items()} == {
                    0: 0,
                    1: 1,
                    2: 2,
                }

    run(check)


def _has(engine: Engine, count: int) -> bool:
    return len(engine.links) == count


def test_why_a_slot_has_no_link_is_known_while_others_go_on() -> None:
    async def check() -> None:
        async with several([(), [Cut(Fault.EOF, upward=True, offset=0)] * 99]) as at:
            await until(lambda: at.caller.status().slots[1].cause != "")
            status = at.caller.status()
            assert [each.cause_code for each in status.slots] == ["", "closed"]
            assert (status.state, status.up) == (State.CONNECTED, 1)

    run(check)


def test_the_ways_of_the_links_have_the_names_that_were_typed() -> None:
    async def check() -> None:
        calls = [
            Tcp(parse("127.0.0.1:9"), origin=origin) for origin in (parse_origin("127.0.0.1"), None)
        ]
        assert Dialers(Session(100, links=2), calls).ways == ["127.0.0.1", ""]

    run(check)
