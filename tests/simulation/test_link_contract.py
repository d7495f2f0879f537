"""What every link does, over a socketpair, TCP, a Unix socket, and the simulated network.

The suite is the same for all: so what the simulation proves holds for real sockets, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bpipe.errors import Busy, LinkLost, ProtocolError, SessionEnded
from bpipe.net.clock import clock as system_clock
from bpipe.net.link import Link
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import GREETING_TIMEOUT, AnswererGreeting, CallerGreeting
from bpipe.protocol.patience import Limits
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Reason
from tests.simulation.loop import Loop, World
from tests.simulation.network import Network
from tests.simulation.weather import Weather
from tests.support.loopback import write

BUFFER = 1 << 20
BULK = random.Random(1).randbytes(BUFFER)

Pair = tuple[Any, Any]  # two connected sockets: the caller's, the answerer's
Contract = Callable[[Pair], Awaitable[None]]


class Place(NamedTuple):
    """Where a contract is fulfilled: it runs the contract on a pair of its sockets."""

    run: Callable[[Contract], None]
    clock: Callable[[], float]


def real(connect: Callable[[], Pair]) -> Place:
    """The real event loop, with sockets of the system."""

    def run(contract: Contract) -> None:
        async def main() -> None:
            pair = connect()
            for sock in pair:
                sock.setblocking(False)
            with contextlib.closing(pair[0]), contextlib.closing(pair[1]):
                async with asyncio.timeout(20):
                    await contract(pair)

        asyncio.run(main())

    return Place(run, system_clock)


def accepted(family: socket.AddressFamily, address: Any) -> Pair:
    """A pair through a listening socket."""
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen()
        caller = socket.socket(family, socket.SOCK_STREAM)
        caller.connect(listening.getsockname())
        return caller, listening.accept()[0]


def simulated() -> Place:
    """The simulated network, in virtual time."""
    world = World()

    def run(contract: Contract) -> None:
        loop = Loop(world, "both")
        network = Network(world, Weather(random.Random(2)), lambda prefix, text: None)

        async def main() -> None:
            listening = network.listen(loop)
            caller = await network.connect(loop)
            await contract((caller, listening.accept()[0]))

        task = loop.run(loop.create_task, main())
        while not task.done():
            world.step()
        task.result()
        assert not loop.errors

    return Place(run, world.clock)


@pytest.fixture(params=["socketpair", "TCP", "Unix", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    match request.param:
        case "socketpair":
            return real(socket.socketpair)
        case "TCP":
            return real(lambda: accepted(socket.AF_INET, ("127.0.0.1", 0)))
        case "Unix":
            return real(lambda: accepted(socket.AF_UNIX, str(tmp_path / "socket")))
        case _:
            return simulated()


class Party:
    """A session and its link."""

    def __init__(self, session: Session, link: Link) -> None:
        self.session = session
        self.link = link
        self.got = b""
        link.join(self.look)

    def look(self) -> None:
        """Take what has come, and say so."""
        while views := self.session.reader.readable(BUFFER):
            data = b"".join(views)
            self.got += data
            self.session.reader.took(len(data))
        self.link.flush()

    def write(self, data: bytes) -> None:
        """Put this on the stream."""
        assert write(self.session, data) == len(data)
        self.link.flush()


def table(session: Session) -> Sessions:
    """A listener's, which serves this one, and which nobody calls twice."""
    sessions = Sessions(lambda session: None)
    sessions.add(session)
    return sessions


async def greet(pair: Pair, clock: Callable[[], float]) -> tuple[Party, Party]:
    """Attach two sessions over this pair of sockets."""
    limits = Limits(heartbeat=0.2)
    near, far = Session(BUFFER, limits), Session(BUFFER, limits)
    answering = Link(pair[1], AnswererGreeting(table(far), clock()), "caller", clock)
    calling = Link(pair[0], CallerGreeting(Caller(near), clock()), "answerer", clock)
    await calling.greeted
    await answering.greeted
    return Party(near, calling), Party(far, answering)


async def until(condition: Callable[[], bool], clock: Callable[[], float], *parties: Party) -> None:
    """Wait for it; these are told of the time meanwhile."""
    async with asyncio.timeout(10):
        while not condition():
            for party in parties:
                party.link.tick(clock())
                party.link.flush()
            await asyncio.sleep(0.001)


def test_both_directions_carry_more_than_the_kernel_holds(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        near, far = await greet(pair, place.clock)
        near.write(BULK)
        far.write(BULK[::-1])
        await until(lambda: near.got == BULK[::-1] and far.got == BULK, place.clock)
        writers = near.session.writer, far.session.writer
        await until(
            lambda: all(each.acked == len(BULK) for each in writers), place.clock, near, far
        )
        near.link.fail(LinkLost("enough"))

    place.run(contract)


def test_a_link_that_is_failed_detaches_at_once_and_the_peer_learns_of_it(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        near, far = await greet(pair, place.clock)
        near.link.fail(LinkLost("told so"))
        assert not near.session.attached
        assert str(near.link.cause) == "told so"
        await until(lambda: not far.session.attached, place.clock)
        assert isinstance(await far.link.lost, LinkLost)

    place.run(contract)


def test_a_link_that_is_closed_first_says_everything_that_is_begun(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        near, far = await greet(pair, place.clock)
        far.write(b"unread")  # a careless close would now destroy what is on its way
        near.session.abort(Reason.LOCAL_ERROR, "no more", 0.0)
        near.link.flush()
        await near.link.close()
        await until(lambda: far.session.failure is not None, place.clock)
        assert str(far.session.failure) == 'the other end: "no more"'

    place.run(contract)


def test_junk_ends_the_link_and_not_the_session(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        _, far = await greet(pair, place.clock)
        pair[0].sendmsg([memoryview(b"\xff" * 16)])
        assert isinstance(await far.link.lost, ProtocolError)
        assert not far.session.over

    place.run(contract)


def test_a_greeting_without_an_answer_is_given_up(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        session = Session(BUFFER)
        began = place.clock() - GREETING_TIMEOUT + 0.1
        link = Link(pair[0], CallerGreeting(Caller(session), began), "nobody", place.clock)
        with pytest.raises(LinkLost, match="no answer to the greeting"):
            await link.greeted
        assert 0.1 <= place.clock() - (began + GREETING_TIMEOUT - 0.1) < 5
        assert not session.attached

    place.run(contract)


def test_a_refused_caller_is_told_before_the_link_is_closed(place: Place) -> None:
    async def contract(pair: Pair) -> None:
        session, now = Session(BUFFER), place.clock()
        session.leave(SessionEnded("over"))
        Link(pair[1], AnswererGreeting(table(session), now), "caller", place.clock)
        caller = Caller(Session(BUFFER))
        calling = Link(pair[0], CallerGreeting(caller, now), "answerer", place.clock)
        with pytest.raises(LinkLost, match="busy"):
            await calling.greeted
        assert isinstance(caller.session.failure, Busy)

    place.run(contract)
