"""How far a run has come, and how it has ended: the events that have numbers.

What a hundred per cent are is the size that is expected: ``--size``, or that of a file on stdin.
"""

from __future__ import annotations

from typing import NamedTuple

from bpipe.errors import NotConnected, PipeClosed, ProgramFailed, SessionEnded, SessionLost
from bpipe.report.format import format_duration, format_size, format_sizes
from bpipe.status import Status, Tally


class Totals(NamedTuple):
    """What both directions have moved so far."""

    sent: int = 0  # read from stdin, to be sent
    confirmed: int = 0  # of these: known to be with the far consumer
    received: int = 0
    delivered: int = 0  # of these: taken by stdout
    replayed: int = 0  # sent again, in all reconnects together
    reconnects: int = 0
    compared: int = 0  # of a stream to a file: with what lay there
    equal: int = 0  # of these: were not sent
    elapsed: float = 0.0  # since the first connection, or without one since the start


def totals(status: Status, elapsed: float) -> Totals:
    """What this status says of them."""
    tally = status.tally or Tally()
    return Totals(
        sent=status.written,
        confirmed=status.confirmed,
        received=status.received,
        delivered=status.delivered,
        replayed=status.replayed,
        reconnects=status.reconnects,
        compared=tally.compared,
        equal=tally.equal,
        elapsed=round(elapsed, 3),
    )


class Progress(NamedTuple):
    """Where things stand, because it was asked for."""

    state: str
    peer: str
    outage: float | None  # how long nothing was heard for want of a connection
    round_trip: float | None
    size: int | None  # what is expected to be moved
    rate: int  # per second, of the direction that has moved more
    totals: Totals
    up: int | None = None  # of several links: how many there are,
    slots: int | None = None  # and how many there may be

    def words(self) -> str:
        totals = self.totals
        parts = [f"{self.state} {self.peer}"]
        if self.up:
            parts.append(f"{self.up} of {self.slots} links")
        if self.outage is not None:
            parts.append(f"nothing heard for {format_duration(self.outage)}")
        parts += _streams(totals)
        if self.size:
            safe = totals.equal + max(totals.confirmed, totals.delivered)
            parts.append(f"{safe * 100 // self.size}%")
        if self.rate:
            parts.append(f"{format_size(self.rate)}/s")
        parts.append(count(totals.reconnects, "reconnect"))
        return "; ".join(parts)


class Listener(NamedTuple):
    """All sessions of a process that serves many."""

    address: str
    sessions: int  # now
    away: int  # of these: without a connection
    most: int  # that there may be at once
    draining: bool  # no more are taken
    served: int  # since the start, with those that there are now
    failed: int
    refused: int  # callers that do not belong here
    held: int  # bytes, of all sessions, that are not safe yet
    rate: int  # per second, of all sessions and both directions
    totals: Totals

    def words(self) -> str:
        away = f", {self.away} without a connection" if self.away else ""
        parts = [f"{count(self.sessions, 'session')}{away}", f"{self.served} in all{self._failed}"]
        parts += _streams(self.totals)
        if self.held:
            parts.append(f"{format_size(self.held)} held")
        if self.rate:
            parts.append(f"{format_size(self.rate)}/s")
        parts.append(count(self.totals.reconnects, "reconnect"))
        if self.refused:
            parts.append(f"{count(self.refused, 'caller')} refused")
        return "; ".join(parts)

    def served_in_all(self) -> str:
        """What there was, when no more comes."""
        moved = _moved(self.totals)
        return f"served {count(self.served, 'session')}{self._failed}{moved and '; '}{moved}"

    @property
    def _failed(self) -> str:
        return f", {self.failed} failed" if self.failed else ""


