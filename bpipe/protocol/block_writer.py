"""BlockWriter: the producer's side of a stream to a file; what the receiver has is not sent.

Theory of operation. Where the receiver's base has something, the producer's bytes are a draft
(``draft.py``) until a block of them is whole, and the digest of that block in the base is known:
then the block is dropped, and counted in a SAME, or it goes on the stream. Where there is no base,
they go on the stream at once, as with a ``RecordWriter``. They are hashed in both cases, in the
thread of the producer, piece by piece as they come.

Threads. ``space`` and ``wrote`` belong to the producer's thread, all else to the thread that owns
the session. While a whole block waits for its digest, nothing is lent; whichever of the two sees
last that both are there takes the block's *claim*, and decides: the other one finds none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from bpipe.errors import ProtocolError
from bpipe.protocol.blocks import DIGEST, Base, Chain, Items
from bpipe.protocol.draft import Draft
from bpipe.protocol.records import Record
from bpipe.protocol.ring import Views
from bpipe.protocol.writer import BackedWriter
from bpipe.status import Tally

MOST_UNREAD: Final = (1 << 20) // DIGEST  # digests that are held; who brings more has to wait
LONGEST_RUN: Final = 64  # blocks that are the same before it is said


class BlockWriter:
    """As ``RecordWriter``, for a stream that the peer writes to a file.

    ``space`` lends memory: that of the half, or of whoever lends it. ``whole``: nothing is
    compared, everything is sent. Nothing is lent before the peer has told its base.
    """

    def __init__(
        self,
        half: BackedWriter,
        space: Callable[[int], Views] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._half = half
        self._draft = Draft(half, space or half.space)
        self._whole = whole
        self._base: Base | None = None
        self._chain = Chain(1)
        self._items = Items()
        self._digests: deque[bytes] = deque()  # of the blocks from the one that has begun on
        self._told = 0  # digests that have come
        self._final = False  # no more will
        self._comparing = False  # what is in the draft
        self._stuck = False  # it is a whole block, about which nobody has decided
        self._claims: list[None] = []  # of a whole block: who takes it, decides
        self._lent: Views = []
        self._ended = False
        self._compared = self._equal = self._moved = 0

    # --- the producer ---

    def space(self, limit: int) -> Views:
        """Where the next bytes belong: at most ``limit``; ``[]`` while it has to wait."""
        base, draft = self._base, self._draft
        self._lent = []
        if base is None or self._stuck or self._ended:
            return []
        if not draft.size:
            self._comparing = not self._whole and base.covers(self._chain.length)
        if self._comparing:
            limit = min(limit, base.block - draft.size)
        self._lent = draft.lend(limit)
        return self._lent

    def wrote(self, count: int, kind: Record = Record.DATA) -> None:
        """The producer put ``count`` bytes where ``space`` said; of 0 there is no record.

        Of another kind than DATA they are no part of the file, and go on the stream at once.
        """
        if not count:
            return
        if kind is not Record.DATA:
            self._draft.insert(b"".join(self._lent)[:count], kind)
        elif self._comparing:
            self._hash(count)
            self._draft.add(count)
            if self._chain.between:
                self._whole_block()
        else:
            self._draft.add(count)
            self._send()
            self._hash(count)

    @property
    def room(self) -> int:
        """The bytes that can be written before it has to wait."""
        waits = self._base is None or self._stuck or self._ended
        return 0 if waits else self._draft.room

    # --- the session ---

    @property
    def tally(self) -> Tally:
        """Of what is decided."""
        return Tally(self._compared, self._equal, self._moved)

    @property
    def hungry(self) -> bool:
        """Whether to bring what the peer has said, by ``hear``."""
        return len(self._digests) < MOST_UNREAD

    @property
    def waiting(self) -> bool:
        """Whether the stream has not come to its end: its last block waits for a digest.

        For who knows that the producer has ended. It changes with ``hear`` and ``hear_end``.
        """
        base, size = self._base, self._draft.size
        if base is None or not (size and self._comparing) or self._final or self._digests:
            return False
        start = self._chain.length - size
        return min(base.block, base.length - start) == size

    def hear(self, kind: Record, data: bytes) -> None:
        """The peer has said this, BASE or DIGESTS, cut anywhere. ProtocolError if it cannot be."""
        for item in self._items.add(kind, data):
            if kind is Record.BASE:
                self._hear_base(item)
            else:
                self._hear_digest(item)

    def hear_end(self) -> None:
        """The peer says no more: all that it has told no digest of is sent.

        ProtocolError if it has told no base.
        """
        if self._base is None:
            raise ProtocolError("a receiver of a file that does not tell its base")
        self._final = True
        self._decide()

    def pause(self) -> None:
        """While it is ``waiting``: what is the same so far is said; the peer may wait for that."""
        self._draft.write_same()

    def end(self, whole: bool) -> None:
        """The producer has ended; ``whole``: this is the stream, and what makes a file of it.

        What is left of a block goes on the stream. Once; nothing is lent after it.
        """
        total = self._chain.total()
        if self._draft.size:
            self._settle()
        self._ended = True
        self._digests.clear()
        self._draft.write_same()
        if whole:
            self._draft.put(Record.TOTAL, total.pack())

    # --- within ---

    def _hash(self, count: int) -> None:
        """The first ``count`` bytes of what was lent are the next of the stream."""
        for view in self._lent:
            self._chain.add(view[:count])
            count = max(0, count - len(view))

    def _send(self) -> None:
        self._moved += self._draft.size
        self._draft.write()

    def _whole_block(self) -> None:
        self._stuck = True
        if not self._digests:
            self._draft.write_same()  # the peer may be waiting for that
        self._claims.append(None)
        self._decide()

    def _decide(self) -> None:
        """If a whole block and its digest are there, and nobody else has seen that before."""
        if not (self._digests or self._final):
            return
        try:
            self._claims.pop()
        except IndexError:
            return
        self._settle()
        self._stuck = False  # from here on all this is the producer's again

    def _settle(self) -> None:
        """What is in the draft is a block: is it the same?"""
        size = self._draft.size
        digest = self._digests.popleft() if self._digests else b""
        if digest:
            self._compared += size
        if digest != self._chain.last:
            self._send()
            return
        self._equal += size
        self._draft.drop()
        idle = self._half.acked == self._half.written  # what is small waits for no more (RFC 896)
        if idle or self._draft.same == LONGEST_RUN:
            self._draft.write_same()

    def _hear_base(self, item: bytes) -> None:
        if self._base is not None:
            raise ProtocolError("a second base")
        base = Base.unpack(item, self._half.capacity)
        self._chain = Chain(base.block)
        self._base = base  # from here on the producer is lent memory

    def _hear_digest(self, item: bytes) -> None:
        if self._base is None or self._told == self._base.blocks:
            raise ProtocolError("a digest of no block")
        self._told += 1
        if not (self._whole or self._ended):
            self._digests.append(item)
            self._decide()
