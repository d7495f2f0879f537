"""What is worth telling of a pipe: each status is compared with the one before."""

from __future__ import annotations

from typing import Final

from bpipe.net.clock import clock
from bpipe.report.events import (
    Connected,
    Lost,
    PeerFinished,
    Refused,
    Resumed,
    Retrying,
    Unsteady,
)
from bpipe.report.reporter import Reporter
from bpipe.report.settings import Level
from bpipe.status import State, Status

STRANGERS_EVERY: Final = 60.0  # seconds between two lines about callers that were refused
LOSS_PERIOD: Final = 60.0  # seconds in which losses are counted
MOST: Final = 10  # losses in it of which each is told

_AWAY: Final = (State.CONNECTING, State.RECONNECTING)


class Narrator:
    """Compares each status of a pipe with the one before, and tells what is new."""

    def __init__(self, reporter: Reporter, first: Status) -> None:
        self.losses = Losses()
        self._tell = reporter.tell
        self._last = self._told = first  # the last one, and that of the last connection
        self._first = True  # the next connection is the first one of a caller
        self._mute = False  # the last loss was not told, so what belongs to it is not either
        self._peer_finished = False  # told
        self._refused = 0  # the callers that were told of
        self._refusals_at = 0.0  # when to tell of more

    def look(self, now: Status) -> None:
        """Something may have changed."""
        last, told = self._last, self._told
        if now.state not in _AWAY and now.links > told.links:
            self._found(now)
        elif now.state in _AWAY and last.state is State.CONNECTED:
            self._lost(now)
        elif now.state in _AWAY and not self._mute and _worth_telling(now, last):
            retrying = Retrying(now.cause, now.cause_code, now.attempts, now.retry_in or 0.0)
            self._tell(retrying, Level.VERBOSE)
        if now.peer_finished and not (self._peer_finished or self._first):
            self._peer_finished = True
            self._tell(PeerFinished(now.received), Level.VERBOSE)
        self._count_strangers(now.refused)
        self._last = now

    def _found(self, now: Status) -> None:
        if self._first:
            self._tell(Connected(now.peer))
        elif not self._mute:
            self._tell(Resumed(now.peer, now.away, now.replayed - self._told.replayed))
        self._told, self._mute, self._first = now, False, False

    def _lost(self, now: Status) -> None:
        self._mute = not self.losses.count(clock())
        if not self._mute:
            self._tell(Lost(now.cause, now.cause_code, now.state))
        if now.state is State.CONNECTING:  # a listener: the next caller need not be the same
            self._told, self._first, self._peer_finished = now, True, False

    def sum_up(self) -> None:
        """Tell of the losses that were not told."""
        if losses := self.losses.sum_up(clock()):
            self._tell(Unsteady(losses, self._last.state))
            self._mute = False  # where things stand is known now

    def _count_strangers(self, refused: int) -> None:
        """Not a line for each: they would fill the disk."""
        if refused > self._refused and clock() >= self._refusals_at:
            self._tell(Refused(refused - self._refused))
            self._refused, self._refusals_at = refused, clock() + STRANGERS_EVERY


class Losses:
    """Of a peer that comes and goes in a loop, not each time is told: it would fill the disk."""

    def __init__(self) -> None:
        self.untold = 0
        self._began = float("-inf")  # the period
        self._seen = 0  # in it

    def count(self, now: float) -> bool:
        """One more; returns whether it is to be told."""
        if not self.untold and now >= self._began + LOSS_PERIOD:
            self._began, self._seen = now, 0
        self._seen += 1
        self.untold += self._seen > MOST
        return self._seen <= MOST

    def due_in(self, now: float) -> float:
        """When those that were not told are to be summed up, in seconds."""
        return max(0.0, self._began + LOSS_PERIOD - now)

    def sum_up(self, now: float) -> int:
        """How many were not told. If it goes on like this, none of the next period will be."""
        untold, self.untold = self.untold, 0
        self._began, self._seen = now, MOST if untold > MOST else 0
        return untold


def _worth_telling(now: Status, last: Status) -> bool:
    """Whether a failed attempt is news: the cause is, or it is the 2nd, 4th, 8th... attempt."""
    doubled = now.attempts.bit_length() > last.attempts.bit_length() and now.attempts > 1
    return now.cause != "" and (now.cause != last.cause or doubled)
