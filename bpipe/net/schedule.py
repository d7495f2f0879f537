"""When to start an attempt to connect, and which to abandon.

A dial does not wait for the kernel's SYN timers, which double from one second: while nobody
answers, a new attempt starts every 0.6 seconds beside the old ones. Six are under way at most:
the oldest may take its ten seconds, for a path with a long round trip; the others are replaced in
turn, so that a path that returns meets a SYN soon, however long it was away. The kernel repeats
that of an attempt after one second, and newer ones after two as well: these fall between those of
the other attempts, where with half seconds they would all go out at once.

A carrier that has to be started, ssh for example, is dialled with other manners: one attempt at a
time and long pauses, because who calls an sshd too often is punished; and no limit of time as long
as it may be asking for a password.
"""

from __future__ import annotations

import math
import random
from typing import Final, NamedTuple

from bpipe.net.backoff import FIRST_DELAY, Backoff
from bpipe.protocol.greeting import GREETING_TIMEOUT

OVERLAP: Final = 0.6  # seconds without an answer after which another attempt starts
ATTEMPTS: Final = 6  # under way at once: the younger ones have 3 seconds, for two round trips
ATTEMPT_TIMEOUT: Final = 10.0  # seconds


class Manners(NamedTuple):
    """How one kind of connection is asked for; all times are in seconds."""

    attempts: int = ATTEMPTS  # under way at once; one: the next starts when that has failed
    overlap: float = OVERLAP  # without an answer until another one starts
    patience: float = ATTEMPT_TIMEOUT  # for an attempt; infinite: as long as it takes
    greeting: float = GREETING_TIMEOUT  # of these: for the greeting
    apart: float = 0.0  # from the start of one to the start of the next, at least
    first_pause: float = FIRST_DELAY  # after an attempt that has failed; it doubles
    longest_pause: float = 1.0
    drawn: float = 1.0  # the part of a pause that is drawn by lot

    @property
    def alone(self) -> bool:
        """Whether there is only one attempt at a time."""
        return self.attempts == 1

    @property
    def asks(self) -> bool:
        """Whether an attempt may be asking somebody, for a password or a touch."""
        return self.patience == math.inf

    def asking(self) -> Manners:
        """The same for an attempt that may be asking somebody."""
        return self._replace(patience=math.inf, greeting=math.inf)

    def backoff(self, cap: float | None = None, rng: random.Random | None = None) -> Backoff:
        """How long the pauses are; ``cap`` in place of the longest, in seconds."""
        longest = self.longest_pause if cap is None else cap
        return Backoff(longest, rng, first=self.first_pause, drawn=self.drawn)


TCP: Final = Manners()
CARRIER: Final = Manners(
    attempts=1,
    greeting=ATTEMPT_TIMEOUT,
    apart=1.0,
    first_pause=1.0,
    longest_pause=15.0,
    drawn=0.25,
)


class _Attempt(NamedTuple):
    """One that has no answer."""

    number: int
    until: float  # when it is abandoned


class Schedule:
    """Decides for a dialer, without a socket; all times are in seconds."""

    def __init__(self, backoff: Backoff, manners: Manners = TCP) -> None:
        self.backoff = backoff
        self.manners = manners
        self.next_at = 0.0  # when the next attempt starts, if there is room for it
        self.started = 0  # attempts, in all outages together
        self._before = 0  # of these: before this outage
        self._began = -math.inf  # the last one
        self._hurried = False  # the one that is alone makes way
        self._pending: list[_Attempt] = []  # the oldest first

    @property
    def attempts(self) -> int:
        """How many were started in this outage."""
        return self.started - self._before

    def behave(self, manners: Manners) -> None:
        """The next attempts are made with these manners."""
        self.manners = manners

    def begin(self, now: float, *, fresh: bool) -> None:
        """A link is needed; ``fresh``: the last one was good, so there is no reason to wait."""
        if fresh:
            self.backoff.reset()
            self._before = self.started - len(self._pending)  # which began beside the last one
            self.next_at = max(now, self._began + self._apart)
        else:
            self.next_at = now + self.backoff.next()

    @property
    def _apart(self) -> float:
        return min(self.manners.apart, self.backoff.cap)

    def hurry(self, now: float) -> None:
        """Somebody knows that the path is back."""
        self.next_at = now
        self._hurried = True

    def nudge(self, now: float) -> None:
        """The system says that there is a way: it may say so often, and is not always right."""
        at = max(now, self._began + self._apart)
        self.next_at = min(self.next_at, at)
        self._hurried |= now >= at

    def due(self, now: float) -> bool:
        """Whether the next attempt starts now."""
        return now >= self.next_at and not self._full

    @property
    def _full(self) -> bool:
        """Whether the one that is under way is waited for."""
        return self.manners.alone and bool(self._pending)

    def start(self, now: float) -> int:
        """The next attempt starts now; returns its number."""
        self.started += 1
        self._began, self._hurried = now, False
        self._pending.append(_Attempt(self.started, now + self.manners.patience))
        self.next_at = now if self.manners.alone else now + self.manners.overlap
        return self.started

    def turn(self, number: int) -> int:
        """Which attempt of this outage this is, from 0 on."""
        return max(0, number - self._before - 1)

    def abandon(self, now: float) -> int | None:
        """The number of an attempt that has to be given up now, if there is one."""
        if not self._pending:
            return None
        if now >= self._pending[0].until:
            if self.manners.alone:
                self.next_at = now + self.backoff.next()
            return self._pending.pop(0).number
        if not self.manners.alone:
            if len(self._pending) >= self.manners.attempts and now >= self.next_at:
                return self._pending.pop(1).number
        elif self._hurried and self._pending[0].until < math.inf:
            return self._pending.pop(0).number
        return None

    def answered(self, number: int) -> None:
        """The attempt has a connection."""
        self._pending = [each for each in self._pending if each.number != number]

    def failed(self, number: int, now: float) -> None:
        """The attempt ended with an error, or its greeting did."""
        self.answered(number)
        self.next_at = now + self.backoff.next()

    def clear(self) -> None:
        """All attempts are given up."""
        self._pending.clear()

    def deadline(self) -> float:
        """When to look again; infinite: not before something happens."""
        if not self._pending:
            return self.next_at
        oldest = self._pending[0].until
        return oldest if self._full else min(self.next_at, oldest)
