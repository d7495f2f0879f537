"""What a receiver has already, in blocks; and the digest of a whole stream, block by block.

An end that writes a stream to a file says what it has of it: its *base*, cut into blocks of one
size, and the SHA-256 of each. The sender hashes its own stream in the same blocks, and where a
digest is the same it says so instead of the bytes. At the end both have the digest of every block
of the stream, of which the last may be short, and the SHA-256 over these tells whether the two have
the same: no byte is hashed twice.

``block_writer.py`` is the sender, ``assembly.py`` the receiver.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final, NamedTuple

from bpipe.errors import ProtocolError
from bpipe.protocol.records import ITEMS, Record

DIGEST: Final = 32  # bytes
USUAL_BLOCK: Final = 1 << 18  # bytes
SMALLEST_BLOCK: Final = 64  # bytes
MOST_BLOCKS: Final = (32 << 20) // DIGEST  # of a base: what lies beyond them is none

_BASE: Final = struct.Struct(">QII")
_SAME: Final = struct.Struct(">Q")
_TOTAL: Final = struct.Struct(f">Q{DIGEST}s")


def block_size(length: int, window: int) -> int:
    """The bytes of a block where so many are there already.

    ``window`` is the smaller one of the two windows of the session, at least 256 bytes: a sender
    holds a whole block while it does not know whether that is to be sent.
    """
    size = USUAL_BLOCK
    while size * MOST_BLOCKS < length:
        size *= 2
    return max(SMALLEST_BLOCK, min(size, window // 4))


class Base(NamedTuple):
    """What a receiver has: ``length`` bytes, in blocks of ``block``; the last may be short."""

    length: int
    block: int

    @classmethod
    def of(cls, length: int, window: int) -> Base:
        """As much of these bytes as digests can reach; ``window`` as for ``block_size``."""
        block = block_size(length, window)
        return cls(min(length, block * MOST_BLOCKS), block)

    @property
    def blocks(self) -> int:
        """The number of its blocks, the short one included."""
        return -(-self.length // self.block)

    def covers(self, offset: int) -> bool:
        """Whether it has something of the block in which this offset of the stream is."""
        return offset - offset % self.block < self.length

    def pack(self) -> bytes:
        """The content of its record."""
        return _BASE.pack(self.length, self.block, 0)

    @classmethod
    def unpack(cls, item: bytes, capacity: int) -> Base:
        """That of a peer; ProtocolError if it cannot be, for an end that holds so many bytes."""
        length, block, zero = _BASE.unpack(item)
        right = block >= SMALLEST_BLOCK and not zero
        if not right or (length and (block * 4 > capacity or length > block * MOST_BLOCKS)):
            raise ProtocolError("a base that cannot be")
        return cls(length, block)


class Total(NamedTuple):
    """Of a whole stream: its length, and the SHA-256 over the digests of its blocks."""

    length: int
    digest: bytes

    def pack(self) -> bytes:
        """The content of its record."""
        return _TOTAL.pack(*self)

    @classmethod
    def unpack(cls, item: bytes) -> Total:
        """That of a peer."""
        return cls(*_TOTAL.unpack(item))


def pack_same(count: int) -> bytes:
    """The content of the record that says that so many blocks are the same."""
    return _SAME.pack(count)


def unpack_same(item: bytes) -> int:
    """How many blocks the peer says are the same."""
    count: int = _SAME.unpack(item)[0]
    return count


class Items:
    """The items in the content of records, which comes in pieces that are cut anywhere."""

    def __init__(self) -> None:
        self._kind = Record.DATA
        self._rest = b""  # of an item that has not come as a whole

    def add(self, kind: Record, data: bytes) -> list[bytes]:
        """More content of this kind has come; returns the items that are whole now.

        ProtocolError if it is of another kind than an item that has begun.
        """
        if self._rest and kind is not self._kind:
            raise ProtocolError("an item that has no end")
        data, size = self._rest + data, ITEMS[kind]
        whole = len(data) - len(data) % size
        self._kind, self._rest = kind, data[whole:]
        return [data[at : at + size] for at in range(0, whole, size)]


class Chain:
    """SHA-256 of a stream, block by block, and of the digests of all blocks."""

    def __init__(self, block: int) -> None:
        self.length = 0  # bytes of the stream so far
        self.last = b""  # the digest of the last block that has come to its end
        self._block = block
        self._left = block  # bytes of the block that has begun
        self._hash = sha256()
        self._total = sha256()

    @property
    def between(self) -> bool:
        """Whether no block has begun."""
        return self._left == self._block

    def add(self, view: memoryview) -> None:
        """The next bytes of the stream."""
        self.length += len(view)
        while len(view) >= self._left:
            self._hash.update(view[: self._left])
            view = view[self._left :]
            self.end()
        self._hash.update(view)
        self._left -= len(view)

    def skip(self, digests: bytes, length: int) -> None:
        """The next blocks, of so many bytes, have these digests; no block has begun."""
        self.length += length
        self._total.update(digests)

    def end(self) -> None:
        """The block that has begun ends here."""
        self.last = self._hash.digest()
        self._total.update(self.last)
        self._hash, self._left = sha256(), self._block

    def total(self) -> Total:
        """The stream ends here."""
        if not self.between:
            self.end()
        return Total(self.length, self._total.digest())
