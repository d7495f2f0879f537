"""What happens in a run, as values: the words for people and the JSON are both made of them.

Each event is one class. Its name (``peer-finished`` for PeerFinished) and its fields, those of
``Totals`` among them, are those of the JSON object; the manual page describes them all. Counts
are bytes, times are seconds.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Protocol

from bpipe.cli.values import FAILED, LOST, NOT_CONNECTED, format_duration, format_size
from bpipe.pipe import Status


class Event(Protocol):
    """Something that has happened: a named tuple."""

    def words(self) -> str:
        """One line for people."""

    def _asdict(self) -> dict[str, Any]: ...


def name(event: type) -> str:
    """What programs call this kind of event."""
    return re.sub("(?<=.)(?=[A-Z])", "-", event.__name__).lower()


def to_json(event: Event, now: float) -> str:
    """One line for programs; ``now`` is in seconds since 1970."""
    import json  # most runs have no log

    fields = {"time": round(now, 3), "event": name(type(event)), **event._asdict()}
    if isinstance(totals := fields.pop("totals", None), Totals):
        fields.update(totals._asdict())
    return json.dumps(fields)


class Listening(NamedTuple):
    """A listener can be called."""

    address: str
    port: int | None  # None: a Unix socket

    def words(self) -> str:
        return f"listening on {self.address}"


class Exposed(NamedTuple):
    """Other machines can reach this listener, and there is no secret."""

    address: str

    def words(self) -> str:
        return f"without a secret: whoever reaches {self.address} gets in; --secret FILE helps"


class Refused(NamedTuple):
    """Callers were refused; told at once, and then once a minute at most."""

    callers: int  # since the last of these events

    def words(self) -> str:
        return f"{count(self.callers, 'caller')} refused: another secret, or none, or not bpipe"


class Connected(NamedTuple):
    """The first connection is up."""

    peer: str

    def words(self) -> str:
        return f"connected to {self.peer}"


class Lost(NamedTuple):
    """The connection is gone, and the next one is looked for."""

    reason: str

    def words(self) -> str:
        return f"connection lost: {self.reason}; reconnecting"


class Retrying(NamedTuple):
    """An attempt to connect has failed; not each of them is told."""

    reason: str
    attempt: int  # how many there were in this outage
    delay: float  # until the next one

    def words(self) -> str:
        return f"attempt {self.attempt}: {self.reason}; again in {format_duration(self.delay)}"


class Resumed(NamedTuple):
    """A later connection is up, and the streams go on where they were."""

    peer: str
    outage: float | None
    replayed: int  # sent again for this reconnect

    def words(self) -> str:
        outage = f" after {format_duration(self.outage)}" if self.outage is not None else ""
        again = f", {format_size(self.replayed)} sent again" if self.replayed else ""
        return f"connected again to {self.peer}{outage}{again}"


class PeerFinished(NamedTuple):
    """The peer's stream has come to its end."""

    received: int

    def words(self) -> str:
        return f"the peer has finished, after {format_size(self.received)}"


class WaitingForStdin(NamedTuple):
    """The peer has finished, but stdin stays open and silent."""

    terminal: bool

    def words(self) -> str:
        way_out = "^D" if self.terminal else "or --recv-only, which does not read it"
        return f"the peer has finished; waiting for the end of stdin ({way_out})"


class Frame(NamedTuple):
    """A frame heard (<) or said (>), a change of the session's state (=), an error (!)."""

    sign: str
    text: str

    def words(self) -> str:
        return f"{self.sign} {self.text}"


class Dropped(NamedTuple):
    """So many of these events could not be told here, because nobody took them."""

    messages: int

    def words(self) -> str:
        return f"({count(self.messages, 'message')} dropped)"


class Totals(NamedTuple):
    """What both directions have moved so far."""

    sent: int = 0  # read from stdin, to be sent
    confirmed: int = 0  # of these: known to be with the far consumer
    received: int = 0
    delivered: int = 0  # of these: taken by stdout
    replayed: int = 0  # sent again, in all reconnects together
    reconnects: int = 0
    elapsed: float = 0.0  # since the first connection, or without one since the start


def totals(status: Status, elapsed: float) -> Totals:
    """What this status says of them."""
    return Totals(
        sent=status.written,
        confirmed=status.confirmed,
        received=status.received,
        delivered=status.delivered,
        replayed=status.replayed,
        reconnects=status.reconnects,
        elapsed=round(elapsed, 3),
    )


class Progress(NamedTuple):
    """Where things stand, because it was asked for."""

    state: str
    peer: str
    outage: float | None  # how long no progress has been made for want of a connection
    round_trip: float | None
    totals: Totals

    def words(self) -> str:
        totals = self.totals
        parts = [f"{self.state} {self.peer}"]
        if self.outage is not None:
            parts.append(f"no progress for {format_duration(self.outage)}")
        for verb, number, result, safe in (
            ("sent", totals.sent, "confirmed", totals.confirmed),
            ("received", totals.received, "delivered", totals.delivered),
        ):
            parts.append(f"{verb} {format_size(number)}, {format_size(safe)} {result}")
        parts.append(count(totals.reconnects, "reconnect"))
        return "; ".join(parts)


class Done(NamedTuple):
    """The end of the run."""

    status: int  # the exit status
    reason: str | None  # of a failure
    totals: Totals = Totals()

    def words(self) -> str:
        return self._success() if self.reason is None else self._failure(self.reason)

    def _success(self) -> str:
        totals = self.totals
        moved = [
            f"{verb} {format_size(number)}"
            for verb, number in (("sent", totals.sent), ("received", totals.received))
            if number
        ]
        if not moved:
            return "done; both streams were empty"
        rate = format_size(max(totals.sent, totals.received) / max(totals.elapsed, 0.001))
        summary = f"{' and '.join(moved)} in {format_duration(totals.elapsed)} ({rate}/s)"
        if totals.reconnects:
            summary += f", {count(totals.reconnects, 'reconnect')}"
        return f"{summary}, all delivered"

    def _failure(self, reason: str) -> str:
        """What has happened, how far it got, and what to do."""
        parts, totals = [reason], self.totals
        rest = totals.sent - totals.confirmed
        if totals.sent and self.status != LOST:  # there the reason says it
            parts.append(f"{count(totals.confirmed, 'byte')} confirmed, {rest} more not")
        if totals.received:
            parts.append(f"{count(totals.delivered, 'byte')} received")
        if self.status == LOST and totals.sent and not rest:
            parts.append("see what the far side has before it is sent again")
        elif self.status == NOT_CONNECTED:
            parts.append("nothing was read from stdin: it can be started again")
        elif self.status == LOST or (self.status == FAILED and (totals.sent or totals.received)):
            parts.append("start both ends again, from the beginning")
        return "; ".join(parts)


def count(number: int, noun: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
