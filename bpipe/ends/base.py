"""BaseFile: reads and hashes what lies there already, block by block; holes are not read."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from bpipe.ends.part import Target
from bpipe.protocol.blocks import DIGEST, Base

UNLIKE: Final = bytes(DIGEST)  # the digest of what cannot be read: nobody finds its like

_READ: Final = 1 << 20  # bytes at once


class BaseFile:
    """The part as far as it goes, and FILE beyond it. Belongs to one thread, and blocks."""

    def __init__(self, target: Target, base: Base) -> None:
        self.read = 0  # bytes so far
        self._target = target
        self._disk = target.disk
        self._base = base
        self._buffer = memoryview(bytearray(min(_READ, base.block)))
        self._zeros: dict[int, bytes] = {}  # the digest of so many
        self._data: dict[int, tuple[int, int]] = {}  # of each: no bytes lie from here to there
        self._settled = False

    def digest(self, number: int) -> bytes:
        """Of this block. Nothing is like one that cannot be read, so it is sent."""
        at = number * self._base.block
        end = min(at + self._base.block, self._base.length)
        try:
            self._settle()
            if self._is_hole(at, end):
                return self._of_zeros(end - at)
            return self._hash(at, end)
        except OSError:
            return UNLIKE

    def _settle(self) -> None:
        """What is written to FILE from now on is noticed in the end."""
        if not self._settled and self._target.old >= 0:
            self._disk.settle(self._disk.stat(self._target.old))
        self._settled = True

    def _parts(self, at: int, end: int) -> list[tuple[int, int, int]]:
        """Where this range lies: descriptors, and where it begins and ends there."""
        target, border = self._target, min(max(self._target.lies, at), end)
        parts = (target.part, at, border), (target.old, border, end)
        return [part for part in parts if part[1] < part[2]]

    def _is_hole(self, at: int, end: int) -> bool:
        return all(self._is_empty(*part) for part in self._parts(at, end))

    def _is_empty(self, descriptor: int, at: int, end: int) -> bool:
        """Whether no bytes lie there; the system is asked once for each hole."""
        begin, data = self._data.get(descriptor, (0, 0))
        if not begin <= at < data:
            found = self._disk.next_data(descriptor, at)
            data = 1 << 63 if found is None else found
            self._data[descriptor] = at, data
        return data >= end

    def _of_zeros(self, count: int) -> bytes:
        if count not in self._zeros:
            self._zeros = {count: sha256(bytes(count)).digest()}
        return self._zeros[count]

    def _hash(self, at: int, end: int) -> bytes:
        found = sha256()
        for descriptor, begin, stop in self._parts(at, end):
            place = begin
            while place < stop:
                into = self._buffer[: stop - place]
                count = self._disk.read(descriptor, into, place)
                if not count:
                    return UNLIKE  # it has become shorter
                found.update(into[:count])
                place += count
                self.read += count
        return found.digest()
