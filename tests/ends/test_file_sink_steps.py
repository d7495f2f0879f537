"""The sink of a file, step by step: what its thread does, done by the test."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.base import BaseFile
from bpipe.ends.base_source import BaseSource
from bpipe.ends.errors_sink import Errors
from bpipe.ends.file_sink import FileSink
from bpipe.ends.part import Target
from bpipe.protocol.assembly import Assembly
from bpipe.protocol.blocks import Base, pack_same
from bpipe.protocol.records import Record, RecordWriter
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import FILE, RECORDS
from tests.support.pairs import run, until
from tests.support.records import both
from tests.support.targets import FailingDisk, Sender

BLOCK = 1 << 18
STREAM = random.Random(1).randbytes(4 * BLOCK)


class Steps:
    """A receiver without a thread."""

    def __init__(self, path: Path, caller: bpipe.BackedPipe, listener: bpipe.BackedPipe) -> None:
        self.caller, self.listener, self.disk = caller, listener, FailingDisk()
        self.target = Target.open(str(path), self.disk)
        assembly = Assembly(Base(self.target.base, BLOCK))
        self.base = BaseSource(listener.engine, assembly, BaseFile(self.target, assembly.base))
        self.sink = FileSink(listener.engine, self.target, assembly, Errors(2))
        while self.base.move():
            pass

    async def send(self, data: bytes) -> None:
        """All of it, until nothing is left to do but to give it its name."""
        sender = Sender(self.caller)
        sending = asyncio.ensure_future(sender.send(data))
        await self.until_taken(sending)
        ending = asyncio.ensure_future(sender.end())
        await until(lambda: self.listener.reader.mark is not None)
        while not self.listener.reader.drained:
            assert self.sink.move()
        await ending

    def move_to_the_end(self) -> None:
        while self.sink.move():
            assert self.sink.wanted()

    async def until_taken(self, sending: asyncio.Future[None]) -> None:
        while not sending.done():
            self.sink.move()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def steps(path: Path) -> AsyncIterator[Steps]:
    async with both((0, RECORDS | FILE)) as (caller, listener):
        found = Steps(path, caller, listener)
        yield found
        found.target.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def test_a_sync_that_is_under_way_in_the_end_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            sink, sync = receiver.sink, receiver.disk.sync_data

            def slow(descriptor: int) -> None:
                monkeypatch.setattr(receiver.disk, "sync_data", sync)
                assert sink.move()
                assert not sink.wanted()
                raise OSError(errno.EIO, "")

            monkeypatch.setattr(receiver.disk, "sync_data", slow)
            assert not sink.syncs.sync()
            receiver.move_to_the_end()
            assert "input/output error" in sink.outcome.why
            assert not sink.outcome.named

    run(check)
    assert not path.exists()
    assert not part_of(path).exists()


def test_a_sync_that_is_over_is_not_waited_for(path: Path) -> None:
    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            receiver.sink.syncs.sync()
            receiver.move_to_the_end()
            assert receiver.sink.outcome.named
            await receiver.listener.wait_closed()
            assert receiver.listener.failure is None

    run(check)
    assert path.read_bytes() == STREAM


@pytest.mark.parametrize("synced", [False, True])
def test_the_last_sync_may_find_the_disk_full(path: Path, synced: bool) -> None:
    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            if synced:
                receiver.sink.syncs.sync()
            receiver.disk.broken["sync_data"] = errno.ENOSPC
            receiver.move_to_the_end()
            assert receiver.sink.outcome.kept is synced
            assert "; what it had since the last sync is gone" in receiver.sink.outcome.why

    run(check)
    assert part_of(path).exists() is synced
    assert not path.exists()


def test_what_is_the_same_is_done_piece_by_piece(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.ends.contents.LARGEST_COPY", BLOCK // 2)
    path.write_bytes(STREAM)

    async def check() -> None:
        async with steps(path) as receiver:
            writer, content = RecordWriter(receiver.caller.writer), pack_same(3)
            writer.wrote(fill(writer.space(8), content), Record.SAME)
            receiver.caller.engine.drive()
            sink, moves = receiver.sink, 0
            await until(sink.wanted)
            while sink.wanted():
                assert sink.move()
                moves += 1
            assert (sink.at, moves) == (3 * BLOCK, 7)
            assert part_of(path).read_bytes() == STREAM[: 3 * BLOCK]

    run(check)


def test_a_sync_that_fails_is_seen_to_although_the_session_has_failed_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is told once: a later run would believe what lies in the part."""

    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            sink = receiver.sink

            def slow(descriptor: int) -> None:
                receiver.listener.abort(bpipe.Reason.INTERRUPTED, "interrupted")
                assert sink.move()
                assert not sink.wanted()
                raise OSError(errno.EIO, "")

            monkeypatch.setattr(receiver.disk, "sync_data", slow)
            assert not sink.syncs.sync()
            receiver.move_to_the_end()
            assert not sink.outcome.kept
            assert not sink.outcome.named

    run(check)
    assert not part_of(path).exists()


def test_what_is_kept_is_what_lies_there_in_the_end(path: Path) -> None:
    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(b"")
            path.write_bytes(b"theirs")
            receiver.move_to_the_end()
            assert receiver.sink.outcome.why == f"{path} was changed by somebody else meanwhile"
            assert not receiver.sink.outcome.kept

    part_of(path).write_bytes(b"old")
    run(check)
    assert not part_of(path).exists()


def test_what_another_receiver_writes_gets_no_name_by_the_first(path: Path) -> None:
    async def check() -> None:
        async with steps(path) as first:
            await first.send(STREAM)
            part_of(path).unlink()
            async with steps(path) as second:
                await second.send(STREAM[:BLOCK])
                first.move_to_the_end()
                why = f"{part_of(path)} was renamed or removed by somebody else meanwhile"
                assert first.sink.outcome.why == why
                assert not first.sink.outcome.named
                assert not first.sink.outcome.kept
                assert not path.exists()
                second.move_to_the_end()
                assert second.sink.outcome.named

    run(check)
    assert path.read_bytes() == STREAM[:BLOCK]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_part_that_is_not_there_is_not_what_was_removed(path: Path, number: int) -> None:
    """What is there by now is somebody else's, and what was moved away is his."""
    moved = path.with_name("moved")

    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            part_of(path).rename(moved)
            part_of(path).write_bytes(b"theirs")
            receiver.disk.broken["sync_data"] = number
            receiver.move_to_the_end()
            why = receiver.sink.outcome.why
            assert why.endswith("; it was renamed or removed by somebody else meanwhile")

    run(check)
    assert moved.read_bytes() == STREAM
    assert part_of(path).read_bytes() == b"theirs"


@pytest.mark.parametrize("what", ["rename", "lstat"])
def test_what_is_on_the_disk_stays_if_it_cannot_have_its_name(path: Path, what: str) -> None:
    async def check() -> None:
        async with steps(path) as receiver:
            await receiver.send(STREAM)
            receiver.disk.broken[what] = errno.EIO
            receiver.move_to_the_end()
            outcome = receiver.sink.outcome
            assert outcome.why == f"cannot write {path}: input/output error"
            assert outcome.kept
            receiver.disk.broken.clear()

    run(check)
    assert part_of(path).read_bytes() == STREAM
    assert not path.exists()
