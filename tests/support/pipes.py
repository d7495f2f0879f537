"""Two pipes of this process, over real sockets; and where no link ever comes from."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import bpipe
from bpipe.demo.faults import Cut, FaultProxy
from bpipe.net.link import Link

QUICK = bpipe.Limits(heartbeat=0.1, connect_timeout=5.0, give_up_after=5.0, linger=0.5)


SECRET = bpipe.Secret(bytes(32))


DATA = random.Random(8).randbytes(3_000_000)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


async def open_both(
    limits: bpipe.Limits = QUICK, **options: Any
) -> tuple[bpipe.BackedPipe, bpipe.BackedPipe]:
    """A caller and a listener that know of each other and are not yet connected."""
    listener = await bpipe.listen("127.0.0.1:0", limits=limits, **options)
    caller = await bpipe.connect(listener.status().peer, limits=limits, **options)
    return caller, listener


async def open_through_proxy(
    cuts: Iterable[Cut], limits: bpipe.Limits = QUICK
) -> tuple[bpipe.BackedPipe, bpipe.BackedPipe, FaultProxy]:
    """A caller, a listener, and the proxy between them."""
    listener = await bpipe.listen("127.0.0.1:0", limits=limits, buffer_size=1000)
    host, _, port = listener.status().peer.rpartition(":")
    proxy = FaultProxy((host, int(port)), cuts)
    address = "{}:{}".format(*proxy.start())
    limits = limits._replace(retry_max=0.02)
    caller = await bpipe.connect(address, limits=limits, buffer_size=1000)
    return caller, listener, proxy


async def connect_both(*pipes: bpipe.BackedPipe) -> None:
    await asyncio.gather(*(pipe.connect() for pipe in pipes))


@contextlib.asynccontextmanager
async def both(
    limits: bpipe.Limits = QUICK, **options: Any
) -> AsyncIterator[tuple[bpipe.BackedPipe, bpipe.BackedPipe]]:
    """A caller and a listener that are connected; aborted in the end if they are not over."""
    pipes = await open_both(limits, **options)
    try:
        await connect_both(*pipes)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
        for pipe in pipes:
            await pipe.wait_closed()


async def send(pipe: bpipe.BackedPipe, data: bytes) -> None:
    await pipe.write(data)
    pipe.finish()


async def read_all(pipe: bpipe.BackedPipe) -> bytes:
    found = []
    while data := await pipe.read():
        found.append(data)
    return b"".join(found)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def taken(pipe: bpipe.BackedPipe) -> bool:
    """Whether the link that is attached is the pipe's: until then there is none to drop."""
    return pipe.engine.link is not None and pipe.engine.link.cause is None


class Nowhere:
    """Where no link ever comes from; it tells what is asked of it."""

    name: Final = "nowhere:1"
    asks: Final = False
    ways: Final = ()

    def __init__(self, error: Exception | None = None, *, exposed: bool = False) -> None:
        self.exposed = exposed
        self.refused = self.attempts = self.change = 0
        self.next_at: float | None = None
        self.drive: Callable[[], None] = lambda: None
        self.asked: list[str] = []
        self._error = error

    def start(self, drive: Callable[[], None]) -> None:
        self.asked.append("start")
        self.drive = drive

    async def next_link(self, slot: int = 0) -> Link:
        self.asked.append("next link")
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        raise AssertionError

    def hurry(self) -> None:
        self.asked.append("hurry")

    def abandon(self) -> None:
        self.asked.append("abandon")

    async def close(self) -> None:
        self.asked.append("close")