class Done(NamedTuple):
    """The end of the run."""

    status: int  # the exit status
    reason: str | None  # of a failure
    code: str | None = None
    size: int | None = None  # what was expected to be moved
    totals: Totals = Totals()
    advice: str = ""  # for people: how far it got, and after a failure what to do
    from_: str | None = None  # whose failure it is: that of a program, or of bpipe
    file: str | None = None  # that is on the disk now, under its name
    part: str | None = None  # of one that is not: what stays, and is to be gone on from
    used: int | None = None  # of several links: how many there were,
    slots: int | None = None  # and how many there could be

    def words(self) -> str:
        if self.reason is None:
            return self.advice or self._success()
        return f"{self.reason}; {self.advice}" if self.advice else self.reason

    def over(self, status: Status) -> Done:
        """The same with what the status says of several links."""
        if not status.slots:
            return self
        return self._replace(used=status.used, slots=len(status.slots))

    @property
    def ways(self) -> str:
        """For people: how many of several links there were."""
        if self.slots is None:
            return ""
        fewer = f"{self.used} of " if self.used != self.slots else ""
        return f" over {fewer}{self.slots} links"

    def _success(self) -> str:
        totals = self.totals
        moved = _moved(totals)
        if not moved:
            return "done; both streams were empty"
        rate = format_size(max(totals.sent, totals.received) / max(totals.elapsed, 0.001))
        summary = f"{moved} in {format_duration(totals.elapsed)} ({rate}/s){self.ways}"
        if totals.reconnects:
            summary += f", {count(totals.reconnects, 'reconnect')}"
        summary += ", all delivered"
        lacking = (self.size or 0) - max(totals.sent, totals.received)
        return f"{summary}; {exactly(lacking)} less than expected" if lacking > 0 else summary


def advice(
    failure: SessionEnded, totals: Totals, *, interrupted: bool = False, ends: str = "both ends"
) -> str:
    """How far a session got that has failed, and what to do; ``ends``: what can be started again.

    Whoever has ``interrupted`` it knows what to do.
    """
    parts = []
    if totals.sent and not isinstance(failure, SessionLost):  # which says it
        rest = totals.sent - totals.confirmed
        parts.append(f"{count(totals.confirmed, 'byte')} confirmed, {rest} more not")
    if totals.received:
        parts.append(f"{count(totals.delivered, 'byte')} received")
    if not interrupted:
        parts.append(_what_to_do(failure, totals, ends))
    return "; ".join(filter(None, parts))


def _what_to_do(failure: SessionEnded, totals: Totals, ends: str) -> str:
    from_the_beginning = f"start {ends} again, from the beginning"
    if isinstance(failure, NotConnected):
        hopeless = failure.code in ("busy", "no-such-name")
        return "" if hopeless else "nothing was read from stdin: it can be started again"
    if isinstance(failure, SessionLost):
        if totals.sent and totals.sent == totals.confirmed:
            return "see what the far side has before it is sent again"
        return from_the_beginning
    told = isinstance(failure, PipeClosed | ProgramFailed)
    if told or not (totals.sent or totals.received):
        return ""
    return from_the_beginning


def origin(failure: SessionEnded | None) -> str | None:
    """Whose failure it is: that of a program, or of bpipe; None: there is none."""
    if failure is None:
        return None
    return "program" if isinstance(failure, ProgramFailed) else "bpipe"


def _streams(totals: Totals) -> list[str]:
    """What both have moved, and how much of it is safe; and what did not have to be."""
    compared, equal = format_sizes(totals.compared, totals.equal)
    saved = [f"{compared} compared, {equal} equal"] if totals.compared else []
    return saved + [
        f"{verb} {format_size(number)}, {format_size(safe)} {result}"
        for verb, number, result, safe in (
            ("sent", totals.sent, "confirmed", totals.confirmed),
            ("received", totals.received, "delivered", totals.delivered),
        )
    ]


def _moved(totals: Totals) -> str:
    """What has been moved, to the byte; nothing if that is nothing."""
    both = ("sent", totals.sent), ("received", totals.received)
    return " and ".join(f"{verb} {exactly(number)}" for verb, number in both if number)


def exactly(number: int) -> str:
    """``4.0 KiB (4,096 bytes)``."""
    return format_size(number) + (f" ({number:,} bytes)" if number >= 1024 else "")


def count(number: int, noun: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
