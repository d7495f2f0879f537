"""What may go wrong with a path, and how often it does."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

RETRANSMIT = 0.2  # seconds until TCP sends again; they double


class Fate(enum.Enum):
    """What happens to a connection when its fault strikes."""

    RESET = enum.auto()  # both ends hear of it
    CLOSE = enum.auto()  # an end of file at both ends
    ABANDON = enum.auto()  # one end hears a reset, the other one nothing, ever
    LATE = enum.auto()  # the sender hears a reset; what it had sent arrives all the same, later
    SILENCE = enum.auto()  # neither hears anything
    DEAF = enum.auto()  # one direction is lost, the other goes on
    CORRUPT = enum.auto()  # one bit is another one
    TRICKLE = enum.auto()  # one direction has a byte a second from now on


# What only a sealed link can notice: bytes that are wrong, or that never become a frame.
SEALED_ONLY = (Fate.CORRUPT, Fate.TRICKLE)


FULL = 10  # of this part of a second there may be something on its way over a path that is quick


@dataclass
class Weather:
    """How the network behaves; everything random comes from ``rng``."""

    rng: random.Random
    latency: tuple[float, float] = (0.0, 0.001)  # seconds: the least and the most
    capacity: int = 4096  # bytes that a channel holds
    rate: float = 0.0  # bytes a second, of all connections in one direction; 0: as many as come
    chunky: bool = False  # bytes are taken and arrive in pieces of any size
    faulty: float = 0.0  # the share of connections that meet a fault
    fates: list[Fate] = field(default_factory=list)
    reach: int = 4096  # bytes after which a fault strikes, at most
    at_seams: float = 0.15  # the share of faults that strike where a message of a greeting ends
    stragglers: float = 0.0  # the share of connections that are slower, by some seconds
    hiccups: float = 0.0  # the share of messages that take some seconds longer
    purging: bool = False  # a reset throws away what has arrived and was not read
    patient: bool = False  # connections wait longer than the path is away, as TCP does
    longest: float = 100.0  # the most that any connection's latency counts, in seconds
    away: list[tuple[float, float]] = field(default_factory=list)  # when the path is

    @property
    def peaceful(self) -> bool:
        """Whether nothing fails."""
        return not (self.faulty and self.fates) and not self.hiccups and not self.away

    @property
    def quick(self) -> bool:
        """Whether the path is not slow, nor may be full of what others send."""
        narrow = self.rate and FULL * self.capacity > self.rate
        return self.latency[1] <= 0.1 and not self.stragglers and not narrow

    @property
    def smooth(self) -> bool:
        """Whether what is sent over a connection that does not fail arrives soon."""
        return not self.hiccups and not self.away

    def calm(self, now: float) -> None:
        """From now on nothing fails any more, for new connections; the path is there."""
        self.faulty = self.stragglers = self.hiccups = 0.0
        self.latency = (0.0, 0.02)
        self.longest = 0.02
        self.away = [(since, min(until, now)) for since, until in self.away]

    def resumes_at(self, now: float, began: float) -> float:
        """When a connection that began then goes on: now, or when TCP sends again."""
        for since, until in self.away if self.patient else ():
            again, pause = since, RETRANSMIT
            while again < until:
                again, pause = again + pause, pause * 2
            if began < until and since <= now < again:
                return again
        return self.back_at(now)

    def back_at(self, now: float) -> float:
        """When the path is there: now, or later."""
        for since, until in self.away:
            if since <= now < until:
                return until
        return now
