"""Who is called by a real dialer, and says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from bpipe.errors import LinkLost
from bpipe.net.address import Address
from bpipe.net.backoff import Backoff
from bpipe.net.connectors import Connector, connector
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
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

Wrap = Callable[[Connector], Connector]
CALM = Limits(heartbeat=60)
VERDICT = pack_verdict(Verdict(Admission.OK, Position(0, 0, 1)))


class Callee:
    """Who is called: a test speaks for it. It greets once, and then has to be told to."""

    def __init__(
        self, server: socket.socket, stack: contextlib.ExitStack, limits: Limits, wrap: Wrap
    ) -> None:
        self.session = Session(1000, limits)
        where = wrap(connector(Address(*server.getsockname())))
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
async def called(
    limits: Limits = CALM, wrap: Wrap = lambda connector: connector
) -> AsyncIterator[Callee]:
    """One of these, and who calls."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.setblocking(False)
        callee = Callee(server, stack, limits, wrap)
        try:
            async with asyncio.timeout(15):
                yield callee
        finally:
            await callee.dialer.close()
            await asyncio.sleep(0)  # for the attempts that are dropped
