"""Files that a stream goes to, disks that fail, and a sender that can be driven by hand."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import SimpleNamespace
from typing import Any, cast

import pytest

import bpipe
from bpipe.ends.disk import Disk
from bpipe.ends.file_sink import FileOutcome
from bpipe.ends.files import FileEnds
from bpipe.ends.part import Target
from bpipe.errors import TargetError
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.records import Record, RecordReader
from bpipe.protocol.ring import Views, fill
from bpipe.protocol.wire import FILE, RECORDS, UNTOLD, Finish
from tests.support.records import both

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


def part_of(path: Path) -> Path:
    """Where its part is."""
    return path.with_name(path.name + ".part")


def write(target: Target, data: bytes) -> None:
    """As what comes."""
    target.disk.write(target.part, [memoryview(data)], 0)


def finish(target: Target, length: int) -> bool:
    """It is so long, and wanted."""
    return target.finish(length, lambda: True)


def refusal(path: Path | str, disk: Disk | None = None) -> tuple[str, bool]:
    """Why it is refused, and whether it is the wrong thing."""
    before = sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else []
    with pytest.raises(TargetError) as caught:
        Target.open(str(path), disk)
    after = sorted(os.listdir("/proc/self/fd")) if before else []
    assert len(before) == len(after), "something is left open"
    return str(caught.value), caught.value.usage


class FailingDisk(Disk):
    """Once something is ``broken``, by the name of the method, it fails, each time."""

    def __init__(self) -> None:
        self.broken: dict[str, int] = {}
        self.called: list[str] = []

    def _may_fail(self, name: str) -> None:
        if name != "lstat":
            self.called.append(name)
        if name in self.broken:
            raise OSError(self.broken[name], os.strerror(self.broken[name]))

    def write(self, descriptor: int, views: Views, at: int) -> int:
        self._may_fail("write")
        return super().write(descriptor, views, at)

    def read(self, descriptor: int, into: memoryview, at: int) -> int:
        self._may_fail("read")
        return super().read(descriptor, into, at)

    def sync_data(self, descriptor: int) -> None:
        self._may_fail("sync_data")
        super().sync_data(descriptor)

    def sync(self, descriptor: int) -> None:
        self._may_fail("sync")
        super().sync(descriptor)

    def unlink(self, name: str, folder: int) -> None:
        self._may_fail("unlink")
        super().unlink(name, folder)

    def truncate(self, descriptor: int, length: int) -> None:
        self._may_fail("truncate")
        super().truncate(descriptor, length)

    def lstat(self, name: str, folder: int) -> os.stat_result | None:
        self._may_fail("lstat")
        return super().lstat(name, folder)

    def rename(self, old: str, new: str, folder: int) -> None:
        self._may_fail("rename")
        super().rename(old, new, folder)


class Mapped(Disk):
    """Of a file system that knows whoever makes a file by one number, and lets nobody change that.

    The file with the inode ``foreign`` belongs to somebody else.
    """

    def __init__(self, user: int, number: int, foreign: int = -1) -> None:
        self._user = user
        self._number = number
        self._foreign = foreign

    def user(self) -> int:
        return self._user

    def stat(self, descriptor: int) -> os.stat_result:
        return self._seen(super().stat(descriptor))

    def lstat(self, name: str, folder: int) -> os.stat_result | None:
        found = super().lstat(name, folder)
        return None if found is None else self._seen(found)

    def _seen(self, found: os.stat_result) -> os.stat_result:
        seen: Any = SimpleNamespace(
            **{name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        )
        seen.st_uid = self._number + (found.st_ino == self._foreign)
        return cast(os.stat_result, seen)

    def chown(self, descriptor: int, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def chmod(self, descriptor: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


class Sender:
    """The other end: what it is told to send is what its producer writes."""

    def __init__(self, pipe: bpipe.BackedPipe, *, whole: bool = False) -> None:
        self.pipe = pipe
        self.writer = BlockWriter(pipe.writer, whole=whole)
        self._said = RecordReader(pipe.reader, {Record.BASE, Record.DIGESTS})
        pipe.engine.begin()

    async def send(self, data: bytes, kind: Record = Record.DATA) -> None:
        """Put all of this on the stream."""
        while data:
            if count := fill(self.writer.space(len(data)), data):
                self.writer.wrote(count, kind)
                data = data[count:]
                self.pipe.engine.drive()
            elif not self._hear():
                await self.pipe.engine.changed()

    async def decide(self) -> None:
        """Wait until it is known of the last block whether it is sent."""
        while not self.writer.room:
            if not self._hear():
                await self.pipe.engine.changed()

    async def end(self, ended: Finish = UNTOLD, *, whole: bool = True) -> None:
        """The producer has ended."""
        while self._hear() or self.writer.waiting:
            if not self._hear():
                await self.pipe.engine.changed()
        self.writer.end(whole)
        self.pipe.engine.finish(ended=ended)
        while not self._said.drained:
            if not self._hear():
                await self.pipe.engine.changed()
        self.pipe.engine.delivered_end()

    def _hear(self) -> bool:
        """What the receiver has said; returns whether there was something."""
        views = self._said.readable(1 << 20)
        data = b"".join(views)
        if data:
            self.writer.hear(self._said.kind, data)
            self._said.took(len(data))
            self.pipe.engine.drive()
        return bool(data)


@contextlib.asynccontextmanager
async def receiving(
    target: Target,
    *,
    secret: bpipe.Secret | None = None,
    stderr: int = 2,
    before: Callable[[Views], None] = lambda data: None,
    whole: bool = False,
    more: bool = False,
    sends_whole: bool = False,
) -> AsyncIterator[tuple[Sender, FileEnds, bpipe.BackedPipe]]:
    """A sender, and a receiver that writes to this target."""
    async with both((0, RECORDS | FILE), secret) as (caller, listener):
        ends = FileEnds(target, stderr, before, whole=whole, more=more)
        listener.engine.begin()
        ends.start(listener.engine)
        yield Sender(caller, whole=sends_whole), ends, listener
    await ends.wait()


def receive(path: Path, data: bytes, disk: Disk | None = None) -> tuple[FileOutcome, Sender]:
    """A whole session, in which this stream goes to the file."""

    async def session() -> tuple[FileOutcome, Sender]:
        target = Target.open(str(path), disk)
        try:
            async with asyncio.timeout(20), receiving(target) as (sender, ends, listener):
                with contextlib.suppress(bpipe.SessionEnded):
                    await sender.send(data)
                    await sender.end()
                await listener.wait_closed()
            return ends.outcome, sender
        finally:
            target.close()

    return asyncio.run(session())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB that nobody else sees; it is gone when its holder is."""
    mount = f"mount -t tmpfs -o size=4m none {tmp_path} && echo mounted && cat"
    argv = ["unshare", "--mount", "sh", "-c", mount]
    try:
        holder = subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1)")
    with holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("nothing can be mounted here")
        yield Path(f"/proc/{holder.pid}/root{tmp_path}")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """What makes a block device of so many bytes out of a file, if that can be done here."""
    made: list[str] = []

    def make(size: int) -> Path:
        image = tmp_path / f"image{len(made)}"
        image.touch()
        os.truncate(image, size)
        with contextlib.suppress(FileNotFoundError):
            losetup = ["losetup", "--find", "--show", str(image)]
            done = subprocess.run(losetup, capture_output=True, text=True)
            if done.returncode == 0:
                made.append(done.stdout.strip())
                return Path(made[-1])
        pytest.skip("no block device can be made here")

    yield make
    for each in made:
        subprocess.run(["losetup", "--detach", each], check=True)
