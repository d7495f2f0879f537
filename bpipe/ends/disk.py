"""Disk: what is asked of the system where a stream becomes a file; every such call is made here.

So that a model of a disk can stand in its place. Descriptors are those of the system, offsets and
counts are bytes, names are looked up in a folder that is open. Everything may block, and raises
OSError; what a file system may lack is answered instead, and the caller does it in another way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from functools import cached_property
from typing import Final

from bpipe.protocol.ring import Views

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ALWAYS: Final = os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC  # with each open
TICK: Final = 0.02  # seconds: more than may lie between two different times of a file

_PUNCH: Final = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM)


class Disk:
    """The real one; it has no state. Any thread may call it."""

    # --- names ---

    def open_folder(self, path: str) -> int:
        """A descriptor of the folder itself."""
        return os.open(path, FOLDER)

    def open(self, name: str, flags: int, folder: int) -> int:
        """A descriptor of this file, never through a link; one that is made is 0600."""
        return os.open(name, flags | ALWAYS, 0o600, dir_fd=folder)

    def lstat(self, name: str, folder: int) -> os.stat_result | None:
        """What has this name; None if nothing has."""
        with contextlib.suppress(FileNotFoundError):
            return os.lstat(name, dir_fd=folder)
        return None

    def link(self, name: str, folder: int) -> str:
        """Where this link leads."""
        return os.readlink(name, dir_fd=folder)

    def rename(self, old: str, new: str, folder: int) -> None:
        """Whatever has the new name is replaced."""
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def unlink(self, name: str, folder: int) -> None:
        """The file is gone when it is closed, too."""
        os.unlink(name, dir_fd=folder)

    # --- a file ---

    def stat(self, descriptor: int) -> os.stat_result:
        """What is known of it."""
        return os.fstat(descriptor)

    def size(self, descriptor: int) -> int:
        """The bytes of a file or of a device."""
        return os.lseek(descriptor, 0, os.SEEK_END)

    def lock(self, descriptor: int) -> bool:
        """Keep others out until it is closed; False if somebody else does. Does not wait."""
        return self._lock(descriptor, fcntl.LOCK_EX)

    def share(self, descriptor: int) -> bool:
        """The same, but for others who share it."""
        return self._lock(descriptor, fcntl.LOCK_SH)

    def _lock(self, descriptor: int, how: int) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def settle(self, found: os.stat_result) -> None:
        """Wait until a write would give the file that looked like this another time."""
        if time.time() - found.st_ctime < TICK:
            time.sleep(TICK)

    def close(self, descriptor: int) -> None:
        """And let go of its lock."""
        os.close(descriptor)

    # --- what is in it ---

    def read(self, descriptor: int, into: memoryview, at: int) -> int:
        """Fill this from there; returns how much, and 0 at the end of the file."""
        return os.preadv(descriptor, [into], at)

    def write(self, descriptor: int, views: Views, at: int) -> int:
        """Put these there; returns how many bytes found room."""
        return os.pwritev(descriptor, views, at)

    def copy(self, source: int, target: int, at: int, count: int) -> int:
        """The same bytes, at the same place; returns how many, 0 where it has to be done by hand.

        Which of the two files an error is about is not known: that way will tell.
        """
        if not hasattr(os, "copy_file_range"):
            return 0
        try:
            return os.copy_file_range(source, target, count, at, at)
        except OSError:
            return 0

    def next_data(self, descriptor: int, at: int) -> int | None:
        """Where, from there on, bytes lie; None if there are none up to the end."""
        if not hasattr(os, "SEEK_DATA"):
            return at
        try:
            return os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            return None if error.errno == errno.ENXIO else at

    def next_hole(self, descriptor: int, at: int) -> int | None:
        """Where, from there on, none lie; None if that is not known."""
        if not hasattr(os, "SEEK_HOLE"):
            return None
        try:
            return os.lseek(descriptor, at, os.SEEK_HOLE)
        except OSError:
            return None

    def punch(self, descriptor: int, at: int, count: int) -> bool:
        """Make a hole of zeros there, within the file; False where that cannot be."""
        if self._fallocate is None:
            return False
        number = self._fallocate(descriptor, at, count)
        if number and number not in _CANNOT:
            raise OSError(number, os.strerror(number))
        return not number

    def truncate(self, descriptor: int, length: int) -> None:
        """It is this long from now on."""
        os.ftruncate(descriptor, length)

    @cached_property
    def _fallocate(self) -> Callable[[int, int, int], int] | None:
        """Punches a hole, and returns the number of the error; None where nothing does."""
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
        if call is None:
            return None
        call.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
        return lambda *where: ctypes.get_errno() if call(where[0], _PUNCH, *where[1:]) else 0

    # --- what is kept ---

    def sync_data(self, descriptor: int) -> None:
        """Return when what was written, and where it is, is on the disk."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def sync(self, descriptor: int) -> None:
        """The same with all else that is known of it; of a folder, its names."""
        os.fsync(descriptor)

    # --- whose it is ---

    def user(self) -> int:
        """Who we are."""
        return os.geteuid()

    def usual_mode(self) -> int:
        """Of a file that somebody makes who wants nothing special."""
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask

    def chown(self, descriptor: int, user: int, group: int) -> None:
        """-1: as it is."""
        os.fchown(descriptor, user, group)

    def chmod(self, descriptor: int, mode: int) -> None:
        """The nine bits, and those before them."""
        os.fchmod(descriptor, mode)
