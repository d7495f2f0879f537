"""What a person, or a log, is told of a pipe at one moment: how much, how fast, and since when.

What counts is what the far consumer has confirmed, not what was put on the way: a hundred per
cent are not reached before all of it is safe.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from bpipe.status import Status, Tally

RATE_WINDOW: Final = 8.0  # seconds over which a rate is taken


class View(NamedTuple):
    """What is shown. Counts are bytes, times are seconds."""

    status: Status
    rate: float  # per second, of the direction that has moved more
    size: int | None  # what that direction will have moved in the end
    elapsed: float
    quiet: float = 0.0  # how long nothing has moved, over a connection
    far: str = "the peer"  # who is at the other end
    allowed: int | None = None  # per second, to the peer

    @property
    def still(self) -> bool:
        """Whether nothing has moved for as long as a rate is taken over."""
        return self.quiet >= RATE_WINDOW


class Meter:
    """Makes views of a pipe's status.

    ``size`` is that of the longer stream, if it is known, or (``of_stdin``) of what is sent.
    """

    def __init__(self, size: int | None, now: float, *, of_stdin: bool = False) -> None:
        self.size = size
        self._of_stdin = of_stdin
        self._since = now  # the first connection, once there was one
        self._up = False
        self._samples: deque[tuple[float, Status]] = deque(maxlen=100)
        self._moved: tuple[object, ...] = ()  # what was safe, when that was last more than before
        self._moved_at = now

    def note(self, status: Status, now: float) -> None:
        """The first connection may be up."""
        if status.links and not self._up:
            self._up, self._since = True, now
            self._samples.append((now, status))

    def elapsed(self, now: float) -> float:
        """Seconds since the first connection, or without one since the start."""
        return max(0.0, now - self._since)  # a clock that was set back is not told of

    def view(self, status: Status, now: float) -> View:
        """What is to be shown now. The rate is that of the last seconds with a connection."""
        away = status.state.away
        if away:
            self._samples.clear()
        self._samples.append((now, status))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW:
            self._samples.popleft()
        began, first = self._samples[0]
        before = _safe(first, inwards=inward(status))
        rate = max(0, moved(status) - before) / max(now - began, 1.0)
        quiet = self._quiet(status, now, away=away)
        return View(status, rate, self._credible_size(status), self.elapsed(now), quiet)

    def _quiet(self, status: Status, now: float, *, away: bool) -> float:
        """How long nothing has moved, over the connection that is up."""
        moved = status.confirmed, status.delivered, status.tally
        if moved != self._moved or away:
            self._moved, self._moved_at = moved, now
        return now - self._moved_at

    def _credible_size(self, status: Status) -> int | None:
        """The size, if it can be that of the longer stream; none any more when it was exceeded."""
        other = self._of_stdin and inward(status)
        longer = max(status.received, status.written) + _equal(status)
        return None if other or self.size is None or longer > self.size else self.size


def moved(status: Status) -> int:
    """The bytes that are safe, of the direction that has more of them."""
    return _safe(status, inwards=inward(status))


def _safe(status: Status, *, inwards: bool) -> int:
    """The bytes that are safe, of this direction; what lay in the file before is."""
    return (status.delivered if inwards else status.confirmed) + _equal(status)


def _equal(status: Status) -> int:
    return (status.tally or Tally()).equal


def inward(status: Status) -> bool:
    """Whether more has come than gone."""
    if status.tally is not None:
        return status.tally.incoming
    return status.received > status.written


def waiting_for_peer(status: Status) -> bool:
    """Whether everything of ours is safe, and only the peer has not ended its own stream."""
    if status.tally is not None:  # it says what it has, and no more
        return False
    return status.finished and not status.unconfirmed and not inward(status) and status.written > 0
