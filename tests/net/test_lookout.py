"""What an end does when the system says that the path of its link goes, or is back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, cast

import pytest

from bpipe.errors import LinkLost
from bpipe.net.address import parse
from bpipe.net.backoff import Backoff
from bpipe.net.connectors import Connection, connector
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.net.lookout import PROOF, SETTLED, Lookout
from bpipe.net.netlink import Path, Way
from bpipe.net.routes import path_to, use
from bpipe.net.schedule import OVERLAP
from bpipe.protocol.session import Session
from bpipe.protocol.wire import HEADER_SIZE, HELLO_SIZE, VERDICT_SIZE, Kind, pack_frame
from tests.support.callee import CALM, VERDICT, Callee, called
from tests.support.kernels import (
    DOWN,
    OURS,
    PATH,
    PEER,
    SEARCHED,
    WAY,
    FakeKernel,
    FarConnector,
    far_door,
)
from tests.support.listening import Caller, crowd, hello, serving, until


class Machine:
    """The kernels that are opened in an event loop, of which there is one at a time."""

    def __init__(self) -> None:
        self.kernels: list[FakeKernel] = []
        self.ways: dict[Path, Way | None] = {}
        use(self._open)

    def _open(self) -> FakeKernel:
        self.kernels.append(FakeKernel(self.ways))
        return self.kernels[-1]

    @property
    def kernel(self) -> FakeKernel:
        return self.kernels[-1]

    def take_asked(self) -> list[Path]:
        """What was asked for since this was called last."""
        asked = [path for kernel in self.kernels for path in kernel.asked]
        for kernel in self.kernels:
            kernel.asked.clear()
        return asked

    async def change(self, way: Way | None) -> None:
        """From now on this is the way, and who watches knows it."""
        asked = len(self.kernel.asked)
        self.kernel.change(way)
        await until(lambda: len(self.kernel.asked) > asked)


class Calling(NamedTuple):
    """A caller with a link to another machine, and who is called there."""

    machine: Machine
    callee: Callee
    link: Link
    peer: socket.socket

    async def hear(self, sock: socket.socket, size: int = 1000) -> bytes:
        return await asyncio.get_running_loop().sock_recv(sock, size)

    async def is_dropped(self, sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert await self.hear(sock) == b""

    async def say(self, sock: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, data)


def call(test: Callable[[Calling], Awaitable[None]]) -> None:
    async def check() -> None:
        machine = Machine()
        async with called(wrap=FarConnector) as callee:
            link, peer = await callee.link()
            await until(lambda: machine.kernels != [])
            await test(Calling(machine, callee, link, peer))
        assert machine.kernel.closed

    asyncio.run(check())


def test_a_link_whose_path_goes_is_in_doubt_and_another_is_asked_for_at_once() -> None:
    async def check(calling: Calling) -> None:
        calling.machine.kernel.change(None)
        second = await calling.callee.accept()  # the heartbeat is a minute
        assert calling.link.cause is None
        assert calling.callee.session.attached
        await calling.say(second, VERDICT)
        assert (await calling.link.lost).code == "silent"

    call(check)


def test_it_stays_in_doubt_while_there_is_no_way_although_something_is_heard() -> None:
    async def check(calling: Calling) -> None:
        calling.machine.kernel.change(None)
        second = await calling.callee.accept()
        await calling.say(calling.peer, pack_frame(Kind.PING, 7))
        assert await calling.hear(calling.peer) == pack_frame(Kind.PONG, 7)
        await calling.say(second, VERDICT)
        assert (await calling.link.lost).code == "silent"

    call(check)


def test_over_a_path_that_is_back_the_old_link_is_asked_and_another_asked_for() -> None:
    async def check(calling: Calling) -> None:
        calling.machine.kernel.tell(DOWN)
        second = await calling.callee.accept()
        question = await calling.hear(calling.peer)
        assert question[0] == pack_frame(Kind.PING, 1)[0]
        await calling.say(calling.peer, pack_frame(Kind.PONG, 1))
        await calling.is_dropped(second)  # the old one lives
        assert calling.link.cause is None

    call(check)


def test_while_a_link_is_looked_for_a_way_makes_an_attempt() -> None:
    async def check(calling: Calling) -> None:
        await calling.machine.change(None)
        calling.link.fail(LinkLost("cut"))
        search = asyncio.ensure_future(calling.callee.dialer.next_link())
        first = await calling.callee.accept()  # this one is not answered
        for path in (PATH, SEARCHED):
            calling.machine.kernel.change(WAY, path)
            peer = await asyncio.wait_for(calling.callee.accept(), OVERLAP / 2)
        await calling.say(peer, VERDICT + pack_frame(Kind.READY, 0))
        link = await search
        await calling.is_dropped(first)
        link.fail(LinkLost("the test is over"))

    call(check)


def test_a_way_that_goes_makes_none() -> None:
    async def check(calling: Calling) -> None:
        calling.link.fail(LinkLost("cut"))
        dialer = calling.callee.dialer
        search = asyncio.ensure_future(dialer.next_link())
        await calling.callee.accept()
        due = dialer.next_at
        calling.machine.kernel.change(None)
        looks = calling.machine.kernel.looks
        await until(lambda: calling.machine.kernel.looks > looks + 1)
        assert dialer.next_at == due
        search.cancel()

    call(check)


class Steady(Backoff):
    """Waits for an hour."""

    def next(self) -> float:
        return 3600.0


class Carrier(FarConnector):
    """A command, behind which nobody knows who is."""

    async def connect(self, turn: int) -> Connection:
        self.calls += 1
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        return Connection(near, "the command")


def test_a_carrier_is_started_when_the_way_to_anywhere_is_another() -> None:
    async def check() -> None:
        machine, loop = Machine(), asyncio.get_running_loop()
        carrier = Carrier(connector(parse("127.0.0.1:1")))
        session = Session(1000, CALM)
        dialer = Dialer(session, carrier, Steady(1.0))
        try:
            search = asyncio.ensure_future(dialer.next_link())
            await until(lambda: carrier.calls == 1)
            assert len(await loop.sock_recv(carrier.far, 1000)) == HELLO_SIZE
            await loop.sock_sendall(carrier.far, VERDICT + pack_frame(Kind.READY, 0))
            link = await search
            assert not machine.kernels
            carrier.far.close()
            await link.lost
            search = asyncio.ensure_future(dialer.next_link())
            await until(lambda: carrier.calls == 2)
            carrier.far.close()
            await until(lambda: not search.done() and dialer.next_at > loop.time() + 1000)
            machine.kernel.change(Way(4, b"", b""), ANYWHERE)
            await until(lambda: carrier.calls == 3)
            search.cancel()
        finally:
            await dialer.close()
            carrier.far.close()
        assert machine.kernel.closed

    asyncio.run(check())


# --- the end that is called ---


class Answering(NamedTuple):
    """A listener whose caller seems to come from another machine."""

    machine: Machine
    link: Link
    caller: Caller


def answer(test: Callable[[Answering], Awaitable[None]]) -> None:
    async def check() -> None:
        machine = Machine()
        async with serving(door=far_door, limits=CALM) as at, crowd(at.port) as come:
            reader, writer = await come(hello(1))
            await reader.readexactly(VERDICT_SIZE)
            writer.write(pack_frame(Kind.CONFIRM, 0))
            link = await at.source.next_link()
            await reader.readexactly(HEADER_SIZE)
            await until(lambda: machine.kernels != [])
            await test(Answering(machine, link, (reader, writer)))
            link.fail(LinkLost("the test is over"))
            await asyncio.sleep(0)
            assert machine.kernel.closed

    asyncio.run(check())


def test_one_that_is_called_ends_a_link_that_brings_nothing_over_a_path_that_is_back() -> None:
    async def check(answering: Answering) -> None:
        reader, _ = answering.caller
        await answering.machine.change(None)
        await answering.machine.change(WAY)
        assert (await answering.link.lost).code == "silent"
        with pytest.raises(ConnectionResetError):
            await reader.read()

    answer(check)


def test_it_keeps_one_that_is_heard() -> None:
    async def check(answering: Answering) -> None:
        reader, writer = answering.caller
        answering.machine.kernel.tell(DOWN)
        while (await reader.readexactly(HEADER_SIZE))[0] != pack_frame(Kind.PING, 1)[0]:
            pass
        writer.write(pack_frame(Kind.PONG, 1))
        await asyncio.sleep(2 * PROOF)
        assert answering.link.cause is None

    answer(check)


def test_it_keeps_one_whose_path_has_gone_again() -> None:
    async def check(answering: Answering) -> None:
        answering.machine.kernel.tell(DOWN)
        await answering.machine.change(None)
        await asyncio.sleep(2 * PROOF)
        assert answering.link.cause is None
        answering.machine.kernel.change(WAY)
        await answering.link.lost

    answer(check)


# --- what is watched ---


class Name(NamedTuple):
    """A socket that has these addresses."""

    peer: Any
    local: Any

    def getpeername(self) -> Any:
        if self.peer is None:
            raise OSError(107, "Transport endpoint is not connected")
        return self.peer

    def getsockname(self) -> Any:
        return self.local


class Bound(Name):
    """One that goes out by an interface."""

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_BINDTODEVICE)
        return b"usb0\0"


class Linked(NamedTuple):
    """A link with such a socket."""

    sock: Name


ANYWHERE = path_to(("192.0.2.1", 0))
ANYWHERE_6 = path_to(("2001:db8::1", 0))
SIX = ("fd07::2", 7, 0, 0), ("fd07::1", 8, 0, 0)


@pytest.mark.parametrize(
    ("peer", "local", "over", "searched"),
    [
        ((PEER, 7), (OURS, 8), [PATH], [PATH, SEARCHED]),
        (*SIX, [path_to(*SIX)], [path_to(*SIX), path_to(SIX[0])]),
        ("", "", [], [ANYWHERE, ANYWHERE_6]),
        ("/run/bpipe", "", [], []),
        (b"\0bpipe", b"", [], []),
        (("127.0.0.2", 7), ("127.0.0.1", 8), [], []),
        (("::1", 7, 0, 0), ("::1", 8, 0, 0), [], []),
        (("::ffff:127.0.0.1", 7, 0, 0), ("::ffff:127.0.0.1", 8, 0, 0), [], []),
        ((OURS, 7), (OURS, 8), [], []),
        (None, None, [], []),
    ],
)
def test_only_what_leaves_the_machine_is_watched(
    peer: Any, local: Any, over: list[Path], searched: list[Path]
) -> None:
    async def check() -> None:
        machine, lookout = Machine(), Lookout(lambda there: None)
        lookout.over(cast(Link, Linked(Name(peer, local))))
        await asyncio.sleep(SETTLED + 0.05)
        assert machine.take_asked() == over
        lookout.over(None)
        assert machine.take_asked() == searched
        for _ in range(2):
            lookout.end()
        assert all(kernel.closed for kernel in machine.kernels)

    asyncio.run(check())


@pytest.mark.skipif(not hasattr(socket, "SO_BINDTODEVICE"), reason="nobody can be bound here")
def test_an_interface_that_was_chosen_is_asked_about() -> None:
    async def check() -> None:
        machine, lookout = Machine(), Lookout(lambda there: None)
        lookout.over(cast(Link, Linked(Bound((PEER, 7), (OURS, 8)))))
        lookout.over(None)
        assert machine.take_asked() == [
            each._replace(interface="usb0") for each in (PATH, SEARCHED)
        ]
        lookout.end()

    asyncio.run(check())


def test_a_link_that_does_not_live_long_is_not_watched() -> None:
    async def check() -> None:
        machine, lookout = Machine(), Lookout(lambda there: None)
        for stop in (lookout.end, partial(lookout.over, None)):
            lookout.over(cast(Link, Linked(Name((PEER, 7), (OURS, 8)))))
            stop()
            asked = machine.take_asked()
            await asyncio.sleep(SETTLED + 0.05)
            assert machine.take_asked() == []
        assert asked == [PATH, SEARCHED]
        lookout.end()

    asyncio.run(check())


def test_where_nothing_may_be_watched_timers_have_to_do() -> None:
    async def check() -> None:
        def refuse() -> FakeKernel:
            raise PermissionError(1, "Operation not permitted")

        use(refuse)
        async with called(wrap=FarConnector) as callee:
            link, _ = await callee.link()
            link.fail(LinkLost("cut"))
            search = asyncio.ensure_future(callee.dialer.next_link())
            await callee.accept()
            search.cancel()

    asyncio.run(check())
