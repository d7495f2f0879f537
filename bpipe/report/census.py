"""Counts over all sessions of a process: how many, how much, how fast.

Those that have ended were added when they did. Those that live are asked when somebody wants to
know, so that nothing is counted for a byte or for a drive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final, Protocol

from bpipe.report.meter import RATE_WINDOW
from bpipe.report.totals import Listener, Totals, totals
from bpipe.status import Status

SAMPLES: Final = 100  # that are kept at most, of what was moved


class ServerView(Protocol):
    """What is to be known of a server that has many sessions."""

    @property
    def address(self) -> str:
        """Its address, for people."""

    @property
    def reachable(self) -> bool:
        """Whether other machines can reach it."""

    @property
    def sealed(self) -> bool:
        """Whether there is a secret."""

    @property
    def refused(self) -> int:
        """The callers that do not belong here, so far."""

    @property
    def most(self) -> int:
        """The sessions that there may be at once."""


class Census:
    """Counts sessions. ``now`` is in seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._ended = self._failed = 0
        self._past = Totals()  # of those that have ended
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self._samples.append((now, 0))

    def end(self, totals: Totals, *, failed: bool) -> None:
        """One has ended, and had moved this."""
        self._ended += 1
        self._failed += failed
        self._past = _sum(self._past, totals)

    def take(
        self, source: ServerView, sessions: Collection[Status], now: float, *, draining: bool
    ) -> Listener:
        """All numbers; the rate is that of the last seconds."""
        sums = _sum(self._past, *(totals(each, 0.0) for each in sessions))
        return Listener(
            address=source.address,
            sessions=len(sessions),
            away=sum(each.state.away for each in sessions),
            most=source.most,
            draining=draining,
            served=self._ended + len(sessions),
            failed=self._failed,
            refused=source.refused,
            held=sum(each.unconfirmed + each.received - each.delivered for each in sessions),
            rate=self._rate(sums.confirmed + sums.delivered + sums.equal, now),
            totals=sums._replace(elapsed=round(max(0.0, now - self._since), 3)),
        )

    def _rate(self, moved: int, now: float) -> int:
        samples = self._samples
        samples.append((now, moved))
        while len(samples) > 2 and samples[1][0] <= now - RATE_WINDOW:
            samples.popleft()
        began, before = samples[0]
        return int((moved - before) / max(now - began, 1.0))


def _sum(*several: Totals) -> Totals:
    return Totals(*map(sum, zip(*several, strict=True)))
