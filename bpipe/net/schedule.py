"""When to start an attempt to connect, and which to abandon.

A dial does not wait for the kernel's SYN timers, which double from one second: while nobody
answers, a new attempt starts every half second beside the old ones. Six are under way at most:
the oldest may take its ten seconds, for a path with a long round trip; the others are replaced in
turn, so that a path that returns meets a fresh SYN within half a second, however long it was away.
"""

from __future__ import annotations

from typing import Final

from bpipe.net.backoff import Backoff

OVERLAP: Final = 0.5  # seconds without an answer after which another attempt starts
ATTEMPTS: Final = 6  # under way at once: the younger ones have 2.5 seconds, for two round trips
ATTEMPT_TIMEOUT: Final = 10.0  # seconds


class Schedule:
    """Decides for a dialer, without a socket; all times are in seconds."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.next_at = 0.0  # when the next attempt starts
        self.started = 0  # attempts, in all outages together
        self._before = 0  # of these: before this outage
        self._pending: list[tuple[int, float]] = []  # attempts without an answer, oldest first

    @property
    def attempts(self) -> int:
        """How many were started in this outage."""
        return self.started - self._before

    def begin(self, now: float, *, fresh: bool) -> None:
        """A link is needed; ``fresh``: the last one was good, so there is no reason to wait."""
        if fresh:
            self.backoff.reset()
            self._before = self.started - len(self._pending)  # which began beside the last one
            self.next_at = now
        else:
            self.next_at = now + self.backoff.next()

    def hurry(self, now: float) -> None:
        """Somebody knows that the path is back."""
        self.next_at = now

    def start(self, now: float) -> int:
        """The next attempt starts now; returns its number."""
        self.started += 1
        self._pending.append((self.started, now))
        self.next_at = now + OVERLAP
        return self.started

    def turn(self, number: int) -> int:
        """Which attempt of this outage this is, from 0 on."""
        return max(0, number - self._before - 1)

    def abandon(self, now: float) -> int | None:
        """The number of an attempt that has to be given up now, if there is one."""
        if self._pending and now >= self._pending[0][1] + ATTEMPT_TIMEOUT:
            return self._pending.pop(0)[0]
        if len(self._pending) >= ATTEMPTS and now >= self.next_at:
            return self._pending.pop(1)[0]
        return None

    def answered(self, number: int) -> None:
        """The attempt has a connection."""
        self._pending = [entry for entry in self._pending if entry[0] != number]

    def failed(self, number: int, now: float) -> None:
        """The attempt ended with an error, or its greeting did."""
        self.answered(number)
        self.next_at = now + self.backoff.next()

    def clear(self) -> None:
        """All attempts are given up."""
        self._pending.clear()

    def deadline(self) -> float:
        """When to look again."""
        oldest = self._pending[0][1] + ATTEMPT_TIMEOUT if self._pending else self.next_at
        return min(self.next_at, oldest)
