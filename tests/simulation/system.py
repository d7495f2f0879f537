"""What a simulated process asks of the system where a stream becomes a file.

It has the words of the production ``Disk``, over the model of one, and what they cost.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from bpipe.ends.disk import TICK
from bpipe.ends.disk import Disk as RealDisk
from bpipe.protocol.ring import Views
from tests.simulation.disk import Disk, Inode

FOLDER = "/simulated"
HERE = 1000  # the user


class Killed(BaseException):
    """The process has ended: nothing of it runs any more."""


class Opened:
    """What a descriptor is of."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode


class System(RealDisk):
    """The files of one process.

    ``waits`` is called with what is done and the seconds that it takes, in the thread that does it.
    """

    def __init__(self, disk: Disk, waits: Callable[[str, float], None] = lambda *_: None) -> None:
        self.disk = disk
        self.opened: dict[int, Opened] = {}
        self.killed = False
        self.renamed = False  # a file has its name
        self.named = False  # and that is on the disk
        self._waits = waits
        self._last = 1_000_000  # descriptor

    def kill(self) -> None:
        """The kernel closes all of them."""
        for number in list(self.opened):
            self._close(number)
        self.killed = True

    def _takes(self, what: str, count: int = 0) -> None:
        """A call begins, and returns from here when it happens."""
        if not self.killed:
            manners = self.disk.manners
            seconds = manners.call + count * manners.byte
            self._waits(what, seconds + (manners.sync if "sync" in what else 0.0))
        if self.killed:
            raise Killed

    def _of(self, number: int) -> Inode:
        if number not in self.opened:
            raise _error(errno.EBADF)
        return self.opened[number].inode

    def _add(self, inode: Inode) -> int:
        self._last += 1
        self.opened[self._last] = Opened(inode)
        return self._last

    def _close(self, number: int) -> None:
        opened = self.opened.pop(number)
        if opened.inode.locked_by is opened:
            opened.inode.locked_by = None

    # --- names ---

    def open_folder(self, path: str) -> int:
        self._takes("open")
        if path.rstrip("/") != FOLDER:
            raise _error(errno.ENOENT)
        return self._add(self.disk.root)

    def open(self, name: str, flags: int, folder: int) -> int:
        self._takes("open")
        assert self._of(folder) is self.disk.root
        inode = self.disk.names.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT)
            inode = self.disk.create(name, 0o600)
            inode.owner = (self.user(), self.user())
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST)
        elif flags & os.O_RDWR and not inode.mode & stat.S_IWUSR and self.user():
            raise _error(errno.EACCES)
        if flags & os.O_TRUNC:
            inode.resize(0)
        return self._add(inode)

    def lstat(self, name: str, folder: int) -> os.stat_result | None:
        self._takes("lstat")
        assert self._of(folder) is self.disk.root
        inode = self.disk.names.get(name)
        return None if inode is None else self._describe(inode)

    def link(self, name: str, folder: int) -> str:
        raise _error(errno.EINVAL)  # there are none

    def rename(self, old: str, new: str, folder: int) -> None:
        self._takes("rename")
        assert self._of(folder) is self.disk.root
        if old not in self.disk.names:
            raise _error(errno.ENOENT)
        self.disk.change({new: self.disk.names[old], old: None})
        self.renamed = True

    def unlink(self, name: str, folder: int) -> None:
        self._takes("unlink")
        assert self._of(folder) is self.disk.root
        if name not in self.disk.names:
            raise _error(errno.ENOENT)
        self.disk.change({name: None})

    # --- a file ---

    def stat(self, descriptor: int) -> os.stat_result:
        self._takes("stat")
        return self._describe(self._of(descriptor))

    def _describe(self, inode: Inode) -> os.stat_result:
        at = inode.changed_at
        links = sum(each is inode for each in self.disk.names.values())
        known: Any = SimpleNamespace(
            st_mode=inode.mode, st_ino=inode.number, st_dev=77, st_rdev=0, st_nlink=links,
            st_uid=inode.owner[0], st_gid=inode.owner[1], st_size=len(inode.data),
            st_mtime_ns=at, st_ctime_ns=at, st_mtime=at / 1e9, st_ctime=at / 1e9,
            st_blocks=inode.used // 512, st_blksize=4096,
        )  # fmt: skip
        return cast(os.stat_result, known)

    def size(self, descriptor: int) -> int:
        self._takes("size")
        return len(self._of(descriptor).data)

    def lock(self, descriptor: int) -> bool:
        self._takes("lock")
        inode, opened = self._of(descriptor), self.opened[descriptor]
        if inode.locked_by not in (None, opened):
            return False
        inode.locked_by = opened
        return True

    def share(self, descriptor: int) -> bool:
        self._takes("lock")
        return self._of(descriptor).locked_by in (None, self.opened[descriptor])

    def settle(self, found: os.stat_result) -> None:
        if self.disk.now / 1e9 - found.st_ctime < TICK:
            self._waits("settle", TICK)

    def close(self, descriptor: int) -> None:
        if not self.killed:
            self._of(descriptor)
            self._close(descriptor)

    # --- what is in it ---

    def read(self, descriptor: int, into: memoryview, at: int) -> int:
        self._takes("read", len(into))
        data = self.disk.read(self._of(descriptor), at, len(into))
        into[: len(data)] = data
        return len(data)

    def write(self, descriptor: int, views: Views, at: int) -> int:
        data = b"".join(views)
        self._takes("write", len(data))
        return self.disk.write(self._of(descriptor), at, data)

    def copy(self, source: int, target: int, at: int, count: int) -> int:
        self._takes("copy", count)
        manner = self.disk.manners.copies
        if manner == "none":
            return 0
        count = max(1, count // 2) if manner == "some" else count
        try:
            data = self.disk.read(self._of(source), at, count)
            return self.disk.write(self._of(target), at, data)
        except OSError:
            return 0

    def next_data(self, descriptor: int, at: int) -> int | None:
        self._takes("seek")
        inode = self._of(descriptor)
        if not self.disk.manners.finds_holes:
            return at if at < len(inode.data) else None
        found = inode.next_of(at, hole=False)
        return found if found < len(inode.data) else None

    def next_hole(self, descriptor: int, at: int) -> int | None:
        self._takes("seek")
        inode = self._of(descriptor)
        if at >= len(inode.data):
            return None
        if not self.disk.manners.finds_holes:
            return len(inode.data)
        return inode.next_of(at, hole=True)

    def punch(self, descriptor: int, at: int, count: int) -> bool:
        self._takes("punch")
        inode = self._of(descriptor)
        if self.disk.manners.makes_holes:
            inode.punch(at, count)
            self.disk.changed(inode)
        return self.disk.manners.makes_holes

    def truncate(self, descriptor: int, length: int) -> None:
        self._takes("truncate")
        inode = self._of(descriptor)
        inode.resize(length)
        self.disk.changed(inode)

    # --- what is kept ---

    def sync_data(self, descriptor: int) -> None:
        self._takes("sync data")
        self.disk.sync(self._of(descriptor))

    def sync(self, descriptor: int) -> None:
        self._takes("sync")
        inode = self._of(descriptor)
        if inode is self.disk.root:
            self.disk.sync_names()
            self.named = self.renamed
        else:
            self.disk.sync(inode)

    # --- whose it is ---

    def user(self) -> int:
        return HERE

    def usual_mode(self) -> int:
        return 0o644

    def chown(self, descriptor: int, user: int, group: int) -> None:
        self._takes("chown")
        inode = self._of(descriptor)
        old = inode.owner
        inode.owner = user if user >= 0 else old[0], group if group >= 0 else old[1]
        inode.changed_at = self.disk.now

    def chmod(self, descriptor: int, mode: int) -> None:
        self._takes("chmod")
        inode = self._of(descriptor)
        inode.mode = stat.S_IFMT(inode.mode) | mode
        inode.changed_at = self.disk.now


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
