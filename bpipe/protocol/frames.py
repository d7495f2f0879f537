"""How frames lie on a link that is not sealed; ``sealed.py`` has the other way.

An object of this module belongs to one link, and is forgotten with it: half a frame that has
arrived is of no use on the next one.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import (
    HEADER_SIZE,
    Header,
    Kind,
    pack_data_header,
    pack_frame,
    unpack_header,
)

Frame = tuple[Header, bytes]  # one that has arrived, and the message of an ABORT


class Frames:
    """The frames of one link, in both directions. Payloads are moved from and to lent memory."""

    size = HEADER_SIZE  # of a frame without payload, in bytes

    def __init__(self) -> None:
        self._header = bytearray(HEADER_SIZE)
        self._header_view = memoryview(self._header)
        self._filled = 0  # bytes of it
        self._coming: Header | None = None  # the frame whose body is arriving
        self._missing = 0  # bytes of that body
        self._message = memoryview(b"")

    # --- out ---

    def pack(self, kind: Kind, number: int, message: bytes = b"", how: int = 0) -> bytes:
        """A frame that is not DATA."""
        return pack_frame(kind, number, message, how)

    def pack_data(self, number: int, payload: memoryview) -> Views:
        """A DATA frame; valid until the next one is packed."""
        return [memoryview(pack_data_header(number, len(payload))), payload]

    # --- in ---

    def unpack(self, data: bytes) -> Header:
        """A whole frame without payload; only in a greeting, which reads no more than that."""
        return unpack_header(data)

    def incoming(self, reader: BackedReader) -> Views:
        """Where the next bytes belong, in order; never empty."""
        if self._coming is None:
            return [self._header_view[self._filled :]]
        views = self._body(self._coming, reader)
        if sum(map(len, views)) == self._missing:
            views.append(self._header_view)  # the next frame's, in the same system call
        return views

    def received(self, count: int, reader: BackedReader) -> Iterator[Frame]:
        """``count`` bytes arrived where ``incoming`` said; yields the frames that they complete.

        Of a DATA frame the header is enough, and its payload is the reader's. Raises LinkLost
        for what nobody may send, after what came before it.
        """
        if self._coming is not None:
            part = min(count, self._missing)
            self._missing -= part
            count -= part
            frame = self._arrive(self._coming, part, reader)
            if not self._missing:
                self._coming = None
            if frame is not None:
                yield frame
        self._filled += count
        if self._filled == HEADER_SIZE:
            self._filled = 0
            if (frame := self._begin(reader)) is not None:
                yield frame

    @property
    def passable(self) -> int:
        """The bytes of a DATA frame that come next, and need not be seen here."""
        passing = self._coming is not None and self._coming.kind is Kind.DATA
        return self._missing if passing else 0

    def passed(self, count: int) -> None:
        """So many of them went another way."""
        self._missing -= count
        if not self._missing:
            self._coming = None

    def _begin(self, reader: BackedReader) -> Frame | None:
        """A header is there."""
        header = unpack_header(self._header)
        if header.kind is Kind.DATA:
            reader.check(header.number, header.length)
        elif header.length:
            self._message = memoryview(bytearray(header.length))
        if header.length:
            self._coming, self._missing = header, header.length
        return None if header.length and header.kind is not Kind.DATA else (header, b"")

    def _body(self, header: Header, reader: BackedReader) -> Views:
        """Where the missing bytes of this frame's body belong."""
        if header.kind is Kind.DATA:
            return reader.lend(self._missing)
        return [self._message[-self._missing :]]

    def _arrive(self, header: Header, count: int, reader: BackedReader) -> Frame | None:
        """So many bytes of this frame's body are there."""
        if header.kind is Kind.DATA:
            reader.receive(count)
            return None
        return None if self._missing else (header, bytes(self._message))
