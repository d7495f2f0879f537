"""Assembly: a stream to a file, put together from what comes and from what was there."""

from __future__ import annotations

from typing import NamedTuple

from bpipe.errors import ProtocolError
from bpipe.protocol.blocks import DIGEST, Base, Chain, Total
from bpipe.protocol.ring import Views
from bpipe.status import Tally


class Range(NamedTuple):
    """Bytes of the base, and of the stream: they lie at the same place."""

    offset: int
    length: int


class Assembly:
    """The receiver of a stream to a file, who has told of this base.

    Threads. ``told`` belongs to whoever hashes the base, all else to the consumer.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.whole = False  # the stream is here, up to its end, and it is the right one
        self._chain = Chain(base.block)
        self._told = bytearray()
        self._closed = False  # nothing but a TOTAL can come
        self._equal = 0
        self._moved = 0

    @property
    def at(self) -> int:
        """The bytes of the stream that are here."""
        return self._chain.length

    @property
    def tally(self) -> Tally:
        """Of what is here."""
        compared = min(self.at, self.base.length)
        return Tally(compared, self._equal, self._moved, incoming=True)

    def told(self, digests: bytes) -> None:
        """The digests of the next blocks of the base are about to be told."""
        self._told += digests

    def data(self, views: Views) -> None:
        """The next bytes of the stream are these. ProtocolError if it has ended."""
        self._open()
        for view in views:
            self._chain.add(view)
            self._moved += len(view)

    def same(self, count: int) -> Range:
        """The next blocks of the stream are those of the base; returns where they lie there.

        ProtocolError if they cannot be: where no block begins, or of no digest that was told.
        """
        self._open()
        first, within = divmod(self.at, self.base.block)
        last = first + count
        if within or not first < last <= len(self._told) // DIGEST:
            raise ProtocolError("blocks that cannot be the same")
        offset, end = self.at, min(last * self.base.block, self.base.length)
        self._closed = end % self.base.block > 0
        self._chain.skip(bytes(self._told[first * DIGEST : last * DIGEST]), end - offset)
        self._equal += end - offset
        return Range(offset, end - offset)

    def total(self, total: Total) -> None:
        """The stream ends here. ProtocolError if it is another one than this."""
        if self.whole or self._chain.total() != total:
            raise ProtocolError("a file that is not what was sent")
        self.whole = self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise ProtocolError("more of a stream that has ended")
