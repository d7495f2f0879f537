"""The part of a file is claimed: opened or made, locked, and nobody else's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from bpipe.ends.disk import Disk
from bpipe.ends.dress import BARE, undress
from bpipe.ends.folder import MAKE, Folder
from bpipe.errors import TargetError, explain

_TRIES: Final = 100  # to open a part that somebody else renames or removes meanwhile


class Claim:
    """Of what has this name in this folder. ``path`` is the same for people.

    ``refuse`` raises TargetError for what is no part for us.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Folder,
        name: str,
        path: str,
        refuse: Callable[[os.stat_result], None],
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._name = name
        self._path = path
        self._refuse = refuse

    def take(self) -> int:
        """A descriptor of what has its name, and is locked. Raises TargetError, OSError."""
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError, FileNotFoundError):  # it has come, or gone
                part = self._open_or_make()
                if part is not None:
                    return part
        raise TargetError(f"cannot write {self._path}: it keeps changing", usage=False)

    def _open_or_make(self) -> int | None:
        """None: this has to be done again."""
        found = self._folder.lstat(self._name)
        if found is None:
            return self._make()
        self._refuse(found)
        if found.st_mode & BARE == BARE or self._disk.user() == 0:
            return self._lock(self._folder.open(self._name, os.O_RDWR))
        # a run has died as it gave it the mode of a FILE that is only read: it gets its own first
        part = self._lock(self._folder.open(self._name, os.O_RDONLY))
        if part is not None:
            self._disk.close(part)
        return None

    def _make(self) -> int | None:
        try:
            made = self._folder.open(self._name, MAKE)
        except FileNotFoundError as error:  # as in a folder that was removed: never
            raise TargetError(
                f"cannot write {self._path}: {explain(error)}", usage=False
            ) from error
        try:
            return self._lock(made)
        except OSError:
            self._folder.unlink(self._name)  # nobody can lock it here
            raise

    def _lock(self, part: int) -> int | None:
        """It is ours; None, and closed, if it is not what has the name any more.

        Who has lost that race tries again.
        """
        try:
            locked = self._disk.lock(part)
            mine = self._folder.has(self._name, part)
            if mine and not locked:
                raise in_use(self._path)
            if mine:
                self._refuse(self._disk.stat(part))
                undress(self._disk, part)
        except BaseException:
            self._disk.close(part)
            raise
        if not mine:
            self._disk.close(part)
            return None
        return part


def in_use(path: str) -> TargetError:
    """It is somebody else's part."""
    return TargetError(f"cannot write {path}: another bpipe is writing it", usage=False)
