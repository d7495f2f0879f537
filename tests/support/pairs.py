"""Two pipes that are joined, in one event loop, and descriptors for their ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

import bpipe
from bpipe.ends.pumps import Pump

LOOP = "MainThread"
QUICK = bpipe.Limits(heartbeat=0.2, connect_timeout=5.0, give_up_after=5.0, linger=0.5)

needs_nowait = pytest.mark.skipif(
    not hasattr(os, "RWF_NOWAIT"), reason="this system cannot be asked not to wait in one call"
)


class Files:
    """Pipes, and who closes them."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def pipe(self) -> tuple[int, int]:
        """Where to read, and where to write."""
        ends = os.pipe()
        for end in ends:
            self.stack.callback(self.close, end)
        return ends

    def close(self, descriptor: int) -> None:
        """Close it, if that was not done."""
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    with files.stack:
        yield files


@contextlib.asynccontextmanager
async def pair(secret: bpipe.Secret | None = None) -> AsyncIterator[list[bpipe.BackedPipe]]:
    """A caller and a listener that are not connected yet."""
    listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, buffer_size=1 << 20, secret=secret)
    where = listener.status().peer
    caller = await bpipe.connect(where, limits=QUICK, buffer_size=1 << 20, secret=secret)
    try:
        yield [caller, listener]
    finally:
        for pipe in (caller, listener):
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
            await pipe.wait_closed()


@contextlib.asynccontextmanager
async def both(secret: bpipe.Secret | None = None) -> AsyncIterator[list[bpipe.BackedPipe]]:
    """A caller and a listener, connected."""
    async with pair(secret) as pipes:
        await asyncio.gather(*(pipe.connect() for pipe in pipes))
        yield pipes


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run this within twenty seconds; afterwards no pump may be left."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())
    for thread in threading.enumerate():
        if isinstance(thread, Pump):
            thread.join(5)
            assert not thread.is_alive(), "a pump was left behind"


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, as long as the test may last."""
    while not condition():
        await asyncio.sleep(0.005)


def is_closed(descriptor: int) -> bool:
    """Whether nothing is behind this number any more."""
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


async def take(pipe: bpipe.BackedPipe, count: int) -> bytes:
    """So many bytes from a pipe."""
    data = b""
    while len(data) < count:
        data += await pipe.read(count - len(data))
    return data


async def drain(descriptor: int, count: int) -> bytes:
    """So many bytes that come out of a descriptor."""
    os.set_blocking(descriptor, False)
    data = b""
    while len(data) < count:
        with contextlib.suppress(BlockingIOError):
            data += os.read(descriptor, count - len(data))
        await asyncio.sleep(0.001)
    return data


class Calls:
    """Which thread has moved how much by system calls, in order; one that fails is not noted."""

    def __init__(self) -> None:
        self.tries = 0  # of the event loop, which must not wait
        self.done: list[tuple[str, int]] = []

    def note(self, count: int) -> int:
        """This call has moved so much."""
        self.done.append((threading.current_thread().name, count))
        return count

    def by(self, thread: str) -> int:
        """The bytes that this one has moved."""
        return sum(count for name, count in self.done if name == thread)
