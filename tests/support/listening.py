"""A real listener, and callers who say what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from bpipe.net.accepted import AcceptedLinks
from bpipe.net.acceptor import Host
from bpipe.net.address import parse
from bpipe.net.bind import bind
from bpipe.net.bound import Bound
from bpipe.net.listener import Door, Listener
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Hello, Opening, Position, pack_hello
from tests.support.strangers import has_ipv6

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Serving(NamedTuple):
    """A listener that accepts callers for one session."""

    listener: Listener
    source: AcceptedLinks
    session: Session
    changes: list[int]  # the callers that did not belong here, whenever something has happened

    @property
    def port(self) -> int:
        """Where."""
        return port_of(self.listener.name)


@contextlib.asynccontextmanager
async def serving(
    text: str = "127.0.0.1:0",
    *,
    anywhere: bool = False,
    secret: Secret | None = None,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    door: Callable[[Bound, Host], Door] | None = None,
) -> AsyncIterator[Serving]:
    """A listener that accepts, and is closed in the end."""
    bound = await bind(parse(text), anywhere=anywhere)
    listener = Listener(bound, anywhere=anywhere, secret=secret, door=door)
    session = Session(1000, limits, secret)
    source = listener.source(session)
    changes: list[int] = []
    source.start(lambda: changes.append(listener.refused))
    try:
        yield Serving(listener, source, session, changes)
    finally:
        await source.close()


def port_of(name: str) -> int:
    """The port in an address."""
    return int(name.rpartition(":")[2])


def can_connect(family: socket.AddressFamily, host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) == 0


async def until(condition: Callable[[], bool]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end, which may be a reset."""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


@contextlib.asynccontextmanager
async def crowd(port: int) -> AsyncIterator[Callable[[bytes], Awaitable[Caller]]]:
    """Makes connections that say this, are accepted, and stay."""
    async with contextlib.AsyncExitStack() as stack:

        async def come(said: bytes) -> Caller:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(said)
            await asyncio.sleep(0)  # the listener is in the same loop
            return reader, writer

        yield come


def hello(number: int, opening: Opening = Opening.OPEN, epoch: int = 1) -> bytes:
    """The first message of a caller of its own."""
    return pack_hello(Hello(opening, number.to_bytes(16, "big"), epoch, Position(0, 0, 1)))


def sealed_hello(secret: Secret) -> bytes:
    """The first message of one who knows the secret; never twice the same."""
    return begin(secret).pack_hello(Hello(Opening.OPEN, bytes(16), 1, Position(0, 0, 1)))
