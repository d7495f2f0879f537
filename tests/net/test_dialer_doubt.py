"""What a dialer does beside a link over which nothing comes any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from bpipe.errors import LinkLost
from bpipe.net.address import Address
from bpipe.net.backoff import Backoff
from bpipe.net.connectors import connector
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.protocol.liveness import OWED
from bpipe.protocol.patience import Limits
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    Admission,
    Kind,
    Position,
    Verdict,
    pack_frame,
    pack_verdict,
)
from tests.support.loopback import write

pytestmark = pytest.mark.slow  # it is a second before a link is in doubt

CALM = Limits(heartbeat=60)
VERDICT = pack_verdict(Verdict(Admission.OK, Position(0, 0, 1)))


class Callee:
    """Who is called: a test speaks for it. It greets once, and then has to be told to."""

    def __init__(self, server: socket.socket, stack: contextlib.ExitStack, limits: Limits) -> None:
        self.session = Session(1000, limits)
        where = connector(Address(*server.getsockname()))
        self.dialer = Dialer(self.session, where, Backoff(1.0))
        self._server = server
        self._stack = stack

    async def accept(self) -> socket.socket:
        """The next connection, on which a caller has said hello."""
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(self._server)
        self._stack.enter_context(peer)
        assert len(await loop.sock_recv(peer, 1000)) == HELLO_SIZE
        return peer

    async def link(self) -> tuple[Link, socket.socket]:
        """A link that is up, over which the caller has said something that nobody answers."""
        loop = asyncio.get_running_loop()
        search = asyncio.ensure_future(self.dialer.next_link())
        peer = await self.accept()
        await loop.sock_sendall(peer, VERDICT)
        assert await loop.sock_recv(peer, HEADER_SIZE) == pack_frame(Kind.CONFIRM, 0)
        await loop.sock_sendall(peer, pack_frame(Kind.READY, 0))
        link = await search
        self._stack.callback(link.fail, LinkLost("the test is over"))
        link.flush()
        assert await loop.sock_recv(peer, HEADER_SIZE) == pack_frame(Kind.ACK, 0)
        return link, peer


@contextlib.asynccontextmanager
async def called(limits: Limits = CALM) -> AsyncIterator[Callee]:
    """One of these, and who calls."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.setblocking(False)
        callee = Callee(server, stack, limits)
        try:
            async with asyncio.timeout(15):
                yield callee
        finally:
            await callee.dialer.close()
            await asyncio.sleep(0)  # for the attempts that are dropped


def test_a_link_that_falls_silent_is_held_and_replaced_by_the_first_that_is_answered() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            began = loop.time()
            second = await callee.accept()
            assert loop.time() - began > OWED - 0.1
            write(callee.session, b"x")
            old.flush()
            with pytest.raises(BlockingIOError):
                peer.recv(1000)  # what would contradict the greeting
            assert callee.session.attached
            await loop.sock_sendall(second, VERDICT)
            cause = await old.lost
            assert str(cause).startswith("nothing was heard for 1.")
            assert str(cause).endswith(" s, and a new connection is answered")
            assert cause.code == "silent"
            assert await loop.sock_recv(second, 1000) == pack_frame(Kind.CONFIRM, 0)

    asyncio.run(check())


def test_a_link_that_is_heard_again_is_kept_and_goes_on() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            second = await callee.accept()
            await loop.sock_sendall(peer, pack_frame(Kind.PING, 7))
            assert await loop.sock_recv(peer, 1000) == pack_frame(Kind.PONG, 7)
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(second, VERDICT)  # too late
                assert await loop.sock_recv(second, 1000) == b""
            assert callee.session.attached
            assert old.cause is None

    asyncio.run(check())


def test_one_whose_link_is_the_only_one_looks_for_no_other() -> None:
    async def check() -> None:
        async with called(CALM._replace(give_up_after=0)) as callee:
            old, _ = await callee.link()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(callee.accept(), OWED + 0.5)
            assert old.cause is None

    asyncio.run(check())


def test_while_the_old_link_is_trusted_no_other_is_looked_for() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            waiting = asyncio.ensure_future(callee.accept())
            for number in range(3):
                await asyncio.sleep(OWED / 2)
                await loop.sock_sendall(peer, pack_frame(Kind.PING, number))
                assert await loop.sock_recv(peer, 1000) == pack_frame(Kind.PONG, number)
            assert not waiting.done()
            assert old.cause is None
            waiting.cancel()
            await asyncio.wait([waiting])

    asyncio.run(check())
