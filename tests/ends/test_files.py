"""A receiver whose stream becomes a file: from a session's beginning to its end."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.disk import Disk
from bpipe.ends.files import FileEnds
from bpipe.ends.part import Target
from bpipe.ends.pumps import Pump
from bpipe.errors import LocalAbort, PeerAborted
from tests.support.pairs import run, until
from tests.support.targets import Sender, receive, receiving, refusal

MIB = 1 << 20
BLOCK = MIB // 4
STREAM = random.Random(1).randbytes(3 * MIB + 12345)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def session(
    path: Path,
    test: Callable[[Sender, FileEnds, bpipe.BackedPipe], Awaitable[None]],
    disk: Disk | None = None,
    *,
    whole: bool = False,
) -> None:
    """A session that the test drives; afterwards no thread and no descriptor may be left."""

    async def check() -> None:
        before = len(os.listdir("/proc/self/fd"))
        target = Target.open(str(path), disk)
        try:
            async with receiving(target, whole=whole) as (sender, ends, listener):
                await test(sender, ends, listener)
        finally:
            target.close()
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)  # a link is seen off first

    run(check)


def test_a_stream_becomes_a_file(path: Path) -> None:
    outcome, sender = receive(path, STREAM)
    assert path.read_bytes() == STREAM
    assert outcome[:6] == (True, False, "", 0, 0, 0)
    assert (outcome.file, outcome.part) == (str(path), str(part_of(path)))
    assert sender.pipe.failure is None
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_stream_without_a_byte_is_a_file_without_a_byte(path: Path) -> None:
    path.write_bytes(b"old")
    assert receive(path, b"")[0].named
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("part", "moved"),
    [(0, BLOCK), (5, BLOCK), (MIB, BLOCK), (MIB + 5, 0), (len(STREAM), 0), (4 * MIB, 12345)],
)
def test_what_lies_there_is_not_sent(path: Path, part: int, moved: int) -> None:
    more = STREAM + bytes(MIB)
    part_of(path).write_bytes(more[:part])
    path.write_bytes(more[:MIB] + b"?" + STREAM[MIB + 1 :])
    outcome, sender = receive(path, STREAM)
    assert path.read_bytes() == STREAM
    assert sender.writer.tally.moved == moved
    assert (outcome.named, outcome.saved) == (True, len(STREAM) - moved)
    assert outcome.base == max(part, len(STREAM))


def test_one_target_is_for_many_sessions(path: Path) -> None:
    target = Target.open(str(path))

    async def check(data: bytes, base: int) -> None:
        async with receiving(target) as (sender, ends, listener):
            await sender.send(data)
            await sender.end()
            await listener.wait_closed()
            await ends.wait()
        assert (ends.outcome.named, ends.outcome.base) == (True, base)

    run(lambda: check(STREAM, 0))
    assert path.read_bytes() == STREAM
    assert not part_of(path).exists()
    run(lambda: check(STREAM[:5], len(STREAM)))
    assert path.read_bytes() == STREAM[:5]
    target.close()


@pytest.mark.parametrize("named", [True, False])
def test_between_two_sessions_nobody_else_writes_there(path: Path, named: bool) -> None:
    path.write_bytes(b"old")
    target = Target.open(str(path))

    async def check(data: bytes) -> None:
        async with receiving(target, more=True) as (sender, ends, listener):
            await sender.send(data)
            if named:
                await sender.end()
            else:
                await sender.decide()
                await until(lambda: part_of(path).stat().st_size == len(data))
                sender.pipe.abort(bpipe.Reason.INTERRUPTED, "interrupted")
            await listener.wait_closed()
            await ends.wait()
        assert (ends.outcome.named, ends.outcome.kept) == (named, not named)
        text = f"cannot write {part_of(path)}: another bpipe is writing it"
        assert refusal(path) == (text, False)
        assert path.read_bytes() == (data if named else b"old")
        assert part_of(path).stat().st_size == (0 if named else len(data))

    for data in (STREAM[:MIB], STREAM[: 2 * MIB]):
        run(partial(check, data))
    target.close()
    assert part_of(path).exists() is not named


def test_what_a_lost_session_has_written_is_the_base_of_the_next(path: Path) -> None:
    async def cut(sender: Sender, ends: FileEnds, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[: 2 * MIB])
        await until(lambda: listener.reader.buffered == 0 and listener.reader.received > 2 * MIB)
        assert listener.status().tally == (0, 0, 2 * MIB, True)
        sender.pipe.abort(bpipe.Reason.INTERRUPTED, "interrupted")
        await ends.wait()
        assert not ends.outcome.named
        assert ends.outcome.kept

    session(path, cut)
    assert part_of(path).read_bytes() == STREAM[: 2 * MIB]
    outcome, sender = receive(path, STREAM)
    assert sender.writer.tally.moved == len(STREAM) - 2 * MIB
    assert path.read_bytes() == STREAM
    assert outcome.saved == 2 * MIB


@pytest.mark.parametrize("lies", [False, True])
def test_without_an_established_session_nothing_is_touched(path: Path, lies: bool) -> None:
    if lies:
        part_of(path).write_bytes(STREAM)
        part_of(path).chmod(0o600)

    async def check() -> None:
        target = Target.open(str(path))
        listener = await bpipe.listen("127.0.0.1:0")
        ends = FileEnds(target)
        ends.start(listener.engine)
        listener.abort(bpipe.Reason.INTERRUPTED, "")
        await listener.wait_closed()
        await ends.wait()
        assert ends.outcome[:6] == (False, lies, "", 0, 0, 0)
        assert (ends.outcome.file, ends.outcome.part) == (str(path), str(part_of(path)))
        assert not ends.hurry()
        target.close()

    run(check)
    assert list(path.parent.iterdir()) == [part_of(path)] * lies


def test_a_target_that_cannot_be_any_more_ends_the_session(path: Path) -> None:
    async def check() -> None:
        target = Target.open(str(path))
        path.mkdir()
        async with receiving(target) as (sender, _, listener):
            await listener.wait_closed()
            assert isinstance(listener.failure, LocalAbort)
            assert str(listener.failure) == f"cannot write {path}: it is a folder"
            await sender.pipe.wait_closed()
            assert isinstance(sender.pipe.failure, PeerAborted)
        target.close()

    run(check)


# --- who may hear what lies there ---


def test_nobody_is_told_what_lies_there_who_is_to_send_it_all(path: Path) -> None:
    path.write_bytes(STREAM)

    async def all_is_sent(sender: Sender, ends: FileEnds, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM)
        await sender.end()
        await listener.wait_closed()
        assert sender.writer.tally[:3] == (0, 0, len(STREAM))
        await ends.wait()
        assert ends.outcome[:6] == (True, False, "", 0, len(STREAM), 0)

    session(path, all_is_sent, whole=True)


def test_a_stranger_is_not_told_what_lies_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(STREAM)
    monkeypatch.setattr("bpipe.net.owner.surely_ours", lambda _: False)
    outcome, sender = receive(path, STREAM)
    assert sender.writer.tally[:3] == (0, 0, len(STREAM))
    assert outcome.named


def test_who_has_the_secret_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(STREAM)
    monkeypatch.setattr("bpipe.net.owner.surely_ours", lambda _: False)

    async def known(sender: Sender, ends: FileEnds, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM)
        await sender.end()
        await listener.wait_closed()
        assert sender.writer.tally.moved == 0

    async def check() -> None:
        target = Target.open(str(path))
        secret = bpipe.Secret(bytes(32))
        async with receiving(target, secret=secret) as (sender, ends, listener):
            await known(sender, ends, listener)
        target.close()

    run(check)


# --- what a disk may hold up ---


class Stuck(Disk):
    """A method does not return until that is allowed, but ``so_far`` times before."""

    def __init__(self, name: str, so_far: int = 0) -> None:
        self.at = threading.Event()
        self.go_on = threading.Event()
        method = getattr(self, name)
        calls = itertools.count()

        def wait(*arguments: object) -> object:
            if next(calls) >= so_far:
                self.at.set()
                self.go_on.wait(20)
            return method(*arguments)

        setattr(self, name, wait)


@pytest.mark.parametrize(
    ("what", "so_far"), [("write", 0), ("read", 0), ("sync_data", 0), ("open_folder", 1)]
)
def test_a_disk_that_does_not_answer_holds_up_no_link(path: Path, what: str, so_far: int) -> None:
    path.write_bytes(STREAM)
    disk = Stuck(what, so_far)

    async def stuck(sender: Sender, ends: FileEnds, listener: bpipe.BackedPipe) -> None:
        sending = asyncio.ensure_future(sender.send(b"?" + STREAM))
        await until(disk.at.is_set)
        listener.force_reconnect()
        await until(lambda: listener.connected and listener.status().reconnects == 1)
        assert not listener.reader.done
        disk.go_on.set()
        await sending
        await sender.end()
        await listener.wait_closed()
        await ends.wait()
        assert ends.outcome.named

    session(path, stuck, disk)
    assert path.read_bytes() == b"?" + STREAM


def test_who_is_impatient_does_not_wait_for_it(path: Path) -> None:
    disk = Stuck("sync_data")

    async def check() -> None:
        target = Target.open(str(path), disk)
        async with receiving(target) as (sender, ends, listener):
            await sender.send(STREAM)
            await until(disk.at.is_set)
            listener.abort(bpipe.Reason.INTERRUPTED, "interrupted")
            await listener.wait_closed()
            assert ends.hurry()
            assert not ends.hurry()
            await ends.wait()
            assert not ends.outcome.named
            target.close()
            part, target.part = target.part, -1
        disk.go_on.set()
        await until(lambda: not pumps())
        os.close(part)

    run(check)
    assert not path.exists()


def pumps() -> set[str]:
    """The threads of the ends that there are."""
    return {each.name for each in threading.enumerate() if isinstance(each, Pump)}


def test_threads_end_with_the_session(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpipe.ends.base_source.AHEAD", 0)
    path.write_bytes(STREAM)

    async def check(sender: Sender, ends: FileEnds, listener: bpipe.BackedPipe) -> None:
        await until(lambda: pumps() == {"FileSink", "BaseSource", "Syncs"})
        listener.abort(bpipe.Reason.INTERRUPTED, "")
        await ends.wait()
        await until(lambda: not pumps())

    session(path, check)
