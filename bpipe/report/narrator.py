"""What is worth telling of a pipe: each status is compared with the one before."""

from __future__ import annotations

from typing import Final

from bpipe.net.clock import clock
from bpipe.report.events import (
    Connected,
    Lost,
    PeerFinished,
    Resumed,
    Retrying,
    Unsteady,
)
from bpipe.report.flood import Flood
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level
from bpipe.status import State, Status

MOST: Final = 10  # losses in a minute of which each is told


class Narrator:
    """Compares each status of a pipe with the one before, and tells what is new."""

    def __init__(self, reporter: Teller, first: Status) -> None:
        self.losses = Flood(MOST)
        self._tell = reporter.tell
        self._last = self._told = first  # the last one, and that of the last connection
        self._first = True  # the next connection is the first one of a caller
        self._mute = False  # the last loss was not told, so what belongs to it is not either
        self._peer_finished = False  # told

    def look(self, now: Status) -> None:
        """Something may have changed."""
        last, told = self._last, self._told
        if not now.state.away and _connections(now) > _connections(told):
            self._found(now)
        elif now.state.away and last.state is State.CONNECTED:
            self._lost(now)
        elif now.state.away and not self._mute and _worth_telling(now, last):
            retrying = Retrying(now.cause, now.cause_code, now.attempts, now.retry_in or 0.0)
            self._tell(retrying, Level.VERBOSE)
        if now.peer_finished and not (self._peer_finished or self._first):
            self._peer_finished = True
            self._tell(PeerFinished(now.received), Level.VERBOSE)
        self._last = now

    def _found(self, now: Status) -> None:
        if self._first:
            self._tell(Connected(now.peer))
        elif not self._mute:
            # What several links have to send again is known when they do.
            replayed = 0 if now.slots else now.replayed - self._told.replayed
            self._tell(Resumed(now.peer, now.away, replayed))
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


def _connections(status: Status) -> int:
    """How often there was a link, and none before."""
    return status.links - status.beside


def _worth_telling(now: Status, last: Status) -> bool:
    """Whether a failed attempt is news: the cause is, or it is the 2nd, 4th, 8th... attempt."""
    doubled = now.attempts.bit_length() > last.attempts.bit_length() and now.attempts > 1
    return now.cause != "" and (doubled or _causes(now) != _causes(last))


def _causes(status: Status) -> list[str]:
    """Why there is no connection; of several links, which fail in turn, each has its own."""
    return [each.cause for each in status.slots] or [status.cause]
