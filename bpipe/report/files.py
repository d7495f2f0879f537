"""What is told of a stream that becomes a file: what lies there already, and what has become of it.

One end writes the file, the other one only knows that there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bpipe.errors import NotConnected, PeerAborted, SessionEnded, SessionLost
from bpipe.report.format import format_duration, format_size
from bpipe.report.totals import Done, count, exactly
from bpipe.status import Status, Tally

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome


class Writing(NamedTuple):
    """What comes is written to a file."""

    file: str
    base: int  # bytes that lie there, or in its part
    in_place: bool  # a disk, whose content is overwritten
    # The other end hears what lies there, and need not send it; None: if it is a process of ours.
    told: bool | None

    def words(self) -> str:
        if self.in_place:
            return f"{self.file} is written in place: what differs is overwritten"
        if not self.base:
            return f"{self.file}: nothing of it is here yet"
        here = f"{self.file}: {format_size(self.base)} are here already"
        if self.told is None:
            return here
        return f"{here}; {'what is equal is not sent' if self.told else 'all of it is sent again'}"


class StdinUnread(NamedTuple):
    """There is something on stdin, which nobody reads where what comes goes to a file."""

    def words(self) -> str:
        return "stdin is not read with --output, although there is something on it"


def told(
    done: Done, failure: SessionEnded | None, status: Status, filed: FileOutcome | None, ends: str
) -> Done:
    """The same end of a run, with what is to be told of the file.

    ``filed`` is None at the end that does not write it. ``ends``: what can be started again; empty
    for somebody who knows what to do.
    """
    if failure is None:
        done = done._replace(advice=_success(done, status.tally or Tally(), filed))
    elif isinstance(failure, NotConnected):
        done = done._replace(advice=done.advice.removeprefix("nothing was read from stdin: "))
    else:
        done = done._replace(advice="; ".join(_after(failure, status, filed, ends)))
    if filed is not None and filed.named:
        return done._replace(file=filed.file)
    return done._replace(part=filed.part) if filed is not None and filed.kept else done


def _success(done: Done, tally: Tally, filed: FileOutcome | None) -> str:
    totals = done.totals
    verb, where, moved = "sent", "there", totals.sent
    if filed is not None:
        verb, where, moved = "received", "here", totals.received
    length = moved + tally.equal
    said = f"{verb} {exactly(moved)}"
    if tally.equal:
        said += f" of {format_size(length)}, as the rest was {where},"
    rate = format_size(length / max(totals.elapsed, 0.001))
    whole = " with the rest" if tally.equal else ""
    said += f" in {format_duration(totals.elapsed)} ({rate}/s{whole}){done.ways}"
    if totals.reconnects:
        said += f", {count(totals.reconnects, 'reconnect')}"
    said += ", all on the disk there" if filed is None else f"; {_place(filed)}"
    lacking = (done.size or 0) - length
    return f"{said}; {exactly(lacking)} less than expected" if lacking > 0 else said


def _place(filed: FileOutcome) -> str:
    if not filed.tail:
        return f"{filed.file} is on the disk"
    return f"{filed.file} is on the disk, and its last {exactly(filed.tail)} are as before"


def _after(
    failure: SessionEnded, status: Status, filed: FileOutcome | None, ends: str
) -> list[str]:
    """How far a session got that has failed, and what to do.

    Of a failure at the other end, only its words tell whether anything is left there.
    """
    parts = []
    if filed is not None:
        parts.append(
            f"what has come stays in {filed.part}" if filed.kept else f"{filed.file} is not written"
        )
    elif status.written and not isinstance(failure, SessionLost):  # which says it
        parts.append(f"{count(status.confirmed, 'byte')} confirmed, {status.unconfirmed} more not")
    again = not _of_protocol(failure)
    if ends and filed is None and (isinstance(failure, PeerAborted) or not again):
        parts.append("what the other end keeps is not sent again")
    elif ends and (filed is None or (again and filed.kept and not filed.hopeless)):
        parts.append(f"the same command{' goes' if ends == 'it' else 's go'} on from there")
    return parts


def _of_protocol(failure: SessionEnded) -> bool:
    """Whether one of both would misunderstand the other again."""
    return str(failure).removeprefix('the other end: "').startswith("protocol error: ")
