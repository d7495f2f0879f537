"""The status line of a process that serves many sessions: how many, whether it moves, what fails.

``service_line`` lays out a ``Listener``, and is a pure function, as ``line.py`` is for one pipe.
What was moved in all is shown while something moves: it is no news of a process that waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bpipe.report.format import format_size, format_sizes
from bpipe.report.line import because, reason, whole
from bpipe.report.segments import FINE, Glyphs, Segment, Span, fit, printable
from bpipe.report.totals import Listener, Totals, count
from bpipe.status import Status


class Outage(NamedTuple):
    """All sessions are without a connection."""

    away: float | None  # seconds since one of them was heard, if that ever was
    cause: str


def outage(sessions: Sequence[Status]) -> Outage | None:
    """Whether that is so. Of several causes it has the one of who was heard last."""
    if not sessions or not all(each.state.away for each in sessions):
        return None
    last = min(sessions, key=lambda each: math.inf if each.away is None else each.away)
    return Outage(last.away, reason(last))


def service_line(
    now: Listener, out: Outage | None, width: int, glyphs: Glyphs = FINE
) -> list[Span]:
    """The status line, at most ``width`` columns."""
    elapsed = whole(now.totals.elapsed)
    reconnects = now.totals.reconnects
    parts = [
        _state(now),
        _sessions(now),
        *_away(now, out, glyphs),
        _told(now.failed, f"{now.failed} failed", 12, "magenta"),
        *(_amounts(now) if now.rate else ()),
        _pace(now, out),
        _told(now.held, f"{format_size(now.held)} held", 6),
        _told(now.served > now.sessions, f"{now.served} in all", 3),
        _told(now.refused, f"{count(now.refused, 'caller')} refused", 1, "dim"),
        _told(reconnects, count(reconnects, "reconnect"), 2),
        Segment((f"elapsed {elapsed}", elapsed, ""), (4, 5), "dim"),
    ]
    return fit(parts, width)


def _told(applies: float, text: str, rank: int, style: str = "") -> Segment:
    """What is said if there is something to say, and left out at this rank."""
    return Segment((text, ""), (rank,), style) if applies else Segment(("",))


def _state(now: Listener) -> Segment:
    if now.draining:
        return Segment(("draining",), (), "bold magenta")
    name = printable(now.address)
    return Segment((f"serving at {name}", "serving"), (7,), "bold green")


def _sessions(now: Listener) -> Segment:
    """How many there are; of how many there may be, where that comes near."""
    said = count(now.sessions, "session")
    if not now.draining and 2 * now.sessions > now.most:
        return Segment((f"{now.sessions} of {count(now.most, 'session')}", said), (8,))
    return Segment((said,))


def _away(now: Listener, out: Outage | None, glyphs: Glyphs) -> list[Segment]:
    """How many have no connection; if that are all, for how long, and why."""
    if out is None:
        return [_told(now.away, f"{now.away} away", 13, "magenta")]
    since = "" if out.away is None else f" for {whole(out.away)}"
    none = Segment((f"no connection{since}", "no connection"), (8,), "bold magenta")
    return [none, *because(out.cause, glyphs)]


def _pace(now: Listener, out: Outage | None) -> Segment:
    if now.rate:
        return Segment((f"{format_size(now.rate)}/s",))
    return Segment(("idle" if now.sessions and out is None else "",))


def _amounts(now: Listener) -> list[Segment]:
    """How much is safe, the direction with more of it first; and how much was there before."""
    both = [("sent", now.totals.confirmed), ("received", now.totals.delivered)]
    both.sort(key=lambda each: -each[1])
    (verb, more), (other, less) = both
    amount = format_size(more)
    return [
        _comparison(now.totals),
        Segment((f"{verb} {amount}", amount, ""), (10, 11), "bold") if more else Segment(("",)),
        _told(less, f"{other} {format_size(less)}", 9),
    ]


def _comparison(totals: Totals) -> Segment:
    """How much of what lay in files was what was to be sent."""
    if not totals.compared:
        return Segment(("",))
    compared, equal = format_sizes(totals.compared, totals.equal)
    long = f"{compared} compared, {equal} equal"
    return Segment((long, f"{format_size(totals.equal)} equal", ""), (8, 9))
