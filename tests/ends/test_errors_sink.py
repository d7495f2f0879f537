"""The process's own ends where the other one is a program whose stderr is carried, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

import bpipe
from bpipe.ends.program_errors import RemoteProgram
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams
from bpipe.engine import Engine
from bpipe.errors import PipeClosed
from bpipe.protocol.wire import Ended, Finish
from tests.support.pairs import Files, drain, files, run, until
from tests.support.records import both

__all__ = ["files"]

BOTH = Directions()


async def ended_well(pipe: bpipe.BackedPipe) -> None:
    await pipe.wait_closed()
    assert pipe.failure is None


class Near:
    """What is behind the near end: pipes in the place of its stdin, stdout and stderr."""

    def __init__(self, files: Files) -> None:
        self.stdin, self.feed = files.pipe()
        self.out, self.stdout = files.pipe()
        self.err, self.stderr = files.pipe()
        self.seen = bytearray()
        self.close = files.close

    def start(self, engine: Engine) -> None:
        streams = Streams(self.stdin, self.stdout, False, False)
        before = lambda views: self.seen.extend(b"".join(views))  # noqa: E731
        Stdio(streams, BOTH, before, self.stderr).start(engine)


def joined(
    files: Files, test: Callable[[Near, bpipe.BackedPipe], Awaitable[None]], *argv: str
) -> None:
    async def check() -> None:
        near = Near(files)
        program = RemoteProgram(argv)
        async with both() as (caller, listener):
            program.start(listener.engine)
            near.start(caller.engine)
            await test(near, caller)
        await program.wait()

    run(check)


def test_each_goes_where_it_belongs(files: Files) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        near.close(near.feed)
        assert await drain(near.out, 4) == b"out\n"
        assert await drain(near.err, 4) == b"err\n"
        await ended_well(caller)
        assert os.read(near.out, 1) == b""
        os.write(near.stderr, b"ours")  # it stays open
        assert os.read(near.err, 9) == b"ours"
        assert sorted(near.seen.split()) == [b"err", b"out"]
        assert caller.reader.finish == Finish(Ended.EXITED, 7)

    joined(files, test, "sh", "-c", "echo out; echo err >&2; exit 7")


def test_a_stderr_that_nobody_takes_stops_stdout(files: Files) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        near.close(near.feed)
        await until(lambda: caller.reader.buffered > 100_000)  # the pipe of stderr is full
        os.set_blocking(near.out, False)
        with pytest.raises(BlockingIOError):
            os.read(near.out, 1)
        assert await drain(near.err, 1_000_000) == bytes(1_000_000)
        assert await drain(near.out, 6) == b"after\n"
        await ended_well(caller)

    joined(files, test, "sh", "-c", "head -c 1000000 /dev/zero >&2; echo after")


def test_a_stderr_that_is_closed_stops_nothing(files: Files) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        near.close(near.feed)
        near.close(near.err)
        assert await drain(near.out, 6) == b"after\n"
        await ended_well(caller)

    joined(files, test, "sh", "-c", "head -c 1000000 /dev/zero >&2; echo after")


def test_a_stdout_that_is_closed_early_stops_the_program_when_there_is_more_for_it(
    files: Files,
) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        near.close(near.out)
        os.write(near.feed, b"a\n")
        assert await drain(near.err, 3) == b"on\n"
        assert caller.failure is None
        os.write(near.feed, b"b\n")
        await caller.wait_closed()
        assert isinstance(caller.failure, PipeClosed)

    joined(files, test, "sh", "-c", "read a; echo on >&2; read b; echo more; sleep 60")


def test_a_stdout_that_is_closed_early_fails_nothing_without_more_for_it(files: Files) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        near.close(near.out)
        near.close(near.feed)
        assert await drain(near.err, 3) == b"on\n"
        await ended_well(caller)
        assert caller.reader.finish == Finish(Ended.EXITED, 4)

    joined(files, test, "sh", "-c", "read a; echo on >&2; exit 4")


def test_a_program_that_leaves_our_stdin_ends_at_once(files: Files) -> None:
    async def test(near: Near, caller: bpipe.BackedPipe) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        os.write(near.feed, b"some that it does not read")
        await ended_well(caller)
        assert caller.reader.finish == Finish(Ended.EXITED, 0)
        assert loop.time() - began < 1.5

    joined(files, test, "true")
