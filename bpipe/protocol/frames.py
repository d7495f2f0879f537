"""How frames lie on a link that is not sealed; ``sealed.py`` has the other way.

An object of this module belongs to one link, and is forgotten with it: half a frame that has
arrived is of no use on the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bpipe.protocol.ring import Views
from bpipe.protocol.wire import (
    HEADER_SIZE,
    Header,
    Kind,
    pack_data_header,
    pack_frame,
    unpack_header,
)


class Sink(Protocol):
    """Where the payload of DATA frames goes: a BackedReader, or what stands before it."""

    def check(self, number: int, count: int) -> None:
        """A DATA frame begins; ProtocolError if it may not."""

    def lend(self, limit: int) -> Views:
        """Where its next bytes belong: at most ``limit``."""

    def receive(self, count: int) -> None:
        """``count`` bytes arrived there."""


class Frames:
    """The frames of one link, in both directions. Payloads are moved from and to lent memory.

    ``join`` comes before anything that has a payload.
    """

    size = HEADER_SIZE  # of a frame without payload, in bytes
    around = HEADER_SIZE  # what a frame has beside its payload

    def __init__(self) -> None:
        self.missing = 0  # bytes of the body that is arriving
        self.passing = False  # they are payload, and need not be seen here
        self.message = b""  # of the last frame that was not DATA; only an ABORT has one
        self._header = memoryview(bytearray(HEADER_SIZE))
        self._filled = 0  # bytes of it
        self._coming = Header(Kind.ABORT, 0, 0)  # of the body
        self._text = memoryview(b"")  # of an ABORT that is arriving
        self._reader: Sink

    def join(self, reader: Sink) -> None:
        """Payload that comes goes there."""
        self._reader = reader

    # --- out ---

    def pack(
        self, kind: Kind, number: int, message: bytes = b"", how: int = 0, status: int = 0
    ) -> bytes:
        """A frame that is not DATA."""
        return pack_frame(kind, number, message, how, status)

    def pack_data(self, number: int, payload: memoryview) -> Views:
        """A DATA frame; valid until the next one is packed."""
        return [memoryview(pack_data_header(number, len(payload))), payload]

    # --- in ---

    def unpack(self, data: bytes | memoryview) -> Header:
        """What a header says, or a whole frame without payload, as those of a greeting are."""
        return unpack_header(data)

    def incoming(self) -> Views:
        """Where the next bytes belong, in order; never empty."""
        if not self.missing:
            return [self._header[self._filled :]]
        views = self._body()
        if sum(map(len, views)) == self.missing:
            views.append(self._header)  # the next frame's, in the same system call
        return views

    def receive(self, count: int) -> Iterator[Header]:
        """``count`` bytes arrived where ``incoming`` said; the headers of the frames, in order.

        Of a DATA frame the header comes when it is there, of all others with the frame's end. The
        next one is looked for when it is asked for: what the frame before it has led to counts.
        Raises LinkLost for what nobody may send.
        """
        if body := min(count, self.missing):
            count -= body
            if (header := self._receive_body(body)) is not None:
                yield header
        self._filled += count
        if self._filled == HEADER_SIZE:
            self._filled = 0
            if (header := self._begin()) is not None:
                yield header

    def _receive_body(self, count: int) -> Header | None:
        """So many bytes of it; returns the header of the frame if it was not told before."""
        self.missing -= count
        if self.passing:
            self._reader.receive(count)
            self.passing = self.missing > 0
            return None
        if self.missing:
            return None
        self.message = bytes(self._text)
        return self._coming

    def passed(self, count: int) -> None:
        """So many bytes of a payload went another way."""
        self.missing -= count
        self.passing = self.missing > 0

    def _begin(self) -> Header | None:
        """A header is there."""
        header = unpack_header(self._header)
        self.missing = header.length
        if header.kind is Kind.DATA:
            self._reader.check(header.number, header.length)
            self.passing = True
        elif header.length:
            self._coming, self._text = header, memoryview(bytearray(header.length))
            return None
        else:
            self.message = b""
        return header

    def _body(self) -> Views:
        """Where the missing bytes of a body belong."""
        if self.passing:
            return self._reader.lend(self.missing)
        return [self._text[-self.missing :]]
