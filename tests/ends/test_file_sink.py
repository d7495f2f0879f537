"""What becomes of a file when something is amiss: with its disk, its stream, or its producer."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.disk import Disk
from bpipe.ends.file_sink import FileOutcome
from bpipe.ends.files import FileEnds
from bpipe.ends.part import Target
from bpipe.errors import LocalAbort
from bpipe.protocol.blocks import Total, pack_same
from bpipe.protocol.records import Record, RecordWriter
from bpipe.protocol.ring import Views, fill
from bpipe.protocol.wire import UNTOLD, Ended, Finish
from tests.support.pairs import Files, drain, files, run, until
from tests.support.targets import FailingDisk, Sender, device, receive, receiving, small_disk

__all__ = ["device", "files", "small_disk"]

MIB = 1 << 20
BLOCK = MIB // 4
STREAM = random.Random(1).randbytes(3 * MIB + 12345)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def failure(outcome: FileOutcome, sender: Sender) -> str:
    """What both ends are told."""
    assert not outcome.named
    assert outcome.why in str(sender.pipe.failure)
    return outcome.why


def session(
    path: Path,
    test: Callable[[Sender, bpipe.BackedPipe], Awaitable[None]],
    disk: Disk | None = None,
) -> FileOutcome:
    """A session that the test drives to the receiver's end."""
    found: list[FileEnds] = []

    async def check() -> None:
        target = Target.open(str(path), disk)
        async with receiving(target) as (sender, ends, listener):
            found.append(ends)
            with contextlib.suppress(bpipe.SessionEnded):
                await test(sender, listener)
            await listener.wait_closed()
        target.close()

    run(check)
    return found[0].outcome


# --- a disk that fails ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_was_written_before_the_disk_is_full_stays(path: Path, number: int) -> None:
    disk = FailingDisk()

    async def fill_up(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[:MIB])
        await until(lambda: part_of(path).stat().st_size == MIB)
        disk.broken["write"] = number
        await sender.send(STREAM[MIB : 2 * MIB])

    outcome = session(path, fill_up, disk)
    reason = os.strerror(number)
    why = f"cannot write {part_of(path)}: {reason[:1].lower()}{reason[1:]}"
    assert outcome[:6] == (False, True, why, 0, 0, 0)
    assert part_of(path).read_bytes() == STREAM[:MIB]
    outcome, sender = receive(path, STREAM)
    assert outcome.named
    assert sender.writer.tally.equal == MIB


def test_a_disk_that_is_really_full_keeps_the_part(small_disk: Path) -> None:
    path = small_disk / "file"
    data = STREAM + STREAM
    outcome, sender = receive(path, data)
    assert failure(outcome, sender) == f"cannot write {part_of(path)}: no space left on device"
    assert outcome.kept
    kept = part_of(path).read_bytes()
    assert len(kept) > 3 * MIB
    assert data.startswith(kept)
    assert receive(path, STREAM)[0].named  # the rerun has less to write


@pytest.mark.parametrize("what", ["write", "sync_data", "sync", "truncate"])
def test_a_part_of_which_the_disk_may_have_something_else_goes(path: Path, what: str) -> None:
    path.write_bytes(b"old")
    disk = FailingDisk()
    disk.broken[what] = errno.EIO
    outcome, sender = receive(path, STREAM, disk)
    assert failure(outcome, sender) == (
        f"cannot write {part_of(path)}: input/output error;"
        " it was removed, for what it had is perhaps not on the disk"
    )
    assert not outcome.kept
    assert not part_of(path).exists()
    assert path.read_bytes() == b"old"


def test_a_part_that_cannot_be_removed_is_told(path: Path) -> None:
    disk = FailingDisk()
    disk.broken = {"write": errno.EIO, "unlink": errno.EROFS}
    outcome, sender = receive(path, STREAM, disk)
    assert failure(outcome, sender).endswith(
        "; what it has is not to be believed, and was not removed"
    )


