"""Mutants of the streams: where a new link carries on, acknowledgement and window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpipe.protocol.pace import Pace
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.session import Session
from bpipe.protocol.wire import LARGEST_PAYLOAD, Position
from bpipe.protocol.writer import BackedWriter, Piece
from tests.simulation.mutants.registry import Patch, begin, mutant


def _resume(patch: Patch, where: Callable[[BackedWriter, int], int]) -> None:
    def resume(self: BackedWriter, received: int, window: int) -> None:
        self.sent, self.window = where(self, received), window

    patch.setattr(BackedWriter, "resume", resume)


def _inherit(patch: Patch, restore: Callable[[Any, Any], None]) -> None:
    """Have a channel begin with something of the last one."""
    attach = Session.attach

    def attach_and_restore(self: Any, channel: Any, position: Position, now: float) -> None:
        if (old := getattr(self, "last_channel", None)) is not None:
            restore(old, channel)
        self.last_channel = channel
        attach(self, channel, position, now)

    patch.setattr(Session, "attach", attach_and_restore)


@mutant
def _resume_early(patch: Patch) -> None:
    """resume a byte early"""
    _resume(patch, lambda writer, received: max(0, received - 1))


@mutant
def _resume_late(patch: Patch) -> None:
    """resume a byte late"""
    _resume(patch, lambda writer, received: min(received + 1, writer.high))


@mutant
def _keep_half_a_header(patch: Patch) -> None:
    """a half-read header kept across links"""

    def restore(old: Any, new: Any) -> None:
        new._frames._header[:] = old._frames._header
        new._frames._filled = old._frames._filled

    _inherit(patch, restore)


@mutant
def _forget_the_end_mark(patch: Patch) -> None:
    """end mark not replayed"""
    _resume(
        patch,
        lambda writer, received: (
            writer.high if received == writer.mark and writer.high > received else received
        ),
    )


@mutant
def _keep_what_was_lent(patch: Patch) -> None:
    """a half-sent frame finished on the next link"""

    def restore(old: Any, new: Any) -> None:
        new._lent = old._lent

    _inherit(patch, restore)


@mutant
def _ignore_the_window(patch: Patch) -> None:
    """window ignored"""
    next_frame = BackedWriter.next_frame

    def greedy(self: BackedWriter, limit: int) -> Piece | None:
        window, self.window = self.window, 1 << 62
        try:
            return next_frame(self, limit)
        finally:
            self.window = window

    patch.setattr(BackedWriter, "next_frame", greedy)


@mutant
def _make_frames_large(patch: Patch) -> None:
    """a frame as large as it can be, whatever the link has carried"""
    patch.setattr(Pace, "limit", lambda self, sent, acked, now, most=LARGEST_PAYLOAD: most)


@mutant
def _acknowledge_receipt(patch: Patch) -> None:
    """ACK on receipt"""
    patch.setattr(BackedReader, "delivered", property(lambda self: self.received))
    patch.setattr(
        BackedReader, "unacknowledged", property(lambda self: self.received - self.acknowledged)
    )

    def acknowledge(self: BackedReader) -> int:
        self.acknowledged = self.received
        return self.received

    patch.setattr(BackedReader, "acknowledge", acknowledge)


@mutant
def _acknowledge_changes_only(patch: Patch) -> None:
    """ACK only when the number moved"""

    def quiet(self: Any) -> None:
        moved = self._reader.acknowledged != self._reader.delivered
        self._ack_due = self._session.history.links == 0 or moved

    begin(patch, quiet)


@mutant
def _done_by_greeting(patch: Patch) -> None:
    """done by greeting numbers"""
    attach = Session.attach

    def believe(self: Session, channel: Any, position: Position, now: float) -> None:
        attach(self, channel, position, now)
        self.writer.acknowledge(position.received)

    patch.setattr(Session, "attach", believe)
