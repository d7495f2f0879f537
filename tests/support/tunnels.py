"""Sockets that are joined by two pipes: what one owner does comes out at the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import bpipe
from bpipe.ends.local import Ends
from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.sockets import Connected
from bpipe.run.join import Join, Outcome
from tests.support.pipes import both, open_both, run, until

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def tcp() -> tuple[socket.socket, socket.socket]:
    """Both sides of one TCP connection, which do not block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


def unix() -> tuple[socket.socket, socket.socket]:
    """The same of a Unix socket."""
    near, far = socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


@contextlib.contextmanager
def service(backlog: int = 16) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens, and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listening:
        listening.setblocking(False)
        yield listening, "{}:{}".format(*listening.getsockname())


async def accept(listening: socket.socket) -> socket.socket:
    sock, _ = await asyncio.get_running_loop().sock_accept(listening)
    return sock


class Owner:
    """What the owner of a socket does and sees."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def send_for_ever(self) -> None:
        while True:
            await self.send(bytes(1 << 16))
            await asyncio.sleep(0)

    async def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await self._loop.sock_recv(self.sock, min(count - len(data), 1 << 18))
            assert piece, "the stream has ended"
            data += piece
        return data

    async def rest(self) -> bytes:
        """Everything until the end of file; ConnectionResetError if it has none."""
        found = []
        while data := await self._loop.sock_recv(self.sock, 1 << 18):
            found.append(data)
        return b"".join(found)

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Tunnel(NamedTuple):
    """Two pipes, and how they will have ended."""

    caller: bpipe.BackedPipe
    listener: bpipe.BackedPipe
    near: asyncio.Task[Outcome]
    far: asyncio.Task[Outcome]

    async def outcomes(self) -> tuple[Outcome, Outcome]:
        return await self.near, await self.far


@contextlib.asynccontextmanager
async def tunnel(near: Ends, far: Ends, **options: Any) -> AsyncIterator[Tunnel]:
    """The ends of a caller and of a listener, joined until they are over."""
    caller, listener = await open_both(**options)
    async with joined(caller, listener, near, far) as tunnel:
        yield tunnel


@contextlib.asynccontextmanager
async def joined(
    caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, near: Ends, far: Ends
) -> AsyncIterator[Tunnel]:
    """The same of two pipes that are there; they are aborted in the end if they are not over."""
    shared = LoopScheduling()
    tasks = [
        asyncio.create_task(Join(pipe, ends, shared).run())
        for pipe, ends in ((caller, near), (listener, far))
    ]
    try:
        yield Tunnel(caller, listener, *tasks)
    finally:
        for pipe in (caller, listener):
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def owners(pair: Pair = tcp, **options: Any) -> AsyncIterator[tuple[Owner, Owner, Tunnel]]:
    """The owner at the caller, the one at the listener, and what joins their sockets."""
    (near, ours), (far, theirs) = pair(), pair()
    with near, far:
        ends = Connected(ours, "the near connection"), Connected(theirs, "the far connection")
        async with tunnel(*ends, **options) as both:
            yield Owner(near), Owner(far), both


Test = Callable[[Owner, Owner, Tunnel], Awaitable[None]]


def with_owners(test: Test, pair: Pair = tcp, *, mirrored: bool = False) -> None:
    """Two owners and what joins them; no descriptor is left. ``mirrored``: the far one is first."""

    async def check() -> None:
        before = len(os.listdir("/dev/fd"))
        async with owners(pair) as (near, far, both):
            await (test(far, near, both) if mirrored else test(near, far, both))
        await until(lambda: len(os.listdir("/dev/fd")) <= before)

    run(check)


def with_peer(
    test: Callable[[bpipe.BackedPipe, Owner, bpipe.BackedPipe], Awaitable[None]],
    failure: type[bpipe.SessionEnded] | None = None,
) -> None:
    """A pipe, an owner whose socket is the ends of its peer, and that.

    The pipe ends well, and so does the peer, unless this is its failure.
    """

    async def check() -> None:
        owner, ours = tcp()
        ends = Connected(ours, "the connection")
        async with both() as (peer, pipe):
            ends.start(pipe.engine)
            with owner:
                await test(peer, Owner(owner), pipe)
                await asyncio.gather(peer.wait_closed(), pipe.wait_closed())
                await ends.wait()
            assert peer.failure is None
            assert pipe.failure is None if failure is None else isinstance(pipe.failure, failure)

    run(check)


async def is_whole(both: Tunnel) -> None:
    """Both ends end well."""
    near, far = await both.outcomes()
    assert (near.failure, far.failure) == (None, None)
