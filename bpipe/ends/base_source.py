"""BaseSource: what a receiver says of its base, and nothing else: its length, and then digests."""

from __future__ import annotations

from typing import Final

from bpipe.ends.base import BaseFile
from bpipe.ends.local import Source
from bpipe.engine import Engine
from bpipe.protocol.assembly import Assembly
from bpipe.protocol.blocks import DIGEST
from bpipe.protocol.records import ITEMS, Record, RecordWriter
from bpipe.protocol.ring import Views, fill

AHEAD: Final = 1 << 30  # bytes of the base that are told before the stream comes to them
PORTION: Final = 4 << 20  # bytes that are read before their digests are told
MOST: Final = 1 << 10  # digests in one record: those of holes come quickly


class BaseSource(Source):
    """Hashes ahead of the stream, until that has passed the base, or has come to its end.

    ``wanted`` and ``move`` belong to a thread of its own; ``move`` blocks while the disk does.
    """

    def __init__(self, engine: Engine, assembly: Assembly, file: BaseFile) -> None:
        super().__init__(engine, "the base")
        self._assembly = assembly
        self._file = file
        self._begun = False
        self._next = 0  # the block whose digest is told next

    def wanted(self) -> bool:
        """Whether there is something to do, or nothing more ever."""
        return self._over or (self._near > 0 and self.spacious and self.half.room >= DIGEST)

    def move(self) -> bool:
        """Tell something, if there is room for it; returns whether there may be more."""
        if self._over:
            self.ended()
            return False
        if not self._begun:
            self._tell_base()
        else:
            self._tell_digests(min(self._near, MOST))
        return True

    @property
    def _over(self) -> bool:
        """Whether nobody needs to hear more."""
        engine, base = self.engine, self._assembly.base
        if self.refused or engine.failure is not None:
            return True
        passed = self._assembly.at > self._next * base.block  # of one who compares nothing
        return self._begun and (
            self._next == base.blocks or passed or engine.reader.mark is not None
        )

    @property
    def _near(self) -> int:
        """How many blocks, from the next one on, are near enough to where the stream is."""
        base = self._assembly.base
        last = (self._assembly.at + AHEAD) // base.block + 1
        return min(last, max(base.blocks, 1)) - self._next

    def _tell_base(self) -> None:
        views = self.lend(ITEMS[Record.BASE])
        if sum(map(len, views)) == ITEMS[Record.BASE]:
            self._put(views, self._assembly.base.pack(), Record.BASE)
            self._begun = True

    def _tell_digests(self, most: int) -> None:
        views = self.lend(most * DIGEST)
        most = sum(map(len, views)) // DIGEST
        digests, read = b"", self._file.read
        while len(digests) < most * DIGEST and self._file.read - read < PORTION:
            digests += self._file.digest(self._next)
            self._next += 1
        self._assembly.told(digests)
        self._put(views, digests, Record.DIGESTS)

    def _put(self, views: Views, content: bytes, kind: Record) -> None:
        assert isinstance(self.half, RecordWriter)
        self.half.wrote(fill(views, content), kind)
        self.engine.nudge()
