"""Draft: what comes next on a stream to a file, before it is known whether it has to be sent.

It lies in the ring behind what is written: first the place for a SAME, if blocks before it were the
same, and then DATA records, each of which is as large as a record can be, but for the last. So it
goes on the stream without a copy: the headers are put in front of what a producer has put there,
and all of it is committed. If it is the same as what the receiver has, nothing of it was ever
written.

Threads. Only one at a time: that of the producer, or whoever knows that it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpipe.protocol.blocks import pack_same
from bpipe.protocol.records import LARGEST_RECORD, RECORD_HEADER, Record, pack_header
from bpipe.protocol.ring import Views, fill
from bpipe.protocol.writer import BackedWriter

KEPT: Final = 128  # bytes of the buffer: SAME and TOTAL have room in any case
_SAME_SIZE: Final = RECORD_HEADER + 8


def _behind(views: Views, count: int) -> Views:
    """The same memory without its first bytes."""
    at = 0
    while at < len(views) and count >= len(views[at]):
        count -= len(views[at])
        at += 1
    return [views[at][count:], *views[at + 1 :]] if at < len(views) else []


class Draft:
    """DATA records that are not written yet, and the run of blocks before them that are the same.

    ``space`` lends memory: that of the half, or of whoever lends it.
    """

    def __init__(self, half: BackedWriter, space: Callable[[int], Views]) -> None:
        self.size = 0  # bytes of DATA, without headers
        self.same = 0  # blocks that are the same, and no SAME says so yet
        self._half = half
        self._space = space

    @property
    def room(self) -> int:
        """The bytes that can still be put here."""
        return max(0, self._half.room - self._place(self.size) - KEPT)

    def lend(self, limit: int) -> Views:
        """Where the next bytes belong: at most ``limit``, in one record; ``[]`` without room."""
        limit = min(limit, LARGEST_RECORD - self.size % LARGEST_RECORD, self.room)
        place = self._place(self.size)
        return _behind(self._space(place + limit), place) if limit > 0 else []

    def add(self, count: int) -> None:
        """So many bytes were put where ``lend`` said."""
        self.size += count

    def write(self) -> None:
        """All of it goes on the stream."""
        self.write_same()
        size, self.size = self.size, 0
        for left in range(size, 0, -LARGEST_RECORD):
            count = min(left, LARGEST_RECORD)
            fill(self._half.space(RECORD_HEADER), pack_header(Record.DATA, count))
            self._half.wrote_record(RECORD_HEADER, count)

    def drop(self) -> None:
        """It is a block that the receiver has."""
        self.same += 1
        self.size = 0

    def write_same(self) -> None:
        """What was the same goes on the stream; the rest stays as it is."""
        if self.same:
            same, self.same = self.same, 0
            self.put(Record.SAME, pack_same(same))

    def put(self, kind: Record, item: bytes) -> None:
        """A record with this item goes on the stream: there is room where the draft lies."""
        fill(self._half.space(RECORD_HEADER + len(item)), pack_header(kind, len(item)) + item)
        self._half.wrote_record(RECORD_HEADER + len(item), 0)

    def insert(self, data: bytes, kind: Record) -> None:
        """A record of another kind goes on the stream, and the draft lies behind it."""
        before, place = self._before, self._place(self.size)
        draft = b"".join(_behind(self._half.space(place), before))
        fill(self._half.space(RECORD_HEADER + len(data)), pack_header(kind, len(data)) + data)
        self._half.wrote_record(RECORD_HEADER, len(data))
        fill(_behind(self._half.space(place), before), draft)

    @property
    def _before(self) -> int:
        return _SAME_SIZE if self.same else 0

    def _place(self, size: int) -> int:
        """How far behind what is written a byte of the DATA lies."""
        return self._before + size + (size // LARGEST_RECORD + 1) * RECORD_HEADER
