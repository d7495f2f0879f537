"""The inlet: whether stdin is read by the right thread, and what happens where it changes hands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import bpipe
from bpipe.ends.inlet import LITTLE, Inlet
from bpipe.ends.pumps import SMALL_READS, StdinPump
from bpipe.errors import PeerAborted
from tests.ends.test_pumps import LOOP, Calls, Files, both, files, run, until

__all__ = ["files"]

PUMP = "StdinPump"
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


async def take(pipe: bpipe.BackedPipe, count: int) -> bytes:
    """So many bytes from a pipe."""
    data = b""
    while len(data) < count:
        data += await pipe.read(count - len(data))
    return data


async def carry(feed: int, piece: bytes, listener: bpipe.BackedPipe) -> None:
    """What is written to stdin comes out at the far end."""
    assert os.write(feed, piece) == len(piece)
    assert await take(listener, len(piece)) == piece


async def end(feed: int, listener: bpipe.BackedPipe, pump: StdinPump, stdin: int) -> None:
    """The end of stdin arrives, and the pump has closed it."""
    os.close(feed)
    assert await listener.read() == b""
    await ends_well(pump, stdin)


async def ends_well(pump: StdinPump, stdin: int) -> None:
    await until(lambda: pump.ended)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(stdin)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_little_is_read_by_the_loop_up_to_the_end(files: Files, reads: Reads, kind: str) -> None:
    async def check() -> None:
        if kind == "pipe":
            stdin, feed = files.pipe()
        else:
            stdin, feed = (end.detach() for end in socket.socketpair())
        async with both() as (caller, listener):
            pump = StdinPump(caller.engine, stdin)
            for piece in (b"first", b"x" * (LITTLE - 1), b"last"):
                await carry(feed, piece, listener)
            assert reads.by(PUMP) == 0
            await end(feed, listener, pump, stdin)

    run(check)


def test_a_named_pipe_is_read_whoever_can(tmp_path: Path, reads: Reads) -> None:
    async def check() -> None:
        os.mkfifo(tmp_path / "fifo")
        stdin = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        feed = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.set_blocking(stdin, True)
        async with both() as (caller, listener):
            pump = StdinPump(caller.engine, stdin)
            for _ in range(3 * SMALL_READS):
                await carry(feed, b"piece", listener)
            await end(feed, listener, pump, stdin)
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
            pump = StdinPump(caller.engine, stdin)
            for _ in range(3 * SMALL_READS):
                await carry(feed, b"piece", listener)
            await end(feed, listener, pump, stdin)
        assert reads.by(LOOP) == 0

    run(check)


def test_an_error_that_a_socket_tells_only_once_is_not_taken_for_the_end(reads: Reads) -> None:
    async def check() -> None:
        near, far = socket.socketpair()
        near.send(b"never read")  # so that a close resets the connection
        async with both() as (caller, listener):
            StdinPump(caller.engine, near.detach())
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
            pump = StdinPump(caller.engine, stdin)
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
            await end(feed, listener, pump, stdin)

    run(check)


@pytest.mark.parametrize("how", ["stop", "abort"])
def test_the_loop_gives_up_a_stdin_that_nobody_wants(files: Files, reads: Reads, how: str) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            pump = StdinPump(caller.engine, stdin)
            await carry(feed, b"little", listener)
            assert reads.done == [(LOOP, 6)]
            if how == "stop":
                listener.stop()
            else:
                caller.abort(bpipe.Reason.LOCAL_ERROR, "enough")
            await ends_well(pump, stdin)
            with pytest.raises(BrokenPipeError):
                os.write(feed, b"x")

    run(check)


def test_a_stdin_that_is_lent_too_late_comes_back_at_once(files: Files) -> None:
    async def check() -> None:
        stdin, _ = files.pipe()
        async with both() as (caller, _):
            inlet = Inlet(caller.engine, stdin)
            caller.abort(bpipe.Reason.LOCAL_ERROR, "enough")
            await caller.wait_closed()
            await until(lambda: caller.engine._timer is None)  # so the inlet sees nothing any more
            lending = threading.Thread(target=inlet.lend, daemon=True)
            lending.start()
            await until(lambda: not lending.is_alive())

    run(check)


def test_a_full_buffer_is_waited_for_by_the_pump(files: Files, reads: Reads) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            StdinPump(caller.engine, stdin)
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
            StdinPump(caller.engine, stdin)
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
