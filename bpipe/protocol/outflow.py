"""What one of several links carries of a stream: to ``Lender``, the same as a BackedWriter.

What was given back goes first, then what is new, and then what others owe for too long. A slow link
begins nothing new while quicker ones need the window.
"""

from __future__ import annotations

import math

from bpipe.protocol.history import History
from bpipe.protocol.owed import PRESSED_AFTER, REPEAT_AFTER, Debt, Owed
from bpipe.protocol.writer import BackedWriter, Piece


class Outflow:
    """Of one link, whose ``debt`` is. Times are in seconds."""

    def __init__(self, writer: BackedWriter, owed: Owed, debt: Debt, history: History) -> None:
        self.due = 0  # bytes that the next frame may carry
        self.look_at = math.inf  # when there may be more, if nothing else happens
        self._writer = writer
        self._owed = owed
        self._debt = debt
        self._history = history
        self._start = 0  # of what is due
        self._new = False  # that was never begun
        self._now = 0.0

    @property
    def sent(self) -> int:
        """The bytes that were begun on this link."""
        return self._debt.sent

    @property
    def acked(self) -> int:
        """How many of the first of them have arrived, as far as is known."""
        return self._debt.acked

    def choose(self, now: float) -> None:
        """Look for what goes out next."""
        owed, debt, writer = self._owed, self._debt, self._writer
        self._now, self.due, self.look_at = now, 0, math.inf
        owed.drop_below(writer.acked)
        owed.tick(now)
        if debt.doubted and owed.paused(debt):
            return
        due = writer.due
        if not due and owed.below >= writer.high:  # all has arrived, and nothing is new
            return
        piece = owed.next_given(debt)
        new = piece is None and due > 0 and debt.admits(writer.sent)
        self._new = new and not owed.holds_up(debt, writer.spare, now)
        if self._new:
            self._start, self.due = writer.sent, due
            return
        if piece is None:
            pressed = writer.written > writer.sent or not writer.room
            least = PRESSED_AFTER if pressed else REPEAT_AFTER
            piece, self.look_at = owed.next_repeat(debt, now, least)
        if piece is not None:
            self._start, self.due = piece[0], piece[1] - piece[0]

    def next_frame(self, limit: int) -> Piece | None:
        """Begin what was chosen, at most so many bytes of it; None if that is nothing."""
        if not self.due:
            return None
        limit, self.due = min(limit, self.due), 0
        piece = self._writer.next_frame(limit) if self._new else None
        if piece is None:
            piece = self._writer.again(self._start, limit)
            self._history.repeated(len(piece.payload))
        end = self._start + max(1, len(piece.payload))
        self._owed.begin(self._debt, self._start, end, self._now)
        return piece

    def tick(self, now: float) -> None:
        """Look at the clock: what was waited for has come."""
        if now >= self.look_at:
            self.look_at = math.inf
