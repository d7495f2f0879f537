"""Records, as the page bpipe-protocol(7) has them; a part of the second implementation."""

from __future__ import annotations

import os
import struct
from hashlib import sha256

RECORDS, FILE = 1, 2  # the bits of needs
DATA, ERRORS, BASE, DIGESTS, SAME, TOTAL = range(1, 7)
ITEMS = {BASE: 16, DIGESTS: 32, SAME: 8, TOTAL: 40}
SAID = DATA, ERRORS  # where no stream goes to a file
BLOCK = 262144
MOST_BLOCKS = 1048576
LEAST_WINDOW = 1024

_HEADER = struct.Struct(">B3sI")
_MOST = 1 << 20


class BadRecord(Exception):
    """Something that cannot be the record of a stream."""


def record(content: bytes, kind: int = DATA) -> bytes:
    """Return a record with that content."""
    return _HEADER.pack(kind, bytes(3), len(content)) + content


def suit(needs: int, peers: int, window: int, peers_window: int) -> bool:
    """Return whether two ends with these can have a session."""
    both = needs & peers & FILE or peers & (FILE | RECORDS) == FILE
    small = (needs | peers) & FILE and min(window, peers_window) < LEAST_WINDOW
    return not (both or small)


class Content:
    """What is in the records of a stream whose bytes come in pieces."""

    def __init__(self, kinds: tuple[int, ...] = SAID) -> None:
        self.kind = self.left = 0
        self.kinds = kinds

    def begin(self, buf: bytearray) -> int:
        """Take the next header off, if one is due and there; return how many bytes that were."""
        if self.left or len(buf) < _HEADER.size:
            return 0
        self.kind, zeros, self.left = _HEADER.unpack_from(buf)
        part = self.left % ITEMS.get(self.kind, 1)
        if self.kind not in self.kinds or any(zeros) or not 1 <= self.left <= _MOST or part:
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


class Items:
    """The items of records, whose bytes come in pieces."""

    def __init__(self) -> None:
        self.buf = bytearray()

    def take(self, kind: int, data: bytes) -> list[bytes]:
        """Return what is there as a whole."""
        self.buf += data
        size, found = ITEMS[kind], []
        while len(self.buf) >= size:
            found.append(bytes(self.buf[:size]))
            del self.buf[:size]
        return found


class Sender:
    """A stream to a file: what of it is said."""

    kinds = BASE, DIGESTS

    def __init__(self, window: int) -> None:
        self.quarter = window // 4  # of the smaller one
        self.length, self.block = -1, 0
        self.digests: list[bytes] = []
        self.items, self.rest = Items(), bytearray()
        self.at = self.same = self.sent = 0
        self.all = sha256()
        self.over = self.ended = self.done = False

    @property
    def hungry(self) -> bool:
        """Whether the producer may go on."""
        return self.length >= 0 and len(self.rest) < self.block + 65536

    def take(self, kind: int, data: bytes) -> None:
        """The receiver has said this."""
        for item in self.items.take(kind, data):
            if kind == DIGESTS:
                if len(self.digests) >= -(-self.length // (self.block or 1)):
                    raise BadRecord("a digest of no block")
                self.digests.append(item)
                continue
            if self.length >= 0:
                raise BadRecord("a second BASE")
            length, self.block, zero = struct.unpack(">QII", item)
            fits = self.block <= self.quarter and length <= MOST_BLOCKS * self.block
            if self.block < 64 or zero or (length and not fits):
                raise BadRecord(f"BASE {length} in {self.block}")
            self.length = length

    def finish(self, _how: int, _status: int) -> None:
        """The receiver says no more."""
        if self.length < 0:
            raise BadRecord("a receiver without BASE")
        self.over = True

    def add(self, data: bytes) -> None:
        """The producer has written this; nothing: it has ended."""
        self.rest += data
        self.ended = not data

    def due(self) -> bytes:
        """Return the records that can be said now."""
        out = b""
        while len(self.rest) >= (self.block or 1 << 40) or (self.rest and self.ended):
            said = self._block()
            if said is None:
                break
            out += said
        if self.ended and not (self.rest or self.done):
            self.done = True
            out += self._same() + record(struct.pack(">Q", self.at) + self.all.digest(), TOTAL)
        elif self.same and not (self.at // self.block < len(self.digests)):
            out += self._same()
        return out

    def _same(self) -> bytes:
        said = record(struct.pack(">Q", self.same), SAME) if self.same else b""
        self.same = 0
        return said

    def _block(self) -> bytes | None:
        number = self.at // self.block
        piece = bytes(self.rest[: self.block])
        may_wait = self.at < self.length and not self.over
        if may_wait and number >= len(self.digests):
            return None
        digest = sha256(piece).digest()
        del self.rest[: self.block]
        self.at += len(piece)
        self.all.update(digest)
        if self.at - len(piece) < self.length and self.digests[number : number + 1] == [digest]:
            self.same += 1
            return b""
        self.sent += len(piece)
        parts = [piece[at : at + _MOST] for at in range(0, len(piece), _MOST)]
        return self._same() + b"".join(record(part) for part in parts)


class Receiver:
    """A file, which is written when all of it is there."""

    kinds = DATA, ERRORS, SAME, TOTAL

    def __init__(self, path: str, window: int) -> None:
        self.path, self.items, self.content = path, Items(), bytearray()
        self.whole = self.short = False
        self.old = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                self.old = file.read()
        self.block = min(BLOCK, window // 4)
        self.old = self.old[: MOST_BLOCKS * self.block]
        self.digests = self._digests(self.old)

    def _digests(self, data: bytes) -> list[bytes]:
        size = self.block
        return [sha256(data[at : at + size]).digest() for at in range(0, len(data), size)]

    def told(self) -> bytes:
        """Return the records that say what there is."""
        out = record(struct.pack(">QII", len(self.old), self.block, 0), BASE)
        for at in range(0, len(self.digests), 1000):
            out += record(b"".join(self.digests[at : at + 1000]), DIGESTS)
        return out

    def take(self, kind: int, data: bytes) -> None:
        """The sender has said this."""
        if self.whole or (self.short and kind != TOTAL):
            raise BadRecord("more after the end")
        if kind == DATA:
            self.content += data
            return
        for item in self.items.take(kind, data):
            if kind == SAME:
                self._same(*struct.unpack(">Q", item))
            else:
                self._total(*struct.unpack(">Q32s", item))

    def _same(self, count: int) -> None:
        first, within = divmod(len(self.content), self.block)
        if within or not 1 <= count <= len(self.digests) - first or self.short:
            raise BadRecord(f"SAME {count} at {len(self.content)}")
        self.content += self.old[len(self.content) : (first + count) * self.block]
        self.short = len(self.content) % self.block > 0

    def _total(self, length: int, digest: bytes) -> None:
        right = sha256(b"".join(self._digests(bytes(self.content)))).digest()
        if self.whole or (length, digest) != (len(self.content), right):
            raise BadRecord("a TOTAL that is not right")
        self.whole = True

    def finish(self, how: int, status: int) -> None:
        """The stream has ended: give the file its name."""
        if not self.whole or how > 1 or status:
            raise OSError("the stream is not whole")
        part = self.path + ".other"
        with open(part, "wb") as file:
            file.write(self.content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, self.path)
