"""Records, as the page bpipe-protocol(7) has them; a part of the second implementation."""

from __future__ import annotations

import struct

RECORDS = 1  # the bit of needs
DATA, ERRORS = 1, 2

_HEADER = struct.Struct(">B3sI")
_MOST = 1 << 20


class BadRecord(Exception):
    """Something that cannot be the record of a stream."""


def record(content: bytes, kind: int = DATA) -> bytes:
    """Return a record with that content."""
    return _HEADER.pack(kind, bytes(3), len(content)) + content


class Content:
    """What is in the records of a stream whose bytes come in pieces."""

    def __init__(self) -> None:
        self.kind = self.left = 0

    def begin(self, buf: bytearray) -> int:
        """Take the next header off, if one is due and there; return how many bytes that were."""
        if self.left or len(buf) < _HEADER.size:
            return 0
        self.kind, zeros, self.left = _HEADER.unpack_from(buf)
        if self.kind not in (DATA, ERRORS) or any(zeros) or not 1 <= self.left <= _MOST:
            raise BadRecord(f"a record of kind {self.kind} and {self.left} bytes")
        del buf[: _HEADER.size]
        return _HEADER.size

    def end(self, buf: bytearray, cut: bool) -> int:
        """The stream has ended; return how many bytes of a header nobody will take."""
        if (self.left or buf) and not cut:
            raise BadRecord("a stream that ends within a record")
        size = len(buf)
        buf.clear()
        self.left = 0
        return size
