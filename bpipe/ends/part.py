"""Target: what a stream is to become, a file or a block device, and the part that it is until then.

The part of FILE is ``FILE.part``, in the same folder: it is FILE under another name until the whole
stream lies in it and on the disk. It is locked, and nobody else's; what lies in it from an earlier
run, and in FILE beyond that, is the *base*. A block device is written in place.

The folder is opened once, and no link is followed in it, so nobody who may write there can make
this write elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from bpipe.ends.disk import Disk
from bpipe.ends.refusals import refusal
from bpipe.errors import TargetError, explain

SUFFIX: Final = ".part"

_MAKE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL
_TRIES: Final = 100  # to open a part that somebody else renames or removes meanwhile
_NO_FOLDER: Final = (errno.ENOENT, errno.ENOTDIR)


class Target:
    """Open and locked until ``close``; ``renew`` makes it ready for another session.

    ``path`` is FILE, for people as well. All that is done here may block.
    """

    def __init__(self, path: str, disk: Disk) -> None:
        self.path = path
        self.disk = disk
        self.device = False  # written in place
        self.named = False  # what is written has its name
        self.part = -1  # the descriptor of what is written
        self.old = -1  # that of FILE, where there is one beside its part; else -1
        self.lies = 0  # bytes that the part had in the beginning
        folder, slash, self._name = path.rpartition("/")
        self._part_name = self._name + SUFFIX
        self._folder_name = folder + slash or "."
        self._folder = -1
        self._before: os.stat_result | None = None  # FILE, in the beginning
        self._usual_mode = disk.usual_mode()
        self._abandoned = False

    @classmethod
    def open(cls, path: str, disk: Disk | None = None) -> Target:
        """Open and lock it; raises TargetError if it is none, or somebody else writes it."""
        target = cls(path, disk or Disk())
        try:
            target._open()
        except BaseException:
            target.close()
            raise
        return target

    @property
    def base(self) -> int:
        """The bytes that lie there already: the part, and FILE beyond it; or the device's."""
        return max(self.lies, self._before.st_size if self._before is not None else 0)

    @property
    def part_path(self) -> str:
        """What is written, for people."""
        return self.path if self.device else self.path + SUFFIX

    # --- in the beginning ---

    def renew(self) -> None:
        """Look again at what lies there. Raises TargetError."""
        self._close_old()
        self._explained(self._look)

    def _open(self) -> None:
        if self._name in ("", ".", ".."):
            raise TargetError(f"cannot write {self.path}: it is a folder")
        try:
            self._folder = self.disk.open_folder(self._folder_name)
        except OSError as error:
            usage = error.errno in _NO_FOLDER
            text = f"cannot write {self.path}: its folder: {explain(error)}"
            raise TargetError(text, usage=usage) from error
        self._explained(self._look)

    def _explained(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            text = f"cannot write {self.path}: {explain(error)}"
            raise TargetError(text, usage=False) from error

    def _look(self) -> None:
        """Refuse what cannot be the target; open what is to be."""
        disk, found = self.disk, self.disk.lstat(self._name, self._folder)
        self.named = False
        if found is not None and stat.S_ISBLK(found.st_mode):
            self._take_device()
            return
        self._before, self.device = None, False
        if found is not None:
            self._refuse(found, self._name)
            self.old = disk.open(self._name, os.O_RDONLY, self._folder)
            self._before = disk.stat(self.old)
            self._refuse(self._before, self._name)
        if self.part < 0 or not self._has_name(self.part):
            self._close_part()
            self._take_part()
        self.lies = disk.stat(self.part).st_size

    def _refuse(self, found: os.stat_result, name: str) -> None:
        """TargetError if this is nothing to write to."""
        if stat.S_ISLNK(found.st_mode):
            why = f"it is a link to {self.disk.link(name, self._folder)}: name that itself"
        else:
            why = refusal(found, self.disk.user(), part=name == self._part_name)
        if why:
            raise TargetError(f"cannot write {self._path_of(name)}: {why}")

    def _path_of(self, name: str) -> str:
        return self.path if name == self._name else self.path + SUFFIX

    def _take_device(self) -> None:
        if self.part >= 0:
            return
        try:
            self.part = self.disk.open(self._name, os.O_RDWR | os.O_EXCL, self._folder)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        if self.part < 0 or not self.disk.lock(self.part):
            raise TargetError(f"cannot write {self.path}: the device is in use", usage=False)
        if not stat.S_ISBLK(self.disk.stat(self.part).st_mode):
            raise TargetError(f"cannot write {self.path}: it has just become another", usage=False)
        self.device = True
        self.lies = self.disk.size(self.part)

    def _take_part(self) -> None:
        """Open the part that is there, or make it; it is locked, and still has its name then."""
        for _ in range(_TRIES):
            part = self._open_part()
            if part is None:
                continue
            if self._is_mine(part):
                self.part = part
                return
            self.disk.close(part)
        raise TargetError(f"cannot write {self.part_path}: it keeps changing", usage=False)

    def _open_part(self) -> int | None:
        """A descriptor of the part; None if it has just gone, or come."""
        disk, name = self.disk, self._part_name
        found = disk.lstat(name, self._folder)
        try:
            if found is None:
                return disk.open(name, _MAKE, self._folder)
            self._refuse(found, name)
            return disk.open(name, os.O_RDWR, self._folder)
        except (FileExistsError, FileNotFoundError):
            return None

    def _is_mine(self, part: int) -> bool:
        """Lock it; whether it is still what has the name. Who has lost that race tries again."""
        try:
            locked = self.disk.lock(part)
            if not self._has_name(part):
                return False
            if not locked:
                text = f"cannot write {self.part_path}: another bpipe is writing it"
                raise TargetError(text, usage=False)
            self._refuse(self.disk.stat(part), self._part_name)
        except BaseException:
            self.disk.close(part)
            raise
        return True

    def _has_name(self, part: int) -> bool:
        """Whether this is what has the part's name."""
        named = self.disk.lstat(self._part_name, self._folder)
        return named is not None and os.path.samestat(self.disk.stat(part), named)

    # --- in the end ---

    def finish(self, length: int, wanted: Callable[[], bool]) -> bool:
        """The stream is whole, and so long: on the disk under its name when this returns.

        ``wanted`` is asked before it is named; returns what that said. Raises TargetError if FILE
        is not what it was in the beginning, OSError if the disk fails.
        """
        disk = self.disk
        if self.device:
            disk.sync(self.part)
            self.named = wanted()
            return self.named
        disk.truncate(self.part, length)
        disk.sync_data(self.part)
        self._dress()
        disk.sync(self.part)
        if not wanted():
            return False
        self._require_same()
        disk.rename(self._part_name, self._name, self._folder)
        self.named = True
        disk.sync(self._folder)
        return True

    def _require_same(self) -> None:
        """TargetError if FILE has changed: the stream may have been put together from it."""
        before, named = self._before, self.disk.lstat(self._name, self._folder)
        if before is None or named is None:
            same = before is named
        else:
            now = self.disk.stat(self.old)
            same = os.path.samestat(before, named) and _content(before) == _content(now)
        if not same:
            raise TargetError(f"{self.path} was changed by somebody else meanwhile", usage=False)

    def _dress(self) -> None:
        """The part gets FILE's mode, and for root its owner; without one, what is usual.

        Without the group of FILE, a group may do what everybody may, and no more.
        """
        disk, before = self.disk, self._before
        if before is None:
            disk.chmod(self.part, self._usual_mode)
            return
        mode, now = before.st_mode & 0o777, disk.stat(self.part)
        user = before.st_uid if disk.user() == 0 else -1
        if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
            try:
                disk.chown(self.part, user, before.st_gid)
            except PermissionError:
                mode &= 0o707 | (mode & 0o007) << 3
        disk.chmod(self.part, mode)

    @property
    def kept(self) -> bool:
        """Whether it has no name, and something lies there to go on from."""
        if self.named or self.device:
            return not self.named
        return self._has_name(self.part) and self.disk.size(self.part) > 0

    def remove(self) -> bool:
        """What lies in the part is not to be believed: it goes. Returns whether it has gone.

        If it is back after a reboot, it has what the disk has.
        """
        if self.device or self.named:
            return False
        try:
            if self._has_name(self.part):
                self.disk.unlink(self._part_name, self._folder)
        except OSError:
            return False
        return True

    def cut(self, length: int) -> None:
        """What lies in the part beyond is not to be believed, and goes."""
        if not self.device and self.disk.size(self.part) > length:
            self.disk.truncate(self.part, length)

    def abandon(self) -> None:
        """A thread may still be at work on it, and is not waited for: nothing is closed."""
        self._abandoned = True

    def close(self) -> None:
        """Let go of everything; a part in which nothing lies goes. Again: no effect."""
        if self._abandoned:
            return
        self._close_old()
        if self.part >= 0:
            if not self.device and not self.disk.size(self.part):
                self.remove()
        self._close_part()
        if self._folder >= 0:
            self.disk.close(self._folder)
        self._folder = -1

    def _close_part(self) -> None:
        if self.part >= 0:
            self.disk.close(self.part)
        self.part = -1

    def _close_old(self) -> None:
        if self.old >= 0:
            self.disk.close(self.old)
        self.old = -1


def _content(found: os.stat_result) -> tuple[int, int, int]:
    """What of a file changes with its content."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
