"""What is asked of the system where a stream becomes a file, as far as it answers by itself."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.ends.disk import TICK, Disk

MIB = 1 << 20
NEW = os.O_RDWR | os.O_CREAT


class Folder:
    """A folder that is open, and what is opened in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = Disk()
        self.descriptor = self.disk.open_folder(str(path))
        self._opened = [self.descriptor]

    def open(self, name: str, flags: int = NEW) -> int:
        self._opened.append(self.disk.open(name, flags, self.descriptor))
        return self._opened[-1]

    def forget(self, descriptor: int) -> int:
        self._opened.remove(descriptor)
        return descriptor

    def close(self) -> None:
        for each in self._opened:
            self.disk.close(each)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.close()


def test_names_are_looked_up_in_a_folder_that_is_open(folder: Folder) -> None:
    disk, where = folder.disk, folder.descriptor
    moved = folder.path.with_name("moved")
    folder.path.rename(moved)
    folder.open("a")
    assert stat.S_IMODE((moved / "a").stat().st_mode) == 0o600
    found = disk.lstat("a", where)
    assert found is not None
    disk.rename("a", "b", where)
    assert disk.lstat("a", where) is None
    assert os.path.samestat(found, disk.stat(folder.open("b", os.O_RDONLY)))
    disk.unlink("b", where)
    disk.sync(where)
    assert not list(moved.iterdir())
    moved.rename(folder.path)


def test_a_link_is_not_followed(folder: Folder) -> None:
    (folder.path / "link").symlink_to("file")
    (folder.path / "file").touch()
    with pytest.raises(OSError, match="symbolic links"):
        folder.open("link")
    assert folder.disk.link("link", folder.descriptor) == "file"


def test_a_fifo_that_nobody_writes_is_not_waited_for(folder: Folder) -> None:
    os.mkfifo(folder.path / "fifo")
    folder.open("fifo", os.O_RDONLY)


def test_only_one_has_the_lock(folder: Folder) -> None:
    disk, first, second = folder.disk, folder.open("a"), folder.open("a")
    assert disk.lock(first)
    assert not disk.lock(second)
    assert disk.lock(first)


def test_who_shares_a_lock_keeps_out_who_does_not(folder: Folder) -> None:
    disk, first = folder.disk, folder.open("a")
    second, third = folder.open("a", os.O_RDONLY), folder.open("a", os.O_RDONLY)
    assert disk.share(second)
    assert disk.share(third)
    assert not disk.lock(first)
    disk.close(folder.forget(second))
    disk.close(folder.forget(third))
    assert disk.lock(first)
    assert not disk.share(folder.open("a", os.O_RDONLY))


def test_bytes_lie_where_they_were_put(folder: Folder) -> None:
    disk, file, other = folder.disk, folder.open("a"), folder.open("b")
    assert disk.write(file, [memoryview(b"ab"), memoryview(b"c")], 10) == 3
    disk.sync_data(file)
    assert disk.size(file) == 13
    into = memoryview(bytearray(9))
    assert disk.read(file, into, 9) == 4
    assert bytes(into[:4]) == b"\0abc"
    assert disk.read(file, into, 13) == 0
    assert disk.copy(file, other, 10, 3) == 3
    assert (folder.path / "b").read_bytes() == bytes(10) + b"abc"
    disk.truncate(other, 11)
    assert disk.size(other) == 11


def test_holes_are_found_and_made(folder: Folder) -> None:
    disk, file = folder.disk, folder.open("a")
    disk.truncate(file, 4 * MIB)
    if disk.next_data(file, 0) is not None:
        pytest.skip("this file system does not tell of holes")
    disk.write(file, [memoryview(b"x" * MIB)] * 2, MIB)
    assert disk.next_data(file, 0) == MIB
    assert disk.next_hole(file, MIB) == 3 * MIB
    assert disk.punch(file, MIB, MIB)
    assert disk.next_data(file, 0) == 2 * MIB
    assert disk.next_data(file, 3 * MIB) is None
    into = memoryview(bytearray(b"y" * MIB))
    disk.read(file, into, MIB)
    assert not any(into)
    assert disk.size(file) == 4 * MIB


def test_what_cannot_be_done_is_said(folder: Folder) -> None:
    disk, null, (reader, writer) = folder.disk, os.open("/dev/null", os.O_RDWR), os.pipe()
    assert not disk.punch(null, 0, MIB)
    assert disk.next_data(reader, 5) == 5
    assert disk.next_hole(reader, 5) is None
    assert disk.copy(reader, null, 0, 5) == 0
    for each in (null, reader, writer):
        os.close(each)
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.punch(-1, 0, MIB)


def test_a_write_after_a_while_gives_a_file_another_time(folder: Folder) -> None:
    disk, file = folder.disk, folder.open("a")
    found = disk.stat(file)
    began = time.time()
    disk.settle(found)
    disk.write(file, [memoryview(b"x")], 0)
    assert disk.stat(file).st_ctime_ns != found.st_ctime_ns
    assert time.time() - began >= TICK or began - found.st_ctime >= TICK


def test_a_usual_mode_is_what_the_umask_leaves(folder: Folder) -> None:
    disk, file = folder.disk, folder.open("a")
    before = os.umask(0o027)
    try:
        assert disk.usual_mode() == 0o640
        assert disk.usual_mode() == 0o640
    finally:
        os.umask(before)
    disk.chown(file, -1, -1)
    disk.chmod(file, 0o640)
    assert stat.S_IMODE(disk.stat(file).st_mode) == 0o640
    assert disk.stat(file).st_uid == disk.user()
