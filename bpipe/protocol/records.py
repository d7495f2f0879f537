"""Records: a stream cut into pieces of several kinds, where an end of the session needs that.

A record is a header of 8 bytes, ``kind u8 | 3 zero | length u32``, and ``length`` bytes. Records
lie *on* the stream: offsets, windows and acknowledgements count their headers like any other byte,
and a frame may begin and end anywhere in them. Nothing is copied for them: the header is written
into the ring before the memory that a producer was lent, and left out where a consumer is lent
some.

The two classes have the words of the halves that they are laid over, and the same threads: those of
``RecordWriter`` belong to the producer, those of ``RecordReader`` to the consumer, and ``ready``,
``buffered`` and ``drained`` to either side.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NoReturn

from bpipe.errors import ProtocolError
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views, fill
from bpipe.protocol.wire import Ended
from bpipe.protocol.writer import BackedWriter

RECORD_HEADER: Final = 8  # bytes
LARGEST_RECORD: Final = 1 << 20  # bytes, without the header

_HEADER: Final = struct.Struct(">II")  # kind and zeros are the first word


class Record(enum.IntEnum):
    """What the bytes of a record are."""

    DATA = 1  # the next bytes of the stream
    ERRORS = 2  # the next bytes of a program's stderr
    # Where the receiver writes to a file; the first two are what it says. See ``blocks.py``.
    BASE = 3  # what it has already: its length, and that of a block
    DIGESTS = 4  # of the next blocks of it
    SAME = 5  # so many blocks, here in the stream, are what the base has there
    TOTAL = 6  # the length and the digest of the whole stream


CONTENT: Final = frozenset({Record.DATA, Record.ERRORS})  # what programs have said

# The size of one item, where there are such; a record has whole ones.
ITEMS: Final = {Record.BASE: 16, Record.DIGESTS: 32, Record.SAME: 8, Record.TOTAL: 40}

_WORDS: Final = {kind << 24: kind for kind in Record}


def pack_header(kind: Record, size: int) -> bytes:
    """That of a record with so many bytes."""
    return _HEADER.pack(kind << 24, size)


class RecordWriter:
    """The producer's side of a half: what ``space`` lends and ``wrote`` counts becomes a record.

    ``space`` is that of the half, or of whoever lends its memory. Several of these may write to one
    half, as long as nothing comes between what ``space`` lends and what ``wrote`` says of it.
    """

    def __init__(self, half: BackedWriter, space: Callable[[int], Views] | None = None) -> None:
        self._half = half
        self._space = space or half.space
        self._header: Views = []  # where that of the next record belongs

    def space(self, limit: int) -> Views:
        """Where the bytes of the next record belong: at most ``limit``; ``[]`` without room."""
        views = self._space(min(limit, LARGEST_RECORD) + RECORD_HEADER)
        self._header, left = [], RECORD_HEADER
        while left and views:
            self._header.append(views[0][:left])
            rest = views[0][left:]
            left -= len(self._header[-1])
            views = [rest, *views[1:]] if rest else views[1:]
        return views

    def wrote(self, count: int, kind: Record = Record.DATA) -> None:
        """The producer put ``count`` bytes where ``space`` said; of 0 there is no record."""
        if count:
            fill(self._header, pack_header(kind, count))
            beside = 0 if kind in CONTENT else count
            self._half.wrote_record(RECORD_HEADER + beside, count - beside)

    @property
    def room(self) -> int:
        """The bytes that the next record can have before the buffer is full."""
        return max(0, self._half.room - RECORD_HEADER)


class RecordReader:
    """The consumer's side of a half; ``kinds`` are those that this end has a use for."""

    def __init__(
        self, half: BackedReader, kinds: Collection[Record] = frozenset({Record.DATA})
    ) -> None:
        self.kind = Record.DATA  # of what was lent last, if that was anything
        self._half = half
        self._kinds = kinds
        self._records: deque[tuple[Record, int]] = deque()  # known: bytes that are not taken
        self._untaken = 0  # the sum of these
        self._known = 0  # where the next header is, counted from what is taken
        self._before = RECORD_HEADER  # bytes that come before the next one of a record
        self._broken = False

    def readable(self, limit: int, after: int = 0) -> Views:
        """The next bytes of one kind, at most ``limit``; ``[]`` when there are none now.

        ``after`` so many that the consumer has, and has not taken yet. Raises ProtocolError, once,
        if they cannot be the records of a stream.
        """
        ended = self._half.mark is not None  # asked first: then nothing comes after what is here
        if self._broken or (after == self._untaken and not self._find(ended)):
            return []
        at, end, behind = -1, self._known, self._untaken - after
        while behind > (size := self._records[at][1]):
            at, end, behind = at - 1, end - size - RECORD_HEADER, behind - size
        self.kind = self._records[at][0]
        views = self._half.readable(min(limit, behind), end - behind)
        if ended and not views:
            self._end_within()
        got = sum(map(len, views))
        while got == behind and (limit := limit - got) and self._goes_on(at):
            at = min(at + 1, -1)
            behind = self._records[at][1]
            end += RECORD_HEADER + behind
            more = self._half.readable(min(limit, behind), end - behind)
            got = sum(map(len, more))
            views += more
        return views

    def _goes_on(self, at: int) -> bool:
        """Whether the record behind this known one, by its index, is there and of its kind."""
        if at < -1:
            return self._records[at + 1][0] is self.kind
        coming = self._next()
        if coming is None or coming[0] is not self.kind:
            return False
        self._know(self.kind, coming[1])
        return True

    def took(self, count: int) -> None:
        """The consumer accepted the first ``count`` bytes, perhaps of several records."""
        moved = data = 0
        while count:
            kind, size = self._records.popleft()
            taken = min(count, size)
            count -= taken
            moved += self._before + taken
            data += taken if kind is Record.DATA else 0
            self._untaken -= taken
            self._before = RECORD_HEADER
            if taken < size:
                self._records.appendleft((kind, size - taken))
                self._before = 0
        self._known -= moved
        self._half.took_records(moved - data, data)

    @property
    def buffered(self) -> int:
        """The bytes that wait for the consumer, with headers; 0 if none of them can be lent."""
        if self._broken:
            return 0
        buffered = self._half.buffered
        return buffered if buffered > self._before else 0

    @property
    def ready(self) -> bool:
        """Whether the consumer has something to do: to take bytes, or to see the end."""
        return self.buffered > 0 or (self._half.mark is not None and not self._broken)

    @property
    def drained(self) -> bool:
        """Whether every byte of the stream was taken, so that the consumer can be closed."""
        half = self._half
        return half.drained and not self._broken and (not self._untaken or self._cut)

    @property
    def _cut(self) -> bool:
        """Whether the stream was cut short, perhaps within a record."""
        return self._half.ended.how is Ended.CUT

    def _find(self, ended: bool) -> bool:
        """Read the next header; returns whether it is there."""
        coming = self._next()
        if coming is None:
            if ended and self._half.buffered > self._known:
                self._end_within()
            return False
        kind, size = coming
        if kind is None or kind not in self._kinds:
            self._fail("a record that cannot be")
        self._know(kind, size)
        return True

    def _next(self) -> tuple[Record | None, int] | None:
        """The next record's kind, if it can be one, and its length; None if it is not there."""
        header = b"".join(self._half.readable(RECORD_HEADER, self._known))
        if len(header) < RECORD_HEADER:
            return None
        word, size = _HEADER.unpack(header)
        kind = _WORDS.get(word) if 1 <= size <= LARGEST_RECORD else None
        return None if kind in ITEMS and size % ITEMS[kind] else kind, size

    def _know(self, kind: Record, size: int) -> None:
        """The next record is right."""
        self._records.append((kind, size))
        self._known += RECORD_HEADER + size
        self._untaken += size

    def _end_within(self) -> None:
        """The stream ends within a record; nobody else will take what is there of its header."""
        if not self._cut:
            self._fail("a stream that ends within a record")
        if self._half.buffered <= self._before:
            self._half.took_records(self._half.buffered, 0)

    def _fail(self, why: str) -> NoReturn:
        self._broken = True
        raise ProtocolError(why)
