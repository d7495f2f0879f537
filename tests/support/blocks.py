"""A stream to a file, without the file: what one end says, and what the other has to find."""

from __future__ import annotations

import struct
from hashlib import sha256

from bpipe.protocol.assembly import Assembly
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base, Items, Total, unpack_same
from bpipe.protocol.records import Record
from bpipe.protocol.ring import fill
from bpipe.protocol.writer import BackedWriter
from tests.support.loopback import EVERYTHING


def cut(data: bytes, block: int) -> list[bytes]:
    """The blocks of these bytes; the last may be short."""
    return [data[at : at + block] for at in range(0, len(data), block)]


def digests(data: bytes, block: int) -> list[bytes]:
    """Of each block."""
    return [sha256(piece).digest() for piece in cut(data, block)]


def total(data: bytes, block: int) -> Total:
    """What a sender of these bytes says at the end."""
    return Total(len(data), sha256(b"".join(digests(data, block))).digest())


def put(writer: BlockWriter, data: bytes, limit: int = EVERYTHING) -> int:
    """Let a producer write these bytes, as far as it can; returns how many it could."""
    done = 0
    while done < len(data):
        count = fill(writer.space(min(limit, len(data) - done)), data[done:])
        writer.wrote(count)
        done += count
        if not count:
            break
    return done


def tell(writer: BlockWriter, base: bytes, block: int) -> None:
    """The receiver has these bytes, and tells all that is to be told of them."""
    writer.hear(Record.BASE, Base(len(base), block).pack())
    writer.hear(Record.DIGESTS, b"".join(digests(base, block)))


def raw(half: BackedWriter) -> bytes:
    """What is written and not acknowledged."""
    half.resume(half.acked, EVERYTHING)
    data = b""
    while piece := half.next_frame(EVERYTHING):
        data += piece.payload
    return data


def on_the_stream(half: BackedWriter) -> list[tuple[Record, bytes]]:
    """The same as records; those of one kind that follow each other are joined."""
    data, found = raw(half), list[tuple[Record, bytes]]()
    while data:
        word, size = struct.unpack_from(">II", data)
        kind, content, data = Record(word >> 24), data[8 : 8 + size], data[8 + size :]
        assert len(content) == size
        if found and found[-1][0] is kind:
            content = found.pop()[1] + content
        found.append((kind, content))
    return found


class File:
    """A receiver whose disk is memory; ``old`` is its base."""

    def __init__(self, old: bytes, base: Base) -> None:
        self.content = bytearray()
        self.assembly = Assembly(base)
        self._old = old
        self._items = Items()

    def take(self, kind: Record, data: bytes) -> None:
        """Content of records has come; ProtocolError if it cannot be."""
        if kind is Record.DATA:
            self.assembly.data([memoryview(data)])
            self.content += data
            return
        for item in self._items.add(kind, data):
            if kind is Record.TOTAL:
                self.assembly.total(Total.unpack(item))
            else:
                offset, length = self.assembly.same(unpack_same(item))
                assert offset == len(self.content)
                assert offset + length <= len(self._old)
                self.content += self._old[offset : offset + length]
