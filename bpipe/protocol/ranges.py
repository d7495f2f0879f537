"""Ranges: a set of offsets of a stream, as the few pieces that it consists of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Sorted pieces, each from its first offset up to, and without, its end.

    No two of them overlap or adjoin.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def copy(self) -> Ranges:
        """The same, to be changed by itself."""
        made = Ranges()
        made.add_all(self)
        return made

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends)

    @property
    def size(self) -> int:
        """The number of offsets."""
        return sum(self._ends) - sum(self._starts)

    @property
    def end(self) -> int:
        """The end of the last piece; 0 if there is none."""
        return self._ends[-1] if self._ends else 0

    def add(self, start: int, end: int) -> None:
        """All from ``start`` up to ``end``; what is there already stays."""
        first, after = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < after:
            start, end = min(start, self._starts[first]), max(end, self._ends[after - 1])
        self._starts[first:after] = [start]
        self._ends[first:after] = [end]

    def remove(self, start: int, end: int) -> None:
        """All from ``start`` up to ``end``, as far as it is there."""
        first, after = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first >= after:
            return
        left = (self._starts[first], start), (end, self._ends[after - 1])
        kept = [(low, high) for low, high in left if low < high]
        self._starts[first:after] = [low for low, _ in kept]
        self._ends[first:after] = [high for _, high in kept]

    def add_all(self, others: Ranges) -> None:
        """All that is in these."""
        for start, end in others:
            self.add(start, end)

    def remove_all(self, others: Ranges) -> None:
        """All that is in these."""
        for start, end in others:
            self.remove(start, end)

    def drop_below(self, offset: int) -> None:
        """Nothing below it is needed any more."""
        self.remove(0, offset)

    def end_at(self, offset: int) -> int | None:
        """The end of the piece in which this is; None if it is in none."""
        at = bisect_right(self._ends, offset)
        return self._ends[at] if at < len(self) and self._starts[at] <= offset else None

    def start_after(self, offset: int) -> int | None:
        """Where the first piece begins that does so behind this; None if none does."""
        at = bisect_right(self._starts, offset)
        return self._starts[at] if at < len(self) else None

    def adjoins(self, offset: int) -> bool:
        """Whether what begins here makes a piece longer, and not one more."""
        at = bisect_left(self._ends, offset)
        return at < len(self) and self._starts[at] <= offset

    def lowest_outside(self, others: Ranges) -> tuple[int, int] | None:
        """The first piece, or part of one, that is not in those; None if all is."""
        for start, end in self:
            while start < end and (there := others.end_at(start)) is not None:
                start = there
            if start < end:
                following = others.start_after(start)
                return start, end if following is None else min(end, following)
        return None

    def merge(self, most: int) -> None:
        """Be at most so many pieces: the smallest gaps between them are counted in."""
        while len(self) > most:
            gaps = [start - end for start, end in zip(self._starts[1:], self._ends)]
            at = gaps.index(min(gaps))
            del self._starts[at + 1], self._ends[at]
