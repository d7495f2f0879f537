"""A stream that consists of records, as its producer knows it, and how far a consumer is in it.

How a stream was cut is known from the producer itself, and not from what comes: from that follows
how far a consumer is, with the headers, which it never sees.
"""

from __future__ import annotations

from collections import Counter

from bpipe.protocol.records import RECORD_HEADER, Record
from tests.simulation.programs import PATTERN

_BEGINS = {Record.DATA: 0, Record.ERRORS: 1 << 17}  # where in the pattern what is of this kind does


def part(kind: Record, at: int, count: int) -> bytes:
    """What is written of this kind, from here on."""
    begin = _BEGINS[kind] + at
    return PATTERN[begin : begin + count]


class Tape:
    """A stream as its producer has cut it: the records, in their order."""

    def __init__(self) -> None:
        self.records: list[tuple[Record, int]] = []
        self.counts: Counter[Record] = Counter()  # bytes, without the headers

    def wrote(self, kind: Record, count: int) -> None:
        """The next record."""
        self.records.append((kind, count))
        self.counts[kind] += count

    @property
    def content(self) -> int:
        """The bytes in all of them, without the headers."""
        return self.counts.total()

    def with_headers(self, content: int) -> int:
        """How far a consumer is in the stream that has taken so much of what is in the records."""
        total = 0
        for _, count in self.records:
            if content <= 0:
                break
            total += RECORD_HEADER + min(count, content)
            content -= count
        return total + max(0, content)


class Reading:
    """How far a consumer has come on a tape."""

    def __init__(self) -> None:
        self.passed = 0  # bytes of the stream, with headers
        self.counts: Counter[Record] = Counter()
        self._number = 0  # the record
        self._within = 0  # bytes of it

    def read(self, tape: Tape, kind: Record, data: bytes) -> bool:
        """Whether this comes next."""
        right = data == part(kind, self.counts[kind], len(data))
        self.counts[kind] += len(data)
        left = len(data)
        while left and self._number < len(tape.records):
            its, count = tape.records[self._number]
            right = right and its is kind
            step = min(left, count - self._within)
            self.passed += step + (0 if self._within else RECORD_HEADER)
            self._within, left = self._within + step, left - step
            if self._within == count:
                self._number, self._within = self._number + 1, 0
        return right and not left


class Taped:
    """An end that tells how it has cut its stream."""

    tape: Tape
