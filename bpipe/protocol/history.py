"""What became of the links that a session had."""

from __future__ import annotations

from typing import NamedTuple

from bpipe.errors import BpipeError, LinkLost


class Loss(NamedTuple):
    """What a channel leaves behind."""

    cause: LinkLost
    heard_at: float  # when the last byte came
    told: bool = False  # the peer was heard after an ACK of its end mark
    progress: bool = False  # a byte of a stream, or an ACK that moved, came over this link


class OfSlot(NamedTuple):
    """What became of the links in one slot."""

    links: int = 0  # attached so far
    cause: BpipeError | None = None  # why the last was lost, or the last attempt failed


class History:
    """Of one session. Times are in seconds, counts in bytes."""

    def __init__(self) -> None:
        self.links = 0  # attached so far
        self.beside = 0  # of these: while there were others
        self.replayed = 0  # begun on one link and begun again on a later one
        self.told = False  # the peer may know that its stream was delivered to its end
        # Why the last link was lost, or the last attempt failed.
        self.last_cause: BpipeError | None = None
        self.lost_at = 0.0  # the last link
        self._attached_at = 0.0
        self._heard_at: float | None = None  # the last byte before there was no link
        self._latest = 0.0  # the last byte over any link that was lost
        self._slots: dict[int, OfSlot] = {}

    def slot(self, slot: int) -> OfSlot:
        """What became of the links in this one."""
        return self._slots.get(slot, OfSlot())

    def attached(self, replayed: int, now: float, slot: int = 0, *, others: bool = False) -> None:
        """There is a link, on which so much is sent again; perhaps beside others."""
        self.links += 1
        self.beside += others
        self.replayed += replayed
        self._slots[slot] = self.slot(slot)._replace(links=self.slot(slot).links + 1)
        if not others:
            self._attached_at = now

    def repeated(self, count: int) -> None:
        """So much was begun again beside what is new."""
        self.replayed += count

    def lost(self, loss: Loss, now: float, slot: int = 0, *, others: bool = False) -> None:
        """The link is gone; perhaps there are others."""
        self.failed(loss.cause, slot)
        self.told |= loss.told
        self._latest = max(self._latest, loss.heard_at)
        if not others:
            self.lost_at, self._heard_at = now, self._latest

    def failed(self, cause: BpipeError, slot: int | None = None) -> None:
        """An attempt to get a link has failed; None: nobody knows in which slot."""
        self.last_cause = cause
        if slot is not None:
            self._slots[slot] = self.slot(slot)._replace(cause=cause)

    def away(self, now: float | None) -> float | None:
        """How long nothing was heard for want of a link; None if none was ever lost.

        That is from the last byte until ``now``, or (None) until the link that is attached.
        """
        if self._heard_at is None:
            return None
        return (self._attached_at if now is None else now) - self._heard_at
