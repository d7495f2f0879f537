"""BackedReader: the receiving half of a session.

The cursors, both absolute offsets of the stream that the peer sends::

    delivered <= received <= delivered + capacity

``received``   everything below it has arrived here; a new link carries on from it
``delivered``  what the local consumer took; this is what is acknowledged, never ``received``

They are two numbers because they answer two questions: an acknowledgement promises that the
consumer has the bytes, and a resumption asks only what need not be sent again.

Threads. ``readable`` and ``took`` belong to the consumer's thread; everything else, to the
thread that owns the session.
"""

from __future__ import annotations

from bpipe.errors import ProtocolError
from bpipe.protocol.ring import Ring, Views
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Stop

_SCRATCH = 1 << 16  # bytes read at once of what is going to be discarded


class BackedReader:
    """A bounded buffer of what has arrived and was not yet taken; ``capacity`` is in bytes."""

    def __init__(self, capacity: int) -> None:
        self.received = 0
        self.acknowledged = 0  # the number of the last ACK, on whichever link
        self.mark: int | None = None  # the offset of the peer's end mark, once it has come
        self.stopped: int | None = None  # we asked the peer to stop; nothing from here on is taken
        self.why = Stop.UNWANTED  # we did
        self.gone = False  # because the consumer has gone, who has taken everything before
        self.ended = UNTOLD  # how the peer's producer did, once the mark has come
        self.exit = UNTOLD  # of a program behind it, where the mark does not tell that, but BYE
        self.discarding = False  # after an abort: what still comes is neither kept nor counted
        self.done = False  # the consumer has taken the end of the stream as well
        self.beside = 0  # bytes of what was taken that are no data: headers of records, errors
        self._ring = Ring(capacity)
        self._scratch: memoryview | None = None

    # --- the consumer ---

    def readable(self, limit: int, after: int = 0) -> Views:
        """The next bytes for the consumer, at most ``limit``; ``[]`` when there are none now.

        ``after`` so many that it has, and has not taken yet.
        """
        return self._ring.readable(self._ring.start + after, limit)

    def took(self, count: int) -> None:
        """The consumer accepted the first ``count`` bytes of what ``readable`` said."""
        self._ring.release(self._ring.start + count)

    def took_records(self, beside: int, data: int) -> None:
        """The same where ``beside`` bytes of them are headers, or other than data."""
        self.beside += beside
        self.took(beside + data)

    # --- the session ---

    @property
    def capacity(self) -> int:
        """The window that the peer is given, in bytes."""
        return self._ring.capacity

    @property
    def buffered(self) -> int:
        """The bytes that wait for the consumer."""
        return self._ring.end - self._ring.start

    @property
    def ready(self) -> bool:
        """Whether the consumer has something to do: to take bytes, or to be closed."""
        start = self._ring.start
        return start < self._ring.end or start == self.mark

    @property
    def delivered(self) -> int:
        """The number for an ACK: the bytes that the consumer took, and one for the end mark."""
        return self._ring.start + self.done

    @property
    def unacknowledged(self) -> int:
        """How much of that no ACK has said yet."""
        return self._ring.start + self.done - self.acknowledged

    @property
    def drained(self) -> bool:
        """Whether every byte of the stream was taken, so that the consumer can be closed."""
        return self.mark is not None and self._ring.start == self.mark

    def acknowledge(self) -> int:
        """The number for the ACK that is said now."""
        self.acknowledged = self._ring.start + self.done
        return self.acknowledged

    def close(self) -> None:
        """The consumer was closed after its last byte: the end mark is delivered."""
        assert self.drained
        self.done = True

    def discard(self) -> None:
        """The session has failed: what still comes is neither kept nor counted."""
        self.discarding = True

    def stop(self, why: Stop = Stop.UNWANTED) -> None:
        """Take no more: discard what waits and what will come, and count it as delivered.

        Only when the thread that owns the session is the consumer, too.
        """
        if self.stopped is None:
            self.stopped, self.why = self._ring.start, why
            self._ring.release(self._ring.end)
            self._close_if_drained()

    def consumer_gone(self) -> None:
        """The consumer has closed its pipe after the last byte that has arrived.

        Nothing that still comes is delivered; there should be nothing but the end mark.
        """
        assert not self.buffered
        if self.stopped is None:
            self.stopped, self.why, self.gone = self._ring.start, Stop.CONSUMER_GONE, True
            self._close_if_drained()

    @property
    def missed(self) -> bool:
        """Whether there was more for a consumer that has gone."""
        cut = self.ended.how is Ended.CUT
        return self.gone and (cut or self.received - (self.mark is not None) > self.delivered)

    def check(self, number: int, count: int) -> None:
        """A DATA frame begins; ProtocolError if it is not the next one, or too much."""
        if number != self.received or self.mark is not None:
            raise ProtocolError("data that is not the next")
        if number + count > self._ring.start + self._ring.capacity:
            raise ProtocolError("more data than the window allows")

    def lend(self, limit: int, after: int = 0) -> Views:
        """Where the next bytes of the stream belong: at most ``limit`` (``check`` allowed them).

        ``after`` so many that have not come yet.
        """
        if self.stopped is None and not self.discarding:
            return self._ring.writable(limit, after)
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH))
        return [self._scratch[:limit]]

    def receive(self, count: int) -> None:
        """``count`` bytes arrived where ``lend`` said."""
        self.received += count
        if self.discarding or self.gone:
            return
        if self.stopped is None:
            self._ring.commit(count)
        else:
            self._ring.skip(count)

    def receive_passed(self, count: int) -> None:
        """``count`` bytes went to the consumer by another way, while it lent its cursor."""
        self.received += count
        self._ring.skip(count)

    @property
    def passing(self) -> bool:
        """Whether what comes may go straight to the consumer: nothing waits before it."""
        ring = self._ring
        return ring.start == ring.end and self.stopped is None and not self.discarding

    def receive_mark(self, number: int, ended: Finish = UNTOLD) -> None:
        """A FIN came; ProtocolError if it is not the next thing in the stream."""
        if number != self.received or self.mark is not None:
            raise ProtocolError("an end mark that is not the next")
        self.ended, self.mark = ended, number  # in this order: the consumer asks for the mark
        self.received += 1
        self._close_if_drained()

    def exited(self, how: Finish) -> None:
        """The peer is done, and tells how a program has ended that went on after its output."""
        self.exit = how

    @property
    def left_early(self) -> bool:
        """Whether there was more, as far as is known, for a program that has stopped reading."""
        if self.stopped is None or self.why is not Stop.CONSUMER_GONE:
            return False
        more = self.received - (self.mark is not None) > self.stopped
        return more or self.ended.how is Ended.CUT

    @property
    def finish(self) -> Finish:
        """How the peer's producer has ended, as far as is known; RUNNING: that was never told."""
        later = self.ended.how in (Ended.RUNNING, Ended.CUT) and self.exit.final
        return self.exit if later else self.ended

    def _close_if_drained(self) -> None:
        if self.stopped is not None and self.drained and not (self.discarding or self.missed):
            self.done = True