def test_a_sync_that_fails_between_is_not_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells it once: the last sync would find nothing amiss."""
    monkeypatch.setattr("bpipe.ends.files.EVERY", 0.001)
    disk = FailingDisk()

    async def fail_once(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await until(lambda: disk.called)
        disk.broken["sync_data"] = errno.EIO
        await sender.send(STREAM)
        await until(lambda: listener.failure is not None)
        assert disk.called.count("sync_data") >= 2

    assert "input/output error" in session(path, fail_once, disk).why
    assert not part_of(path).exists()


def test_after_a_sync_that_finds_the_disk_full_nothing_unsynced_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.ends.files.EVERY", 0.001)
    disk = FailingDisk()

    async def fill_up(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[:MIB])
        await until(lambda: part_of(path).stat().st_size == MIB)
        seen = disk.called.count("sync_data")
        await until(lambda: disk.called.count("sync_data") > seen or seen > 1)
        disk.broken["sync_data"] = errno.ENOSPC
        await sender.send(STREAM[MIB:])

    outcome = session(path, fill_up, disk)
    assert outcome.why == (
        f"cannot write {part_of(path)}: no space left on device;"
        " what it had since the last sync is gone, for it is not on the disk"
    )
    assert outcome.kept == part_of(path).exists()
    left = part_of(path).read_bytes() if part_of(path).exists() else b""
    assert len(left) <= MIB
    assert STREAM.startswith(left)


@pytest.mark.parametrize("more", [{}, {"truncate": errno.EIO}])
def test_a_part_of_which_nothing_was_ever_synced_goes(path: Path, more: dict[str, int]) -> None:
    disk = FailingDisk()
    disk.broken = {"sync_data": errno.ENOSPC, **more}
    part_of(path).write_bytes(STREAM)
    assert not session(path, lambda sender, listener: sender.send(STREAM), disk).kept
    assert not part_of(path).exists()


def test_a_name_that_is_perhaps_not_on_the_disk_is_told(path: Path) -> None:
    class Folders(FailingDisk):
        def sync(self, descriptor: int) -> None:
            if "rename" in self.called:
                self.broken["sync"] = errno.EIO
            super().sync(descriptor)

    outcome, sender = receive(path, STREAM, Folders())
    assert failure(outcome, sender) == (
        f"{path} has its name, but perhaps not on the disk: input/output error"
    )
    assert not outcome.kept
    assert path.read_bytes() == STREAM


# --- a base that changes ---


def test_a_base_that_changes_is_no_base(path: Path) -> None:
    path.write_bytes(STREAM)

    async def change(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[: 2 * MIB])
        with path.open("r+b") as file:
            file.write(b"theirs")
        await sender.send(STREAM[2 * MIB :])
        await sender.end()

    outcome = session(path, change)
    assert outcome.why == f"{path} was changed by somebody else meanwhile"
    assert (outcome.kept, outcome.hopeless) == (True, False)
    assert path.read_bytes() == b"theirs" + STREAM[6:]
    assert receive(path, STREAM)[0].named
    assert path.read_bytes() == STREAM


# --- a producer that fails ---


@pytest.mark.parametrize(
    "how", [Finish(Ended.EXITED, 3), Finish(Ended.KILLED, 9), Finish(Ended.RUNNING)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_a_producer_has_left_that_failed_is_not_named(
    path: Path, how: Finish, whole: bool
) -> None:
    async def fail(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[:BLOCK])
        await sender.end(how, whole=whole)
        if how.how is Ended.RUNNING:
            sender.pipe.engine.finish(ended=Finish(Ended.EXITED, 0))
            await until(lambda: listener.reader.done)
            return
        await listener.wait_closed()
        assert listener.failure is None  # the end is delivered: the status tells
        assert sender.pipe.failure is None
        assert listener.reader.finish == how

    outcome = session(path, fail)
    assert outcome[:6] == (False, True, "the program that it comes from has failed", 0, 0, 0)
    assert part_of(path).read_bytes() == STREAM[:BLOCK]
    assert not path.exists()


def test_a_stream_that_was_cut_short_is_not_named(path: Path) -> None:
    async def cut(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[:BLOCK])
        await sender.end(Finish(Ended.CUT), whole=False)
        await listener.wait_closed()
        assert isinstance(listener.failure, LocalAbort)

    assert session(path, cut).why == "the stream was cut short"
    assert not path.exists()


@pytest.mark.parametrize("how", [UNTOLD, Finish(Ended.EXITED, 0)])
def test_a_stream_without_its_total_is_not_named(path: Path, how: Finish) -> None:
    async def end(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[:BLOCK])
        await sender.end(how, whole=False)

    outcome = session(path, end)
    assert outcome.why == "protocol error: a stream to a file that ends without its total"
    assert outcome.hopeless
    assert not path.exists()


def test_a_session_that_fails_at_the_last_moment_gives_no_name(path: Path) -> None:
    found: list[bpipe.BackedPipe] = []

    class Aborting(Disk):
        def sync(self, descriptor: int) -> None:
            super().sync(descriptor)
            pipe = found[0]
            pipe.engine.call(lambda: pipe.abort(bpipe.Reason.INTERRUPTED, "interrupted"))
            while pipe.failure is None:
                pass

    async def end(sender: Sender, listener: bpipe.BackedPipe) -> None:
        found.append(listener)
        await sender.send(STREAM)
        await sender.end()

    assert not session(path, end, Aborting()).named
    assert part_of(path).read_bytes() == STREAM
    assert not path.exists()


# --- a peer that says what cannot be ---


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (Record.SAME, pack_same(99), "blocks that cannot be the same"),
        (Record.TOTAL, Total(5, bytes(32)).pack(), "a file that is not what was sent"),
        (Record.DIGESTS, bytes(32), "a record that cannot be"),
    ],
)
def test_what_cannot_be_ends_the_session(
    path: Path, kind: Record, content: bytes, why: str
) -> None:
    path.write_bytes(STREAM)

    async def say(sender: Sender, listener: bpipe.BackedPipe) -> None:
        writer = RecordWriter(sender.pipe.writer)
        writer.wrote(fill(writer.space(len(content)), content), kind)
        sender.pipe.engine.drive()
        await listener.wait_closed()
        assert f"protocol error: {why}" in str(listener.failure)

    assert not session(path, say).named
    assert path.read_bytes() == STREAM


# --- beside the file ---


def test_what_a_far_program_says_goes_to_stderr(path: Path, files: Files) -> None:
    err, stderr = files.pipe()
    before: list[bytes] = []

    async def check() -> None:
        target = Target.open(str(path))
        note: Callable[[Views], None] = lambda views: before.append(b"".join(views))  # noqa: E731
        async with receiving(target, stderr=stderr, before=note) as (sender, ends, listener):
            await sender.send(STREAM[:5])
            await sender.send(b"said", Record.ERRORS)
            assert await drain(err, 4) == b"said"
            await sender.send(STREAM[5:])
            await sender.end(Finish(Ended.EXITED, 0))
            await listener.wait_closed()
            assert ends.outcome.named
        target.close()

    run(check)
    assert before == [b"said"]
    assert path.read_bytes() == STREAM


def test_a_device_keeps_its_tail_and_says_so(device: Callable[[int], Path]) -> None:
    path = device(4 * MIB)
    path.write_bytes(STREAM[: 2 * MIB] + b"?" * MIB)
    outcome, sender = receive(path, STREAM[: 3 * MIB])
    assert outcome[:6] == (True, False, "", 2 * MIB, 4 * MIB, MIB)
    assert sender.writer.tally.moved == MIB
    assert path.read_bytes() == STREAM[: 3 * MIB] + bytes(MIB)
    assert not outcome.hopeless
    outcome, sender = receive(path, STREAM + STREAM)
    assert "longer than" in failure(outcome, sender)
    assert outcome.hopeless
