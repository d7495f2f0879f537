"""What belongs to one link, and is forgotten with it: half frames, their size, what is due.

Everything here starts anew on each link, which is why it is one object that is thrown away and
not fields of the session that somebody has to remember to reset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpipe.protocol.frames import Frame, Frames
from bpipe.protocol.liveness import Liveness
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import LARGEST_PAYLOAD

ACK_DELAY: Final = 0.010  # seconds from delivery to its ACK, unless a quarter of the window is due
SMALLEST_FRAME: Final = 16 << 10  # the first DATA payload on a link
QUICK_FRAME: Final = 0.05  # seconds: a frame that went out faster lets the next be twice as long
SLOW_FRAME: Final = 0.2  # seconds: one that took longer lets the next be half as long


class Traffic:
    """What is on one link, and what is due there."""

    def __init__(self, heartbeat: float, now: float, frames: Frames) -> None:
        self.frames = frames
        self.liveness = Liveness(heartbeat, now)
        self.progress = False  # a byte of a stream, or an ACK that moved, came over this link
        self.lent: Views = []  # what goes out next; begun, so it has to go out whole
        self.frame_size = SMALLEST_FRAME
        self._frame_began: float | None = None
        self.ack_due = True  # an ACK is the first thing said on every link, after STOP
        self.stop_due = True
        self.abort_due = True
        self.bye_due = True
        self.bye_lent = False
        self.mark_lent = False  # an ACK of the peer's end mark is, or was, among what was lent
        self.told_at: float | None = None  # when that was on the link
        self.pong: int | None = None  # only the last of several: the queue is bounded
        self.ack_at: float | None = None

    # --- out ---

    def lend(self, small: bytes, frame: Views, now: float) -> None:
        """Put these on the link next: frames without a payload, then one of the stream."""
        if small:
            self.lent.append(memoryview(small))
        if frame:
            self.lent += frame
            self._frame_began = now

    def sent(self, count: int, now: float) -> bool:
        """The first ``count`` bytes that were lent are on the link; returns whether all are."""
        self.liveness.sent(now)
        done = 0
        while done < len(self.lent) and count >= len(self.lent[done]):
            count -= len(self.lent[done])
            done += 1
        del self.lent[:done]
        if self.lent:
            self.lent[0] = self.lent[0][count:]
            return False
        self._pace(now)
        return True

    def _pace(self, now: float) -> None:
        """A slow link is not to be stuck behind one huge frame."""
        if self._frame_began is None:
            return
        took, self._frame_began = now - self._frame_began, None
        if took < QUICK_FRAME:
            self.frame_size = min(self.frame_size * 2, LARGEST_PAYLOAD)
        elif took > SLOW_FRAME:
            self.frame_size = max(self.frame_size // 2, SMALLEST_FRAME)

    def consider_ack(
        self, reader: BackedReader, peer_window: int, now: float, *, last: bool = False
    ) -> None:
        """An ACK is due at once for the end mark, or for a quarter of what either end can hold.

        What the peer can hold is that of its other direction, which it has told. Anything less
        is due soon. A ``last`` ACK, before an ABORT or its answer, tells exactly how far it got.
        """
        moved = reader.delivered - reader.acknowledged
        if self.ack_due or moved <= 0:
            return
        if last or moved * 4 >= min(reader.capacity, peer_window) or reader.done:
            self.ack_due = True
        elif self.ack_at is None:
            self.ack_at = now + ACK_DELAY
        elif now >= self.ack_at:
            self.ack_due = True

    def acknowledge(self, reader: BackedReader) -> int:
        """The number for the ACK that is said now."""
        self.ack_due, self.ack_at = False, None
        self.mark_lent = reader.done
        return reader.acknowledge()

    @property
    def told(self) -> bool:
        """Whether the peer was heard since its end mark was acknowledged: so it may know."""
        return self.told_at is not None and self.liveness.heard_at > self.told_at

    # --- in ---

    def incoming(self, reader: BackedReader) -> Views:
        """Where the next bytes belong, in order; never empty."""
        return self.frames.incoming(reader)

    def received(self, count: int, reader: BackedReader, now: float) -> Iterator[Frame]:
        """``count`` bytes arrived where ``incoming`` said; the frames that they complete."""
        self.liveness.heard(now)
        return self.frames.received(count, reader)

    # --- time ---

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the peer was silent for too long."""
        if self.liveness.tick(now) or (self.ack_at is not None and now >= self.ack_at):
            self.ack_due, self.ack_at = True, None

    def deadline(self) -> float:
        """When ``tick`` has to be called."""
        deadline = self.liveness.deadline()
        return deadline if self.ack_at is None else min(deadline, self.ack_at)
