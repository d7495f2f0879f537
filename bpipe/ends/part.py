"""Target: what a stream is to become, a file or a block device, and the part that it is until then.

The part of FILE is ``FILE.part``, in the same folder: it is FILE under another name until the whole
stream lies in it and on the disk. It is locked, and nobody else's; what lies in it from an earlier
run, and in FILE beyond that, is the *base*. A block device is written in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from bpipe.ends.claim import Claim, in_use
from bpipe.ends.disk import Disk
from bpipe.ends.dress import dress, undress
from bpipe.ends.folder import NONE, Folder
from bpipe.ends.refusals import FOREIGN, refusal
from bpipe.errors import TargetError, explain

SUFFIX: Final = ".part"


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
        self._folder = Folder(folder + slash or ".", disk)
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
        """Look again at what lies there, and where FILE is by now. Raises TargetError."""
        self._close_old()
        if not self.device and self._is_elsewhere():
            self._let_go()
        self._open()

    def _open(self) -> None:
        if self._name in ("", ".", ".."):
            raise TargetError(f"cannot write {self.path}: that is the name of a folder")
        try:
            self._folder.enter()
        except OSError as error:
            raise self._without_folder(error) from error
        self._explained(self._look, self.path)
        if not self.device:
            self._explained(self._take_part, self.part_path)

    def _explained(self, action: Callable[[], None], path: str) -> None:
        try:
            action()
        except OSError as error:
            text = f"cannot write {path}: {explain(error)}"
            raise TargetError(text, usage=False) from error

    def _is_elsewhere(self) -> bool:
        """Whether FILE would be in another folder by now."""
        try:
            return self._folder.moved
        except OSError as error:
            raise self._without_folder(error) from error

    def _without_folder(self, error: OSError) -> TargetError:
        text = f"cannot write {self.path}: its folder: {explain(error)}"
        return TargetError(text, usage=error.errno in NONE)

    def _look(self) -> None:
        """Refuse what cannot be the target; open FILE, if there is one, or the device."""
        found = self._folder.lstat(self._name)
        self.named = False
        if found is not None and stat.S_ISBLK(found.st_mode):
            self._take_device()
            return
        if self.part >= 0 and not self._has_part():
            self._close_part()
        self._before, self.device = None, False
        if found is not None:
            self._refuse(found)
            self.old = self._folder.open(self._name, os.O_RDONLY)
            self._before = self.disk.stat(self.old)
            self._refuse(self._before)
            if self._name.endswith(SUFFIX) and not self.disk.share(self.old):
                raise in_use(self.path)  # it is the part of another file

    def _refuse(self, found: os.stat_result) -> None:
        """TargetError if this is no FILE to write to."""
        self._require_file(self._name, found, self._why_not(found, part=False))

    def _refuse_part(self, found: os.stat_result) -> None:
        """The same for its part, which root gives to the owner of FILE in the end."""
        heir = -1 if self._before is None else self._before.st_uid
        self._require_file(self._part_name, found, self._why_not(found, part=True, heir=heir))

    def _why_not(self, found: os.stat_result, *, part: bool, heir: int = -1) -> str:
        """As ``refusal``; what belongs to the same user as all that we make here is ours."""
        why = refusal(found, self.disk.user(), part=part, heir=heir)
        if why == FOREIGN and self._folder.gives_to(found.st_uid):
            return refusal(found, found.st_uid, part=part)
        return why

    def _require_file(self, name: str, found: os.stat_result, why: str) -> None:
        if stat.S_ISLNK(found.st_mode):
            why = f"it is a link to {self._folder.link(name)}: name that itself"
        if why:
            path = self.path if name == self._name else self.part_path
            raise TargetError(f"cannot write {path}: {why}")

    def _take_device(self) -> None:
        if self.device:
            return
        self._close_part()
        try:
            self.part = self._folder.open(self._name, os.O_RDWR | os.O_EXCL)
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
        if self.part < 0:
            name, path = self._part_name, self.part_path
            self.part = Claim(self.disk, self._folder, name, path, self._refuse_part).take()
        self.lies = self.disk.stat(self.part).st_size

    def _has_part(self) -> bool:
        """Whether what is written is what has the part's name."""
        return self._folder.has(self._part_name, self.part)

    # --- in the end ---

    def finish(self, length: int, wanted: Callable[[], bool]) -> bool:
        """The stream is whole, and so long: on the disk under its name when this returns.

        ``wanted`` is asked before it is named; returns what that said. Raises TargetError if it
        cannot have its name, and stays; OSError if a sync fails, or what comes before one.
        """
        disk = self.disk
        if self.device:
            disk.sync(self.part)
            self.named = wanted()
            return self.named
        disk.truncate(self.part, length)
        disk.sync_data(self.part)
        self._explained(self._require_same, self.path)  # from here on it stays, whatever fails
        try:
            self._explained(self._dress, self.part_path)
            disk.sync(self.part)
            if wanted():
                self._explained(self._rename, self.path)
        finally:
            if not self.named:
                with contextlib.suppress(OSError):
                    undress(disk, self.part)
        if self.named:
            self._folder.sync()
        return self.named

    def _dress(self) -> None:
        dress(self.disk, self.part, self._before, self._usual_mode)

    def _rename(self) -> None:
        self._require_same()
        self._folder.rename(self._part_name, self._name)
        self.named = True

    def _require_same(self) -> None:
        """TargetError if a rename would not do what it is to do, as somebody else has been here."""
        if self._is_elsewhere():
            text = f"the folder of {self.path} was renamed or replaced meanwhile"
            raise TargetError(text, usage=False)
        if not self._has_part():
            text = f"{self.part_path} was renamed or removed by somebody else meanwhile"
            raise TargetError(text, usage=False)
        if not self._has_same_base():
            raise TargetError(f"{self.path} was changed by somebody else meanwhile", usage=False)

    def _has_same_base(self) -> bool:
        """Whether FILE is what it was: the stream may have been put together from it."""
        before, named = self._before, self._folder.lstat(self._name)
        if before is None or named is None:
            return before is named
        now = self.disk.stat(self.old)
        return os.path.samestat(before, named) and _content(before) == _content(now)

    @property
    def kept(self) -> bool:
        """Whether it has no name, and something lies there to go on from."""
        if self.named or self.device:
            return not self.named
        return self.there and not self._folder.moved and self.disk.size(self.part) > 0

    @property
    def there(self) -> bool:
        """Whether what is written is where it was, as far as is known."""
        with contextlib.suppress(OSError):
            return self.device or self._has_part()
        return True

    def remove(self) -> bool:
        """What lies in the part is not to be believed: it goes. Returns whether it has gone.

        If it is back after a reboot, it has what the disk has.
        """
        if self.device or self.named:
            return False
        try:
            if self._has_part():
                self._folder.unlink(self._part_name)
        except OSError:
            return False
        return True

    def cut(self, length: int) -> None:
        """What lies in the part beyond is not to be believed, and goes."""
        if not self.device and self._has_part() and self.disk.size(self.part) > length:
            self.disk.truncate(self.part, length)

    def abandon(self) -> None:
        """A thread may still be at work on it, and is not waited for: nothing is closed."""
        self._abandoned = True

    def close(self) -> None:
        """Let go of everything; a part in which nothing lies goes. Again: no effect."""
        if self._abandoned:
            return
        self._close_old()
        self._let_go()

    def _let_go(self) -> None:
        """Of the part, and of the folder."""
        if self.part >= 0 and not self.device and not self.disk.size(self.part):
            self.remove()
        self._close_part()
        self._folder.close()

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
