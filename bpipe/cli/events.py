"""What happens in a run, as values: the words for people and the JSON are both made of them.

Each event is one class; its fields are those of the JSON object, beside ``time`` (seconds since
1970) and ``event``, the name of the event. The manual page describes them all. Counts are bytes,
times are seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from bpipe.cli.values import FAILED, LOST, NOT_CONNECTED, format_duration, format_size
from bpipe.pipe import Status


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened."""

    name: ClassVar[str]

    def words(self) -> str:
        """One line for people."""
        raise NotImplementedError

    def json(self, now: float) -> str:
        """One line for programs; ``now`` is in seconds since 1970."""
        return json.dumps({"time": round(now, 3), "event": self.name, **asdict(self)})


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """A listener can be called."""

    name = "listening"
    address: str
    port: int | None  # None: a Unix socket

    def words(self) -> str:
        return f"listening on {self.address}"


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The first connection is up."""

    name = "connected"
    peer: str

    def words(self) -> str:
        return f"connected to {self.peer}"


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """The connection is gone, and the next one is looked for."""

    name = "lost"
    reason: str

    def words(self) -> str:
        return f"connection lost: {self.reason}; reconnecting"


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt to connect has failed; not each of them is told."""

    name = "retrying"
    reason: str
    attempt: int  # how many there were in this outage
    delay: float  # until the next one

    def words(self) -> str:
        return f"attempt {self.attempt}: {self.reason}; again in {format_duration(self.delay)}"


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A later connection is up, and the streams go on where they were."""

    name = "resumed"
    peer: str
    outage: float | None
    replayed: int  # sent again for this reconnect

    def words(self) -> str:
        outage = f" after {format_duration(self.outage)}" if self.outage is not None else ""
        again = f", {format_size(self.replayed)} sent again" if self.replayed else ""
        return f"connected again to {self.peer}{outage}{again}"


@dataclass(frozen=True, slots=True)
class PeerFinished(Event):
    """The peer's stream has come to its end."""

    name = "peer-finished"
    received: int

    def words(self) -> str:
        return f"the peer has finished, after {format_size(self.received)}"


@dataclass(frozen=True, slots=True)
class WaitingForStdin(Event):
    """The peer has finished, but stdin stays open and silent."""

    name = "waiting-for-stdin"
    terminal: bool

    def words(self) -> str:
        way_out = "^D" if self.terminal else "or --recv-only, which does not read it"
        return f"the peer has finished; waiting for the end of stdin ({way_out})"


@dataclass(frozen=True, slots=True)
class Frame(Event):
    """A frame heard (<) or said (>), a change of the session's state (=), an error (!)."""

    name = "frame"
    sign: str
    text: str

    def words(self) -> str:
        return f"{self.sign} {self.text}"


@dataclass(frozen=True, slots=True)
class Totals(Event):
    """What both directions have moved so far."""

    sent: int = 0  # read from stdin, to be sent
    confirmed: int = 0  # of these: known to be with the far consumer
    received: int = 0
    delivered: int = 0  # of these: taken by stdout
    replayed: int = 0  # sent again, in all reconnects together
    reconnects: int = 0
    elapsed: float = 0.0  # since the first connection, or without one since the start

    @staticmethod
    def of(status: Status, elapsed: float) -> dict[str, Any]:
        """The values for these fields."""
        return {
            "sent": status.written,
            "confirmed": status.confirmed,
            "received": status.received,
            "delivered": status.delivered,
            "replayed": status.replayed,
            "reconnects": status.reconnects,
            "elapsed": round(elapsed, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Totals):
    """Where things stand, because it was asked for."""

    name = "progress"
    state: str
    peer: str
    outage: float | None  # how long no progress has been made for want of a connection
    round_trip: float | None

    def words(self) -> str:
        parts = [f"{self.state} {self.peer}"]
        if self.outage is not None:
            parts.append(f"no progress for {format_duration(self.outage)}")
        parts.append(f"sent {format_size(self.sent)}, {format_size(self.confirmed)} confirmed")
        parts.append(
            f"received {format_size(self.received)}, {format_size(self.delivered)} delivered"
        )
        parts.append(count(self.reconnects, "reconnect"))
        return "; ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Totals):
    """The end of the run."""

    name = "done"
    status: int  # the exit status
    reason: str | None  # of a failure

    def words(self) -> str:
        return self._success() if self.reason is None else self._failure(self.reason)

    def _success(self) -> str:
        moved = [
            f"{verb} {format_size(number)}"
            for verb, number in (("sent", self.sent), ("received", self.received))
            if number
        ]
        if not moved:
            return "done; both streams were empty"
        rate = format_size(max(self.sent, self.received) / max(self.elapsed, 0.001))
        summary = f"{' and '.join(moved)} in {format_duration(self.elapsed)} ({rate}/s)"
        if self.reconnects:
            summary += f", {count(self.reconnects, 'reconnect')}"
        return f"{summary}, all delivered"

    def _failure(self, reason: str) -> str:
        """What has happened, how far it got, and what to do."""
        parts = [reason]
        rest = self.sent - self.confirmed
        if self.sent and self.status != LOST:  # there the reason says it
            parts.append(f"{count(self.confirmed, 'byte')} confirmed, {rest} more not")
        if self.received:
            parts.append(f"{count(self.delivered, 'byte')} received")
        if self.status == LOST and self.sent and not rest:
            parts.append("look there before it is sent again")
        elif self.status == NOT_CONNECTED:
            parts.append("nothing was read from stdin: it can be started again")
        elif self.status == LOST or (self.status == FAILED and (self.sent or self.received)):
            parts.append("start both ends again")
        return "; ".join(parts)


def count(number: int, noun: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
