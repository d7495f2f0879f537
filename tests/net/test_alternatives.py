"""Which way each of several links goes, and which are tried where that is not known."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bpipe.errors import AddressError, LinkLost
from bpipe.net.address import Address
from bpipe.net.alternatives import Alternatives, Ways
from bpipe.net.connectors import Connection, Tcp, Unresolved
from bpipe.protocol.session import Session
from tests.support.loopback import CALLER
from tests.support.several import several


class Named(Tcp):
    """Connects to a peer in this process, from somewhere of that name."""

    def __init__(self, via: str) -> None:
        super().__init__(Address("127.0.0.1", 1))
        self.via = via
        self.turns: list[int] = []
        self.good: list[Connection] = []
        self.ended: list[str] = []
        self.error: Exception | None = None

    async def connect(self, turn: int) -> Connection:
        self.turns.append(turn)
        if self.error is not None:
            raise self.error
        sock, peer = socket.socketpair()
        peer.close()
        return Connection(sock, self.name)

    def prefer(self, connection: Connection) -> None:
        self.good.append(connection)

    async def close(self) -> None:
        self.ended.append("close")

    def abandon(self) -> None:
        self.ended.append("abandon")


def session(slots: int) -> Session:
    """One that knows how many slots it has."""
    made = Session(100, links=8)
    made.terms.agree(made.position._replace(links=slots))
    return made


async def connect(calls: Alternatives, turns: int) -> None:
    for turn in range(turns):
        (await calls.connect(turn)).sock.close()


@pytest.mark.parametrize(
    ("slots", "slot", "turns"),
    [
        (1, 0, [[0, 1], [0, 1], [0]]),  # nobody knows yet, or there is only one
        (2, 0, [[0, 1, 2], [], [0, 1]]),
        (2, 1, [[], [0, 1, 2], [0, 1]]),
        (3, 0, [[0, 1, 2, 3, 4], [], []]),
    ],
)
def test_the_ways_that_no_slot_has_are_tried_in_turn(
    slots: int, slot: int, turns: list[list[int]]
) -> None:
    ways = [Named(name) for name in "abc"]
    asyncio.run(connect(Alternatives(Ways(session(slots), ways), slot), 5))
    assert [each.turns for each in ways] == turns


def test_another_connector_for_the_same_way_is_no_alternative() -> None:
    ways = [Named("a"), Named("b"), Named("a"), Named("b")]
    asyncio.run(connect(Alternatives(Ways(session(1), ways), 0), 4))
    assert [each.turns for each in ways] == [[0, 1], [0, 1], [], []]


def test_the_way_that_was_good_is_the_own_one_of_the_slot() -> None:
    async def check() -> None:
        found = [Named(name) for name in "abc"]
        ways = Ways(session(1), found)
        calls = Alternatives(ways, 0)
        connection = await calls.connect(1)
        calls.prefer(connection)
        connection.sock.close()
        assert (found[1].good, calls.via, ways.names) == ([connection], "b", ["b", "a", "c"])
        await calls.check(0)
        await calls.close()
        calls.abandon()
        assert [each.ended for each in found] == [["close", "abandon"]] * 3

    asyncio.run(check())


def test_a_way_by_which_another_slot_has_a_link_stays_with_that() -> None:
    found = [Named("a"), Named("b")]
    ways = Ways(several(2).sessions[CALLER], found)
    ways.prefer(0, found[1])
    assert ways.names == ["a", "b"]


@pytest.mark.parametrize(
    "error",
    [OSError(101, "unreachable"), LinkLost("gone"), Unresolved("no"), AddressError("no IPv6")],
)
def test_a_way_that_leads_nowhere_is_passed_over_at_once(error: Exception) -> None:
    async def check() -> None:
        found = [Named(name) for name in "abc"]
        found[1].error = error
        calls = Alternatives(Ways(session(1), found), 0)
        await connect(calls, 3)
        assert [each.turns for each in found] == [[0], [0], [0, 0]]
        for each in found:
            each.error = error
        with pytest.raises(type(error)):
            await calls.connect(0)

    asyncio.run(check())
