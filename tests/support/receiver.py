"""A receiver of a file that keeps it in memory, and tells of its base when the test says so."""

from __future__ import annotations

from hashlib import sha256

import bpipe
from bpipe.protocol.assembly import Assembly
from bpipe.protocol.blocks import Base, Items, Total, unpack_same
from bpipe.protocol.records import Record, RecordReader, RecordWriter
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import FILE, RECORDS

NEEDS = 0, RECORDS | FILE  # of a caller that sends, and of a listener that is such a receiver
BLOCK = 4096


class Receiver:
    """At this pipe, with this base."""

    def __init__(self, pipe: bpipe.BackedPipe, base: bytes = b"", block: int = BLOCK) -> None:
        self.pipe = pipe
        self.file = bytearray()
        self.errors = b""
        self.assembly = Assembly(Base(len(base), block))
        self._base = base
        self._told = 0  # blocks
        self._items = Items()
        self._out = RecordWriter(pipe.writer)
        self._in = RecordReader(pipe.reader, frozenset(Record) - {Record.BASE, Record.DIGESTS})

    async def tell_base(self) -> None:
        await self.say(Record.BASE, self.assembly.base.pack())

    async def tell(self, count: int | None = None) -> None:
        """The digests of the next blocks, or of all that are left."""
        size = self.assembly.base.block
        last = self.assembly.base.blocks if count is None else self._told + count
        blocks = [self._base[at * size : (at + 1) * size] for at in range(self._told, last)]
        self._told = last
        digests = b"".join(sha256(block).digest() for block in blocks)
        self.assembly.told(digests)
        await self.say(Record.DIGESTS, digests)

    async def tell_all(self) -> None:
        await self.tell_base()
        await self.tell()
        self.pipe.finish()

    async def say(self, kind: Record, data: bytes) -> None:
        """In records of at most 512 bytes, each of whole items."""
        for at in range(0, len(data), 512):
            piece = data[at : at + 512]
            while self._out.room < len(piece):
                await self.pipe.engine.changed()
            self._out.wrote(fill(self._out.space(len(piece)), piece), kind)
            self.pipe.engine.drive()

    async def take(self) -> bytes:
        """Everything up to the peer's end; returns what the file is then."""
        while not self._in.drained:
            if views := self._in.readable(1 << 16):
                self._take(b"".join(views))
                self.pipe.engine.drive()
            else:
                await self.pipe.engine.changed()
        self.pipe.engine.delivered_end()
        return bytes(self.file)

    def _take(self, data: bytes) -> None:
        kind = self._in.kind
        if kind is Record.DATA:
            self.assembly.data([memoryview(data)])
            self.file += data
        elif kind is Record.ERRORS:
            self.errors += data
        else:
            for item in self._items.add(kind, data):
                self._hear(kind, item)
        self._in.took(len(data))

    def _hear(self, kind: Record, item: bytes) -> None:
        if kind is Record.TOTAL:
            self.assembly.total(Total.unpack(item))
        else:
            offset, length = self.assembly.same(unpack_same(item))
            self.file += self._base[offset : offset + length]
