"""Status: the fields of what is known of a pipe at one moment."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class State(str, enum.Enum):
    """What a pipe is doing."""

    CONNECTING = "connecting"  # there was no link yet
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    FINISHING = "finishing"  # all is delivered: the peer is to know
    ABORTING = "aborting"  # the session has failed: the peer is to know
    OVER = "over"

    @property
    def away(self) -> bool:
        """Whether there is no connection, and one is looked for."""
        return self in (State.CONNECTING, State.RECONNECTING)

    def __str__(self) -> str:
        return str(self.value)


class Tally(NamedTuple):
    """How much of a stream to a file was there before. All are bytes."""

    compared: int = 0  # with what the receiver has
    equal: int = 0  # of these
    moved: int = 0  # had to go over the line
    incoming: bool = False  # this end is the receiver


class SlotStatus(NamedTuple):
    """One of the links that there may be at once, or the lack of it. Times are seconds."""

    up: bool  # there is a link
    peer: str  # at its other side; empty while there is none
    via: str  # from where it goes out, as --bind says; empty: as the system chooses
    links: int  # attached here so far
    round_trip: float | None
    silence: float | None  # how long nothing was heard, if it is in doubt
    cause: str  # why the last one was lost, or the last attempt failed
    cause_code: str  # the same in one word, for programs


@dataclass(frozen=True)
class Status:
    """A pipe at one moment. Counts are bytes, times are seconds."""

    state: State
    peer: str  # at the other side of the link; the address while there is none
    buffer_size: int
    written: int  # taken from the local producer
    confirmed: int  # of these: known to be with the far consumer
    received: int  # arrived from the peer
    delivered: int  # of these: taken by the local consumer
    links: int  # attached so far
    finished: bool  # the local producer has ended
    peer_finished: bool  # the end of the peer's stream has arrived
    replayed: int  # sent again after a reconnect, or over another link
    outage: float | None  # how long no progress has been made for want of a link
    away: float | None  # how long nothing was heard, before the link that is up, or until now
    gives_up_in: float | None  # while it waits for a link; None: never
    round_trip: float | None  # of several links: the shortest
    silence: float | None  # how long nothing was heard, if every link is in doubt
    refused: int  # greetings of those who do not belong here
    cause: str  # why the last link was lost, or the last attempt failed
    cause_code: str  # the same in one word, for programs
    attempts: int  # to connect, in this outage; 0 where one can only wait
    asks: bool  # an attempt may be asking something on the terminal, now or next
    retry_in: float | None  # until the next one; None where one can only wait
    tally: Tally | None = None  # of a stream that goes to a file
    held_to: int | None = None  # bytes a second, by which what is sent is held up now
    slots: tuple[SlotStatus, ...] = ()  # where there may be several links at once: each of them
    beside: int = 0  # of the links: attached while there were others

    @property
    def reconnects(self) -> int:
        """The links that have replaced another."""
        return max(0, self.links - max(1, self.used))

    @property
    def used(self) -> int:
        """In how many of the slots there was ever a link."""
        return sum(each.links > 0 for each in self.slots)

    @property
    def up(self) -> int:
        """In how many of the slots there is a link that is not in doubt."""
        return sum(each.up and each.silence is None for each in self.slots)

    @property
    def unconfirmed(self) -> int:
        """The bytes that are written and held until the peer confirms them."""
        return self.written - self.confirmed
