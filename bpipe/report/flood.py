"""What happens again and again is not told each time, because that would fill the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpipe.net.clock import clock
from bpipe.report.events import Event, Refused

PERIOD: Final = 60.0  # seconds in which is counted what happens again and again
STRANGERS_EVERY: Final = 60.0  # seconds between two lines about callers that were refused


class Flood:
    """Counts what may happen in a loop. Of those in a period, so many are to be told.

    Who is told that there are some ``untold`` calls ``sum_up`` in ``due_in`` seconds.
    """

    def __init__(self, most: int) -> None:
        self.untold = 0
        self._most = most
        self._began = float("-inf")  # the period
        self._seen = 0  # in it

    def count(self, now: float) -> bool:
        """One more; returns whether it is to be told."""
        if not self.untold and now >= self._began + PERIOD:
            self._began, self._seen = now, 0
        self._seen += 1
        self.untold += self._seen > self._most
        return self._seen <= self._most

    def due_in(self, now: float) -> float:
        """When those that were not told are to be summed up, in seconds."""
        return max(0.0, self._began + PERIOD - now)

    def sum_up(self, now: float) -> int:
        """How many were not told. If it goes on like this, none of the next period will be."""
        untold, self.untold = self.untold, 0
        self._began, self._seen = now, self._most if untold > self._most else 0
        return untold


class Strangers:
    """Callers that were refused: told at once, and then once a minute at most."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._told = 0  # of so many
        self._due = 0.0  # when to tell of more

    def look(self, refused: int) -> None:
        """There were so many, in all."""
        if refused > self._told and clock() >= self._due:
            self._tell(Refused(refused - self._told))
            self._told, self._due = refused, clock() + STRANGERS_EVERY
