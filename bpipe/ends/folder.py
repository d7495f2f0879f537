"""Folder: the one in which a stream's file lies, opened once; names are looked up in it.

No link is followed in it, so nobody who may write there can make this write elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import Final

from bpipe.ends.disk import Disk

NONE: Final = (errno.ENOENT, errno.ENOTDIR)  # errors of a folder that is not there
MAKE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


class Folder:
    """Between ``enter`` and ``close`` names mean something. All of it may block; raises OSError."""

    def __init__(self, path: str, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._descriptor = -1

    def enter(self) -> None:
        """Open what is there; not again if that is open already."""
        if self._descriptor < 0:
            self._descriptor = self._disk.open_folder(self._path)

    @property
    def moved(self) -> bool:
        """Whether its path leads to another one by now, or nowhere; so it does before ``enter``."""
        if self._descriptor < 0:
            return True
        try:
            now = self._disk.open_folder(self._path)
        except OSError as error:
            if error.errno in NONE:
                return True
            raise
        try:
            ours = self._disk.stat(self._descriptor)
            return not os.path.samestat(ours, self._disk.stat(now))
        finally:
            self._disk.close(now)

    def close(self) -> None:
        """Again: no effect."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
        self._descriptor = -1

    # --- names ---

    def lstat(self, name: str) -> os.stat_result | None:
        """What has this name; None if nothing has."""
        return self._disk.lstat(name, self._descriptor)

    def has(self, name: str, descriptor: int) -> bool:
        """Whether this is what has the name."""
        named = self.lstat(name)
        return named is not None and os.path.samestat(self._disk.stat(descriptor), named)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of this file; one that is made is 0600."""
        return self._disk.open(name, flags, self._descriptor)

    def gives_to(self, user: int) -> bool:
        """Whether what we make here belongs to this user, as far as that can be tried.

        Mostly that is ourselves. But a file system that is somewhere else may know us by another
        number, or all of us by one.
        """
        name = f".bpipe-{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            made = self.open(name, MAKE)
            try:
                return self._disk.stat(made).st_uid == user
            finally:
                self._disk.close(made)
                self.unlink(name)
        return False

    def link(self, name: str) -> str:
        """Where this link leads."""
        return self._disk.link(name, self._descriptor)

    def rename(self, old: str, new: str) -> None:
        """Whatever has the new name is replaced."""
        self._disk.rename(old, new, self._descriptor)

    def unlink(self, name: str) -> None:
        """Nothing has this name."""
        self._disk.unlink(name, self._descriptor)

    def sync(self) -> None:
        """Its names are on the disk, if its file system knows how to do that."""
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
