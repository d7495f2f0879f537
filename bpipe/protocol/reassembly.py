"""The receiving side of several links over one BackedReader.

Theory of operation. Each link brings its frames in order, and the frames of different links come as
they like. So DATA belongs anywhere within the window, and lands where it belongs: in the memory
that the reader has for it anyway. A list of ranges remembers what lies there beyond ``received``.
What is there already is read, and forgotten.
"""

from __future__ import annotations

from typing import Final

from bpipe.errors import ProtocolError
from bpipe.protocol.ranges import Ranges
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import UNTOLD, Finish

MOST_RANGES: Final = 4096  # beyond `received`: more holes than a peer can make that keeps the rules

_SCRATCH: Final = 1 << 16  # bytes read at once of what is there already


class Reassembly:
    """What the links of one session bring, put together; ``reader`` has it when it is in order."""

    def __init__(self, reader: BackedReader) -> None:
        self._reader = reader
        self.beyond = Ranges()  # what is there already, behind what is missing
        self._high = 0  # the end of the furthest frame that has begun
        self.mark: tuple[int, Finish] | None = None  # which may be here before what it ends
        self._scratch: memoryview | None = None

    def inflow(self) -> Inflow:
        """For the frames of one more link."""
        return Inflow(self)

    def check(self, number: int, count: int) -> None:
        """A DATA frame begins; ProtocolError if there is no place for it in the stream."""
        reader, end = self._reader, number + count
        if end > reader.delivered + reader.capacity:
            raise ProtocolError("more data than the window allows")
        if self.mark is not None and end > self.mark[0]:
            raise ProtocolError("data after the end mark")
        self._high = max(self._high, end)

    def lend(self, at: int, limit: int) -> Views:
        """Where the bytes from this offset on belong: at most ``limit``, which ``check`` allowed.

        Either none of them is there already, or all are.
        """
        reader = self._reader
        there = reader.received if at < reader.received else self.beyond.end_at(at)
        if there is not None:
            if self._scratch is None:
                self._scratch = memoryview(bytearray(_SCRATCH))
            return [self._scratch[: min(limit, there - at)]]
        following = self.beyond.start_after(at)
        if following is not None:
            limit = min(limit, following - at)
        return reader.lend(limit, at - reader.received)

    def receive(self, at: int, count: int) -> int:
        """So many bytes arrived where ``lend`` said; returns how many of them are new."""
        reader, beyond, end = self._reader, self.beyond, at + count
        if at == reader.received and not beyond:
            reader.receive(count)
            self._deliver_mark()
            return count
        if end <= reader.received or beyond.end_at(at) is not None:
            return 0
        beyond.add(at, end)
        if at > reader.received:
            if len(beyond) > MOST_RANGES:
                raise ProtocolError("too many gaps in the stream")
            return count
        ready = beyond.end_at(at)
        assert ready is not None
        beyond.drop_below(ready)
        reader.receive(ready - reader.received)
        self._deliver_mark()
        return count

    def receive_mark(self, number: int, ended: Finish = UNTOLD) -> bool:
        """A FIN came; returns whether it is new. ProtocolError if the end cannot be there."""
        reader = self._reader
        if self.mark is not None:
            if self.mark != (number, ended):
                raise ProtocolError("another end mark")
            return False
        if not self._high <= number <= reader.delivered + reader.capacity:
            raise ProtocolError("an end mark where the end cannot be")
        self.mark = number, ended
        self._deliver_mark()
        return True

    def _deliver_mark(self) -> None:
        if self.mark is not None and self.mark[0] == self._reader.received:
            self._reader.receive_mark(*self.mark)


class Inflow:
    """Where the frames of one link go: to ``Frames``, the same as a BackedReader."""

    def __init__(self, reassembly: Reassembly) -> None:
        self.received = 0  # bytes that are new by this link, and one for the end mark
        self.touched = False  # something of the stream has come since ``answered``
        self._reassembly = reassembly
        self._at = 0  # the offset of the next byte of the frame that is arriving

    def check(self, number: int, count: int) -> None:
        """A DATA frame begins; ProtocolError if there is no place for it in the stream."""
        self._reassembly.check(number, count)
        self._at, self.touched = number, True

    def lend(self, limit: int) -> Views:
        """Where the next bytes of the frame belong: at most ``limit``."""
        return self._reassembly.lend(self._at, limit)

    def receive(self, count: int) -> None:
        """``count`` bytes arrived there."""
        self.touched = True
        self.received += self._reassembly.receive(self._at, count)
        self._at += count

    def receive_mark(self, number: int, ended: Finish = UNTOLD) -> None:
        """A FIN came; ProtocolError if the end cannot be there."""
        self.touched = True
        self.received += self._reassembly.receive_mark(number, ended)

    def answered(self) -> None:
        """The peer is told, over this link, what was received."""
        self.touched = False
