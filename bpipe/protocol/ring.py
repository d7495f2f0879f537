"""Memory for the bytes between two absolute offsets of a stream.

Theory of operation. A stream's bytes are numbered from 0 for ever; a ring holds those from
``start`` up to ``end``, at most ``capacity`` of them. The memory is one anonymous mapping, cut
into pages of the ring's own size: a table says in which page an offset lies, and pages come
from a stack of free ones. The page that was freed last is used next, so a stream
whose consumer keeps up goes through the same few pages for ever: the resident memory, and the
processor's cache, see what is in flight and not the capacity.

Threads. A ring has one producer, which alone moves ``end`` (``writable``, ``commit``), and one
consumer, which alone moves ``start`` (``release``); the two may be different threads. Neither
takes a lock: each cursor is one integer with one writer, a table entry is written before
``end`` covers it and is reused only after ``start`` has passed it, and the free stack is a list,
whose ``append`` and ``pop`` are atomic. ``readable`` may be called by whoever knows that the
bytes stay: the consumer, or the owner of a cursor that holds the consumer back.
"""

from __future__ import annotations

import mmap

Views = list[memoryview]

LARGEST_PAGE = 1 << 20


def fill(views: Views, data: bytes | memoryview) -> int:
    """Put ``data`` where these are, as far as there is room; returns how much of it that was."""
    done = 0
    for view in views:
        part = data[done : done + len(view)]
        view[: len(part)] = part
        done += len(part)
    return done


class Ring:
    """A bounded FIFO of bytes, addressed by absolute offsets; it lends its memory in pieces.

    ``capacity`` is in bytes, at least 1. The memory costs nothing until it is written.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a ring holds at least one byte")
        self.capacity = capacity
        self.start = 0  # the offset of the oldest byte held
        self.end = 0  # the offset after the newest byte held
        self._page = min(LARGEST_PAGE, 1 << (capacity // 4).bit_length())
        # `capacity` bytes can begin and end in mid-page, and so touch one page more.
        pages = -(-capacity // self._page) + 1
        self._memory = memoryview(
            mmap.mmap(-1, pages * self._page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        )
        self._free = list(range(pages - 1, -1, -1))
        self._table = [0] * pages  # by page number of the stream, modulo its length
        self._mapped = 0  # offsets below this have had their page; moved by the producer

    def __len__(self) -> int:
        """The bytes held, right now."""
        return self.end - self.start

    def writable(self, limit: int, after: int = 0) -> Views:
        """The memory after ``end``: at most ``limit`` bytes, fewer when full, ``[]`` when it is.

        ``after`` so many that are left free for now.
        """
        offset = self.end + after
        count = min(limit, self.start + self.capacity - offset)
        while self._mapped < offset + count:
            self._table[self._mapped // self._page % len(self._table)] = self._free.pop()
            self._mapped += self._page
        return self._pieces(offset, count)

    def commit(self, count: int) -> None:
        """``count`` bytes were written to the memory that ``writable`` lent."""
        self.end += count

    def readable(self, offset: int, limit: int) -> Views:
        """The bytes from ``offset`` (within ``start..end``) on, at most ``limit`` of them."""
        return self._pieces(offset, min(limit, self.end - offset))

    def release(self, offset: int) -> None:
        """The bytes below ``offset`` (within ``start..end``) are not needed any more."""
        for number in range(self.start // self._page, offset // self._page):
            self._free.append(self._table[number % len(self._table)])
        self.start = offset

    def skip(self, count: int) -> None:
        """``count`` bytes pass by an empty ring without touching its memory.

        Only for a caller that is producer and consumer at once.
        """
        assert self.start == self.end
        self.end += count
        self.release(min(self.end, self._mapped))
        self._mapped = max(self._mapped, self.end // self._page * self._page)
        self.start = self.end

    def _pieces(self, offset: int, count: int) -> Views:
        pieces = []
        while count > 0:
            number, within = divmod(offset, self._page)
            length = min(count, self._page - within)
            place = self._table[number % len(self._table)] * self._page + within
            pieces.append(self._memory[place : place + length])
            offset += length
            count -= length
        return pieces
