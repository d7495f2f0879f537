"""The inlet: whether stdin is read by the right thread, and what happens where it changes hands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import bpipe
from bpipe.ends.inlet import Inlet
from bpipe.ends.local import Source
from bpipe.ends.source_pump import SMALL_READS, SourcePump
from bpipe.errors import PeerAborted
from bpipe.net.outlet import LITTLE
from tests.support.pairs import LOOP, Calls, Files, both, files, is_closed, run, take, until

__all__ = ["files"]

PUMP = "SourcePump"
BULK = 4 * LITTLE


class Reads(Calls):
    """Those of stdin."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        readv, preadv = os.readv, os.preadv

        def try_preadv(descriptor: int, views: list[memoryview], offset: int, flags: int) -> int:
            self.tries += 1
            return self.note(preadv(descriptor, views, offset, flags))

        patch.setattr(os, "readv", lambda descriptor, views: self.note(readv(descriptor, views)))
        patch.setattr(os, "preadv", try_preadv)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("this system cannot be asked not to wait in one read")
    return Reads(monkeypatch)


async def carry(feed: int, piece: bytes, listener: bpipe.BackedPipe) -> None:
    """What is written to stdin comes out at the far end."""
    assert os.write(feed, piece) == len(piece)
    assert await take(listener, len(piece)) == piece


async def end(feed: int, listener: bpipe.BackedPipe, stdin: int) -> None:
    """The end of stdin arrives, and the pump has closed it."""
    os.close(feed)
    assert await listener.read() == b""
    await until(lambda: is_closed(stdin))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_little_is_read_by_the_loop_up_to_the_end(files: Files, reads: Reads, kind: str) -> None:
    async def check() -> None:
        if kind == "pipe":
            stdin, feed = files.pipe()
        else:
            stdin, feed = (end.detach() for end in socket.socketpair())
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            for piece in (b"first", b"x" * (LITTLE - 1), b"last"):
                await carry(feed, piece, listener)
            assert reads.by(PUMP) == 0
            await end(feed, listener, stdin)

    run(check)


def test_a_named_pipe_is_read_whoever_can(tmp_path: Path, reads: Reads) -> None:
    async def check() -> None:
        os.mkfifo(tmp_path / "fifo")
        stdin = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        feed = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.set_blocking(stdin, True)
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            for _ in range(3 * SMALL_READS):
                await carry(feed, b"piece", listener)
            await end(feed, listener, stdin)
        if reads.by(PUMP):  # it could not be asked, and was not asked again
            assert reads.tries == 1

    run(check)


def test_stdin_that_the_loop_cannot_wait_for_is_left_to_the_pump(
    files: Files, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def refuse(descriptor: int, *callback: Any) -> None:
            if descriptor == stdin:
                raise OSError(errno.ENOSPC, "no room for another watch")
            add_reader(descriptor, *callback)

        monkeypatch.setattr(loop, "add_reader", refuse)
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            for _ in range(3 * SMALL_READS):
                await carry(feed, b"piece", listener)
            await end(feed, listener, stdin)
        assert reads.by(LOOP) == 0

    run(check)


def test_an_error_that_a_socket_tells_only_once_is_not_taken_for_the_end(reads: Reads) -> None:
    async def check() -> None:
        near, far = socket.socketpair()
        near.send(b"never read")  # so that a close resets the connection
        async with both() as (caller, listener):
            SourcePump(caller.engine, near.detach(), "stdin")
            far.send(b"little")
            assert await take(listener, 6) == b"little"
            assert reads.done == [(LOOP, 6)]
            far.close()
            with pytest.raises(PeerAborted, match="cannot read stdin: connection reset"):
                await listener.read()

    run(check)


@pytest.mark.parametrize("after", ["little", "end"])
def test_much_is_read_by_the_pump_and_a_little_after_it_by_the_loop_again(
    files: Files, reads: Reads, after: str
) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            await carry(feed, b"little", listener)
            data = os.urandom(BULK)
            writing = asyncio.create_task(asyncio.to_thread(os.write, feed, data))
            assert await take(listener, BULK) == data
            assert await writing == BULK
            assert reads.by(PUMP) > 0
            if after == "little":
                for _ in range(SMALL_READS):
                    await carry(feed, b"s", listener)
                by_pump = reads.by(PUMP)
                await carry(feed, b"again", listener)
                assert reads.by(PUMP) == by_pump
            await end(feed, listener, stdin)

    run(check)


@pytest.mark.parametrize("how", ["stop", "abort"])
def test_the_loop_gives_up_a_stdin_that_nobody_wants(files: Files, reads: Reads, how: str) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            await carry(feed, b"little", listener)
            assert reads.done == [(LOOP, 6)]
            if how == "stop":
                listener.stop()
            else:
                caller.abort(bpipe.Reason.LOCAL_ERROR, "enough")
            await until(lambda: is_closed(stdin))
            with pytest.raises(BrokenPipeError):
                os.write(feed, b"x")

    run(check)


class Over:
    """An engine that has told everything that it has to tell."""

    refusing = True

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def observe(self, callback: Callable[[], None]) -> None: ...

    def call(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)


def test_a_stdin_that_is_lent_too_late_comes_back_at_once(files: Files) -> None:
    async def check() -> None:
        stdin, _ = files.pipe()
        inlet = Inlet(cast(Source, SimpleNamespace(engine=Over())), stdin)
        await asyncio.to_thread(inlet.borrow)

    run(check)


def test_a_full_buffer_is_waited_for_by_the_pump(files: Files, reads: Reads) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            room = caller.writer.room
            while (left := caller.writer.room) > 0:
                os.write(feed, bytes(4096))
                await until(lambda left=left: caller.writer.room < left)  # type: ignore[misc]
            assert reads.by(LOOP) == room
            os.write(feed, b"more")
            for _ in range(3):  # turns of the loop, which sees that there is more, and no room
                await asyncio.sleep(0)
            assert caller.writer.room == 0
            assert await take(listener, room) == bytes(room)
            assert await take(listener, 4) == b"more"
            assert reads.done[-1] == (PUMP, 4)

    run(check)


def test_another_process_that_shares_stdin_may_be_faster(files: Files, reads: Reads) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            await carry(feed, b"1", listener)
            tries = reads.tries
            steal, lost = os.preadv, list[bytes]()

            def be_slow(descriptor: int, views: list[memoryview], offset: int, flags: int) -> int:
                if not lost:
                    lost.append(os.read(descriptor, 100))
                return steal(descriptor, views, offset, flags)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "preadv", be_slow)
                os.write(feed, b"not for us")
                await until(lambda: reads.tries > tries)
                await carry(feed, b"2", listener)
            assert lost == [b"not for us"]
            assert reads.done == [(LOOP, 1), (LOOP, 1)]

    run(check)
