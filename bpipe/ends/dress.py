"""Whose a part is, and who may use it: ours alone while it is written, then as FILE was."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from bpipe.ends.disk import Disk

BARE: Final = 0o600  # the mode of what is written
LACKING: Final = (  # errors of a file system that knows no other owners
    errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS,
)  # fmt: skip


def dress(disk: Disk, part: int, like: os.stat_result | None, usual: int) -> None:
    """It gets the mode of the file that looked ``like`` this, and for root its owner.

    Without one, the ``usual`` mode. Without the group of that file, a group may do what everybody
    may, and no more. Raises OSError.
    """
    now = disk.stat(part)
    if like is None:
        _set_mode(disk, part, usual, now)
        return
    mode = like.st_mode & 0o777
    user = like.st_uid if disk.user() == 0 else -1
    if (like.st_uid, like.st_gid) != (now.st_uid, now.st_gid):
        try:
            disk.chown(part, user, like.st_gid)
        except OSError as error:  # EINVAL: of a group that this namespace does not know
            if error.errno not in LACKING:
                raise
            mode &= 0o707 | (mode & 0o007) << 3
    _set_mode(disk, part, mode, now)


def undress(disk: Disk, part: int) -> None:
    """It is ours alone, whatever a run did with it that had no end. Raises OSError."""
    now = disk.stat(part)
    if now.st_uid != disk.user():
        try:
            disk.chown(part, disk.user(), -1)
        except OSError as error:
            if error.errno not in LACKING:
                raise
    if stat.S_IMODE(now.st_mode) != BARE:
        _set_mode(disk, part, BARE, now)


def _set_mode(disk: Disk, part: int, mode: int, now: os.stat_result) -> None:
    """But where a file system calls us by another name, as it likes."""
    try:
        disk.chmod(part, mode)
    except OSError as error:
        if now.st_uid == disk.user() or error.errno not in LACKING:
            raise
