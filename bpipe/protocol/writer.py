"""BackedWriter: the sending half of a session. Replay is moving one cursor back.

The cursors, all absolute offsets of the stream that this end sends::

    acked <= sent <= high <= end        sent <= acked + window

``acked``   everything below it was delivered to the far consumer, and its memory is free
``sent``    where the next frame of this link begins; a new link sets it to what the peer holds
``high``    the end of the furthest frame that was ever begun, on any link
``end``     what the producer has written, and one more when the end mark is set

The end-of-stream mark takes one offset of its own, right after the last byte, so it is sent,
replayed and acknowledged like a byte; it needs no window.

Threads. ``space`` and ``wrote`` belong to the producer's thread, which may lend them to another
while it waits; everything else, to the thread that owns the session. The ring's ``end`` is the
only thing that the producer moves.
"""

from __future__ import annotations

from typing import NamedTuple

from bpipe.errors import ProtocolError
from bpipe.protocol.ring import Ring, Views
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Kind


class Piece(NamedTuple):
    """What one frame carries of the stream: bytes (DATA), or the end mark (FIN)."""

    kind: Kind
    number: int
    payload: memoryview
    finish: Finish = UNTOLD  # of FIN


class BackedWriter:
    """A bounded buffer of what was written and is not yet acknowledged.

    ``capacity`` is the most that it holds, in bytes. A full writer lends no space: the producer
    waits. Nothing that is unacknowledged is ever dropped.
    """

    def __init__(self, capacity: int) -> None:
        self.acked = 0
        self.sent = 0
        self.high = 0
        self.mark: int | None = None  # the offset of the end mark, once it is known
        self.window = 0  # the peer's receive buffer in bytes, constant once the session is up
        self.ended = UNTOLD  # how the producer did; set with the mark, and for ever
        self.exit = UNTOLD  # of a program of which the end of its output does not tell that
        self.stopped: int | None = None  # the peer takes nothing from here on
        self.unwanted = False  # because none of it is wanted, or no more
        self.asked = False  # whether there was to be more: the peer's consumer has gone
        self.producing = False  # a producer has begun, and has not ended
        self._turned_away = False  # it had more when it was stopped
        self._headers = 0  # bytes of what was written that are headers of records
        self._content = 0  # bytes that were told as confirmed, without headers
        self._ring = Ring(capacity)

    # --- the producer ---

    def space(self, limit: int) -> Views:
        """Where the next bytes belong: at most ``limit``; ``[]`` while the buffer is full."""
        return self._ring.writable(limit)

    def wrote(self, count: int) -> None:
        """The producer put ``count`` bytes where ``space`` said."""
        self._ring.commit(count)

    def wrote_record(self, header: int, count: int) -> None:
        """The same for a record: its header has so many bytes more."""
        self._headers += header
        self._ring.commit(header + count)

    @property
    def capacity(self) -> int:
        """The most that it holds, in bytes."""
        return self._ring.capacity

    @property
    def room(self) -> int:
        """The bytes that can be written before the buffer is full."""
        return self._ring.capacity - len(self._ring)

    def begin(self) -> None:
        """A producer begins: the session does not end before it has called ``finish``."""
        self.producing = True

    # --- the session ---

    @property
    def written(self) -> int:
        """The number of bytes that the producer has written."""
        return self._ring.end

    @property
    def end(self) -> int:
        """The offset after everything that is to be sent, the mark included."""
        return self._ring.end if self.mark is None else self.mark + 1

    @property
    def confirmed(self) -> int:
        """The number of bytes of which it is known that the far consumer took them.

        What is acknowledged after it has left was discarded.
        """
        ends = [self.acked, self.mark, self.stopped]
        return min(each for each in ends if each is not None)

    def content(self) -> tuple[int, int]:
        """What is written and what is confirmed, for people: without the headers of records.

        Of what is confirmed it is no more than is true, and in the end all of it.
        """
        if not self._headers:
            return self.written, self.confirmed
        written = self.written - self._headers
        self._content = max(self._content, self.confirmed - self._headers)
        return max(written, self._content), self._content

    @property
    def done(self) -> bool:
        """Whether the end mark, and so everything before it, is acknowledged."""
        return self.mark is not None and self.acked > self.mark

    @property
    def cut_short(self) -> bool:
        """Whether the peer did not take all of this stream, as far as is known."""
        if self.stopped is None:
            return False
        late = self.ended.how is Ended.CUT and not self.unwanted
        return self.written > self.stopped or self.producing or self._turned_away or late

    @property
    def had_more(self) -> bool:
        """Whether the producer has written more for a consumer that has gone."""
        return self.asked and self.stopped is not None and self.written > self.stopped

    @property
    def sendable(self) -> bool:
        """Whether there is a frame that the window allows."""
        return self.due > 0

    @property
    def due(self) -> int:
        """The bytes that frames may carry now; the mark counts for one."""
        return max(self.sent == self.mark, min(self.end, self.acked + self.window) - self.sent)

    @property
    def spare(self) -> int:
        """How many bytes more may be sent and unacknowledged, as far as the two buffers go."""
        return min(self.capacity, self.window) - (self.sent - self.acked)

    def finish(self, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        """The producer has ended: the mark is set after its last byte. Again: no effect.

        ``more``: it was stopped, and had more to write. A program whose output has ended may go on
        (``Ended.RUNNING``), until ``exited``.
        """
        self.producing = ended.how is Ended.RUNNING
        self._turned_away |= more
        if self.had_more:
            self.cut()
        if self.mark is None:
            self.mark = self._ring.end
            self.ended = Finish(Ended.CUT) if more else ended
            self.asked = False
        elif ended.final:
            self.exit = ended

    def stop(self, offset: int, *, consumer_gone: bool = False) -> bool:
        """The peer takes nothing from ``offset`` on: what was never sent is dropped.

        ``consumer_gone``: it has taken everything below. If the producer ends there as well,
        nothing is amiss, so it may go on, until ``cut``. Returns whether that acknowledges more.
        ProtocolError if the peer cannot stand there, or said otherwise before.
        """
        moved = False
        if self.stopped is None and self.confirmed <= offset <= self.high:
            self.stopped, self.unwanted = offset, not consumer_gone
            self.asked = consumer_gone and self.mark is None
            if consumer_gone:  # a full buffer would keep the producer from saying that it has ended
                moved = self.acknowledge(max(offset, self.acked))
            if not (consumer_gone and self.written == offset):
                self.cut()
        elif self.stopped != offset:
            raise ProtocolError("a STOP from where the peer cannot be")
        return moved

    def exited(self, how: Finish) -> None:
        """A program that went on when its output had ended has ended, too."""
        self.producing = False
        self.exit = how

    def abandon(self) -> None:
        """Nobody waits for the producer any more."""
        self.producing = False

    def cut(self) -> None:
        """What was never sent is dropped, and the peer is told that there was more."""
        self.asked = False
        if self.mark is None or self.mark > self.high:
            if self.ended.final:
                self.exit = self.ended
            self.mark = self.high
            self.ended = Finish(Ended.CUT)

    def next_frame(self, limit: int) -> Piece | None:
        """Begin the next frame, of at most ``limit`` bytes of payload; None if there is none.

        From here on the frame counts as begun: it has to go out whole on this link. Its payload
        lies in one piece, so that it can be sealed from where it lies.
        """
        if self.sent == self._ring.end and self.mark is None:
            return None
        if self.sent == self.mark:
            piece = Piece(Kind.FIN, self.mark, memoryview(b""), self.ended)
            self.sent += 1
        else:
            last = self._ring.end if self.mark is None else self.mark
            count = min(limit, last - self.sent, self.acked + self.window - self.sent)
            if count <= 0:
                return None
            piece = Piece(Kind.DATA, self.sent, self._ring.readable(self.sent, count)[0])
            self.sent += len(piece.payload)
        self.high = max(self.high, self.sent)
        return piece

    def again(self, offset: int, limit: int) -> Piece:
        """A frame of what was begun before and is not acknowledged: from there, at most so much."""
        if offset == self.mark:
            return Piece(Kind.FIN, self.mark, memoryview(b""), self.ended)
        last = self._ring.end if self.mark is None else self.mark
        return Piece(Kind.DATA, offset, self._ring.readable(offset, min(limit, last - offset))[0])

    def acknowledge(self, number: int) -> bool:
        """An ACK came; returns whether it moved anything. ProtocolError if it cannot be true."""
        if not self.acked <= number <= self.high:
            raise ProtocolError("an acknowledgement of what was not sent, or was taken back")
        moved = number > self.acked
        self.acked = number
        self.sent = max(self.sent, number)
        self._ring.release(number if self.mark is None else min(number, self.mark))
        return moved

    def holds(self, delivered: int, received: int, *, old: bool = False) -> bool:
        """Whether a peer that says it stands there can be resumed; ``old``: or has stood there."""
        return (old or self.acked <= delivered) and delivered <= received <= self.high

    def resume(self, received: int, window: int) -> None:
        """A new link: carry on from what the peer holds (``holds`` was asked before).

        ``window`` is the most that it can hold, in bytes.
        """
        self.sent, self.window = received, window

    def restart(self) -> None:
        """A new session takes over the stream from offset 0: nothing of it was ever sent."""
        assert self.high == 0
        self.window = 0
