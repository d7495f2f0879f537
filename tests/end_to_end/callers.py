"""Many callers in this process, by the Python interface, of a listener that answers the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

import bpipe
from tests.end_to_end.data import pattern

QUIET: Final = 0.5  # seconds without a byte: then everything stands still
AT_ONCE: Final = 20  # who call at the same time


async def ask(pipe: bpipe.BackedPipe, data: bytes | memoryview = b"x") -> None:
    """Send this, and wait until it has come back."""
    await pipe.write(data)
    left = len(data)
    while left:
        left -= len(await pipe.read(left))


@contextlib.asynccontextmanager
async def calling(
    address: str, count: int, **options: Any
) -> AsyncIterator[list[bpipe.BackedPipe]]:
    """So many sessions that are up: each has got an answer. In the end they are aborted."""
    pipes = [await bpipe.connect(address, **options) for _ in range(count)]
    turns = asyncio.Semaphore(AT_ONCE)

    async def begin(pipe: bpipe.BackedPipe) -> None:
        async with turns:
            await pipe.connect()
            await ask(pipe)

    try:
        await asyncio.gather(*map(begin, pipes))
        yield pipes
    finally:
        for pipe in pipes:
            pipe.abort(bpipe.Reason.INTERRUPTED, "it was enough")
        for pipe in pipes:
            await pipe.wait_closed()


async def stall(pipes: list[bpipe.BackedPipe]) -> None:
    """Push, and read nothing, until nothing moves any more: both directions of all are full."""

    async def push(pipe: bpipe.BackedPipe) -> None:
        while True:
            await pipe.write(pattern(0, 1 << 16))

    pushing = [asyncio.create_task(push(pipe)) for pipe in pipes]
    before, now = -1, 0
    while before != now:
        before = now
        await asyncio.sleep(QUIET)
        now = sum(pipe.writer.confirmed + pipe.reader.received for pipe in pipes)
    for task in pushing:
        task.cancel()
    await asyncio.wait(pushing)


class Echo:
    """A service that answers the same, in a thread for each connection."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "{}:{}".format(*self._listening.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # this ends the thread
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    with contextlib.suppress(OSError), sock:
        while data := sock.recv(1 << 16):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
