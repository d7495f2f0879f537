"""What really crosses of a stream to a file: the records in the frames that a sender begins."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from bpipe.protocol.records import RECORD_HEADER, Record
from bpipe.protocol.wire import Kind


class Crossing:
    """Reads the frames of one writer, each byte once, however often it is sent."""

    def __init__(self, writer: Any) -> None:
        self.bytes: Counter[Record] = Counter()  # of content
        self.records: Counter[Record] = Counter()
        self.blocks = 0  # that are the same
        self.base: tuple[int, int] | None = None  # its length, and that of a block
        self._seen = 0  # bytes of the stream
        self._header = b""
        self._left = 0  # bytes of the record that has begun
        self._kind = Record.DATA
        self._content = b""  # of it, if it is short
        self._watch(writer)

    def _watch(self, writer: Any) -> None:
        """From its beginning on."""
        begin = writer.next_frame

        def next_frame(limit: int) -> Any:
            piece = begin(limit)
            if piece is not None and piece.kind is Kind.DATA:
                new = piece.number + len(piece.payload) - self._seen
                if new > 0:
                    self._read(bytes(piece.payload[-new:]))
            return piece

        writer.next_frame = next_frame

    def _read(self, data: bytes) -> None:
        self._seen += len(data)
        while data:
            if not self._left:
                missing = RECORD_HEADER - len(self._header)
                self._header, data = self._header + data[:missing], data[missing:]
                if len(self._header) == RECORD_HEADER:
                    self._begin()
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            self.bytes[self._kind] += len(part)
            if self._kind in (Record.SAME, Record.BASE):
                self._content += part
                if not self._left:
                    self._end()

    def _begin(self) -> None:
        word, self._left = struct.unpack(">II", self._header)
        self._kind, self._header, self._content = Record(word >> 24), b"", b""
        self.records[self._kind] += 1

    def _end(self) -> None:
        """A record of which the content matters is whole."""
        if self._kind is Record.BASE:
            self.base = struct.unpack(">QI4x", self._content)
        else:
            counts = struct.unpack(f">{len(self._content) // 8}Q", self._content)
            self.blocks += sum(counts)
