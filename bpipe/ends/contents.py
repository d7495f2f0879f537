"""Contents: what is written into the part, where zeros become holes, and what is copied from FILE.

A hole costs nothing, neither on the disk nor in time. Beyond what lies in the part already there
is one wherever nothing is written; within, it is punched, or zeros are written where the file
system knows no holes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from bpipe.ends.part import Target
from bpipe.errors import TargetError
from bpipe.protocol.assembly import Range
from bpipe.protocol.ring import Views

PIECE: Final = 1 << 16  # bytes, at a multiple of that: zeros if all of it is
LEAST: Final = 1 << 12  # bytes: fewer zeros than that are written
LARGEST_COPY: Final = 16 << 20  # bytes in one call

_ZEROS: Final = bytes(PIECE)


class Contents:
    """Of one session. Belongs to one thread, and blocks; raises OSError."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._disk = target.disk
        self._punches = True  # as far as is known
        self._buffer: memoryview | None = None

    def put(self, views: Views, at: int) -> None:
        """These bytes belong there. TargetError if a device is not that large."""
        self._require_room(at + sum(map(len, views)))
        for run, zeros in runs(views, at):
            count = sum(map(len, run))
            if zeros and not self._target.device:
                self._leave_hole(at, count, run)
            else:
                self._write(run, at)
            at += count

    def keep(self, place: Range) -> int:
        """As much of this range of the base as is quickly done belongs where it lies there.

        Returns how many bytes that is: nothing is to be done where they lie in the part.
        """
        within = min(place.length, self._target.lies - place.offset)
        if within > 0:
            return within
        count = min(place.length, LARGEST_COPY)
        end = place.offset + count
        at = place.offset
        while at < end:
            data = self._disk.next_data(self._target.old, at)
            begin = end if data is None else min(data, end)
            if begin > at:
                self._lengthen(begin)
            at = begin
            if at < end:
                at += self._copy(at, min(end, self._disk.next_hole(self._target.old, at) or end))
        return count

    # --- within ---

    def _require_room(self, end: int) -> None:
        target = self._target
        if target.device and end > target.lies:
            text = f"what comes is longer than {target.path}, which holds {target.lies} bytes"
            raise TargetError(text)

    def _leave_hole(self, at: int, count: int, zeros: Views) -> None:
        """The zeros are not written, as far as that can be."""
        within = max(0, min(count, self._target.lies - at))
        if within and not self._punch(at, within):
            self._write(zeros, at)
        elif within < count:
            self._lengthen(at + count)

    def _punch(self, at: int, count: int) -> bool:
        self._punches = self._punches and self._disk.punch(self._target.part, at, count)
        return self._punches

    def _lengthen(self, end: int) -> None:
        """There is a hole up to there, beyond all that lies in the part."""
        self._disk.truncate(self._target.part, end)

    def _write(self, views: Views, at: int) -> None:
        while views:
            count = self._disk.write(self._target.part, views, at)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            at += count
            while views and count >= len(views[0]):
                count -= len(views[0])
                views = views[1:]
            if count:
                views = [views[0][count:], *views[1:]]

    def _copy(self, at: int, end: int) -> int:
        """Some of these bytes of FILE, at least one; returns how many."""
        target = self._target
        count = self._disk.copy(target.old, target.part, at, end - at)
        if count:
            return count
        if self._buffer is None:
            self._buffer = memoryview(bytearray(1 << 20))
        views = [self._buffer[: end - at]]
        views[0] = views[0][: self._disk.read(target.old, views[0], at)]
        if not views[0]:
            raise TargetError(f"{target.path} has become shorter meanwhile", usage=False)
        self.put(views, at)
        return len(views[0])


def runs(views: Views, at: int) -> Iterator[tuple[Views, bool]]:
    """These bytes, which belong there, as runs of pieces that are all zeros, or are not."""
    run: Views = []
    zeros = False
    for view in views:
        begin = place = 0
        while place < len(view):
            end = min(len(view), place + PIECE - (at + place) % PIECE)
            if _is_zero(view[place:end]) is not zeros:
                if place > begin:
                    run.append(view[begin:place])
                if run:
                    yield run, zeros
                run, zeros, begin = [], not zeros, place
            place = end
        run.append(view[begin:])
        at += len(view)
    if run:
        yield run, zeros


def _is_zero(piece: memoryview) -> bool:
    """Whether there is nothing else in it, and enough of that to matter."""
    size = len(piece)
    return size >= LEAST and not piece[0] and not piece[-1] and bytes(piece) == _ZEROS[:size]
