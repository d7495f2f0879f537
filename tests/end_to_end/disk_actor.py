"""bpipe over a disk that is watched, and that ends its process at a chosen act.

``python -P disk_actor.py FOLDER SECONDS AT -m bpipe ARGUMENT...``, as ``output_deaths`` starts a
receiver. SECONDS are those between two syncs. AT is like ``write:7:before``, ``rename:1:after`` or
``write:3:half``; ``never``: at none.

In the folder it notes what a power cut could not take away. ``synced`` has what lies in the part
since its last sync, as a copy; ``created`` and ``renamed`` are there while the folder has not been
synced since. ``old`` is the FILE that was replaced. No sync is passed to the system: a copy is
quicker here than a real disk, and nothing but these notes counts.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import bpipe.ends.files
import bpipe.ends.part
from bpipe.__main__ import main
from bpipe.ends.disk import Disk
from bpipe.protocol.ring import Views

T = TypeVar("T")

SLOWEST: Final = 0.02  # seconds: a sync takes up to that


class Watched(Disk):
    """Takes notes, and dies when its time has come."""

    def __init__(self, folder: Path, at: str) -> None:
        super().__init__()
        self._folder = folder
        self._name, _, rest = at.partition(":")
        number, _, self._when = rest.partition(":")
        self._left = int(number or 0)  # acts of this name, until it dies
        self._part = -1

    def open(self, name: str, flags: int, folder: int) -> int:
        descriptor = self._act("open", super().open, name, flags, folder)
        if name.endswith(".part"):
            self._part = descriptor
            if flags & os.O_CREAT:
                self._note("created")
                (self._folder / "synced").write_bytes(b"")
            elif not (self._folder / "synced").exists():
                self._copy(descriptor).rename(self._folder / "synced")
        return descriptor

    def write(self, descriptor: int, views: Views, at: int) -> int:
        if self._name == "write" and self._when == "half" and self._left == 1:
            half = bytes(views[0])[: len(views[0]) // 2]
            super().write(descriptor, [memoryview(half)], at)
        return self._act("write", super().write, descriptor, views, at)

    def copy(self, source: int, target: int, at: int, count: int) -> int:
        return self._act("copy", super().copy, source, target, at, count)

    def punch(self, descriptor: int, at: int, count: int) -> bool:
        return self._act("punch", super().punch, descriptor, at, count)

    def truncate(self, descriptor: int, length: int) -> None:
        self._act("truncate", super().truncate, descriptor, length)

    def chmod(self, descriptor: int, mode: int) -> None:
        self._act("chmod", super().chmod, descriptor, mode)

    def rename(self, old: str, new: str, folder: int) -> None:
        place = f"/proc/self/fd/{folder}/{new}"
        (self._folder / "old").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.link(place, self._folder / "old")
        self._act("rename", super().rename, old, new, folder)

    def sync_data(self, descriptor: int) -> None:
        self._act("sync_data", self._sync, descriptor)

    def sync(self, descriptor: int) -> None:
        self._act("sync", self._sync, descriptor)

    def _sync(self, descriptor: int) -> None:
        """What lay there when it began is on the disk when it returns."""
        if descriptor != self._part:
            for name in ("created", "renamed"):
                (self._folder / name).unlink(missing_ok=True)
            return
        copied = self._copy(descriptor)
        time.sleep(random.random() * SLOWEST)  # meanwhile the others go on
        copied.rename(self._folder / "synced")

    def _copy(self, descriptor: int) -> Path:
        copied = self._folder / "synced.new"
        shutil.copyfile(f"/proc/self/fd/{descriptor}", copied)
        return copied

    def _note(self, name: str) -> None:
        (self._folder / name).touch()

    def _act(self, name: str, act: Callable[..., T], *arguments: object) -> T:
        mine = name == self._name
        self._left -= mine
        if mine and not self._left and self._when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "rename":
            self._note("renamed")
        result = act(*arguments)
        if mine and not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def watch() -> None:
    """Put it in the place of the real one, and give bpipe what is for it."""
    folder, seconds, at = sys.argv[1:4]
    del sys.argv[1:6]
    disk = Watched(Path(folder), at)
    vars(bpipe.ends.part)["Disk"] = lambda: disk
    vars(bpipe.ends.files)["EVERY"] = float(seconds)


if __name__ == "__main__":
    watch()
    main()
