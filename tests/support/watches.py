"""What is said on stderr of a run that is watched."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import bpipe
from bpipe.ends.streams import Directions, Streams
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Settings
from bpipe.report.watch import Watch
from tests.support.outputs import ended, stderr_as_a_pipe
from tests.support.pairs import pair, run, until

Watched = TypeVar("Watched", bound=Watch)
Check = Callable[[PipeWatch], Awaitable[None]]
STREAMS = Streams(0, 1, False, False)


def said(
    check: Check,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    streams: Streams = STREAMS,
    directions: Directions = Directions(),  # noqa: B008 - immutable
) -> list[str]:
    """The lines on stderr of a run with one pipe that does this."""
    return heard(lambda: PipeWatch(settings, streams, directions), check)


def heard(make: Callable[[], Watched], check: Callable[[Watched], Awaitable[None]]) -> list[str]:
    """The lines on stderr of a run that is watched like this and does this."""
    with stderr_as_a_pipe() as stderr, ended("Reporter"):
        watch = make()
        try:
            run(lambda: check(watch))
        finally:
            watch.close()
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(stderr, 1 << 16).decode().splitlines()
        return []


async def live(watch: PipeWatch, leave: Callable[[bpipe.BackedPipe], None] | None = None) -> None:
    """A session of which the watch tells; some bytes go each way."""
    async with pair() as (caller, listener):
        watch.open("there", listens=False)
        watch.begin(caller.engine, listens=False)
        await asyncio.gather(caller.connect(), listener.connect())
        await until(lambda: caller.status().state is bpipe.State.CONNECTED)
        await caller.write(b"12345")
        await listener.write(b"123")
        assert await listener.read() == b"12345"
        assert await caller.read() == b"123"
        await until(lambda: caller.status().confirmed == 5)
        if leave is not None:
            leave(caller)
        else:
            await asyncio.gather(caller.close(), listener.close())
        watch.conclude(caller.failure, caller.status(), 0, interrupted=False)
