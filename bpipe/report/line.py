"""The status line of one pipe: what a person who waits for it wants to know, at any width.

``line`` lays out a ``View`` (``meter.py``), and is a pure function. 200 columns say everything, and
60 what matters: is it moving, is it safe; and if it is not, why.

A bar tells one thing only, how much is done; so there is one if the size is known.
"""

from __future__ import annotations

import math
from typing import Final

from bpipe.report.format import format_duration, format_size, format_sizes
from bpipe.report.meter import View, inward, moved, waiting_for_peer
from bpipe.report.rates import at_most
from bpipe.report.segments import FINE, Glyphs, Segment, Span, fit, printable, shortening
from bpipe.report.totals import count
from bpipe.status import State, Status, Tally

STALL: Final = 2.0  # seconds without a byte after which a rate would be one of old
TOLD: Final = 1024  # bytes of a stream to a file that may be words about it
NEARLY: Final = 0.9  # of the rate that the peer is told: then it is what it waits for
SOON: Final = 3600.0  # when this few seconds are left, a line that is not so wide says so, too


def line(view: View, width: int, glyphs: Glyphs = FINE) -> list[Span]:
    """The status line, at most ``width`` columns."""
    return fit(_segments(view, glyphs), width)


def _segments(view: View, glyphs: Glyphs) -> list[Segment]:
    status, elapsed = view.status, whole(view.elapsed)
    end = [
        Segment((_reconnects(status), ""), (2,)),
        Segment((f"elapsed {elapsed}", elapsed, ""), (4, 5), "dim"),
    ]
    match status.state:
        case State.CONNECTING:
            return [_state(view), *_search(status, glyphs), *end]
        case State.RECONNECTING:
            safe = [*_progress(view, glyphs), *_amounts(view), *_held(status)]
            return [_state(view), *_search(status, glyphs), *safe, *end]
        case State.ABORTING:
            return [_state(view), *_amounts(view), *end]
        case _:
            moving = [*_progress(view, glyphs), *_amounts(view), *_pace(view), *_held(status)]
            return [_state(view), *_missing(status), *moving, *_round_trip(status), *end]


def _state(view: View) -> Segment:
    status = view.status
    waits = status.retry_in is None  # for somebody to call
    peer = printable(status.peer)
    match status.state:
        case State.CONNECTING:
            what, where = ("waiting for a caller", "at") if waits else ("connecting", "to")
            return Segment((f"{what} {where} {peer}", what), (3,), "bold magenta")
        case State.RECONNECTING:
            away = whole(status.away or 0.0)
            what = "reconnecting" if waits else f"reconnecting to {peer},"
            return Segment((f"{what} {away}", f"reconnecting {away}"), (3,), "bold magenta")
        case State.CONNECTED if waiting_for_peer(status):
            return Segment((f"waiting for {view.far}",), (), "bold")
        case State.CONNECTED if not _ending(status):
            return Segment((f"connected to {peer}", "connected"), (3,), "bold green")
        case State.ABORTING:
            return Segment(("telling the other end",), (), "bold magenta")
        case _:
            return Segment(("finishing",), (), "bold green")


def _ending(status: Status) -> bool:
    """Whether the longer stream is complete, and only the last of it is still under way."""
    if inward(status):
        return status.peer_finished and (status.finished or status.received > status.delivered)
    return status.finished and (status.written > 0 or status.tally is not None)


def _search(status: Status, glyphs: Glyphs) -> list[Segment]:
    """What is done to get a connection, and why there is none."""
    cause = because(reason(status), glyphs)
    if status.retry_in is None:
        waiting = status.state is State.RECONNECTING
        back = "waiting for the caller to come back"
        back += ", or another" if status.tally is not None and status.tally.incoming else ""
        search = [Segment((back, "caller away", ""), (6, 9))]
        return [*search * waiting, *cause, *_end_of_patience(status)]
    when = f"in {whole(status.retry_in)}" if status.retry_in >= 1 else "now"
    attempt = Segment((f"attempt {status.attempts + 1} {when}", ""), (8,), "magenta")
    return [attempt, *cause, *_end_of_patience(status)]


def reason(status: Status) -> str:
    """Why there is no connection, without the peer: that stands elsewhere."""
    return status.cause.removeprefix(f"{status.peer}: ")


def because(reason: str, glyphs: Glyphs) -> list[Segment]:
    """The same on the line, if there is any."""
    return [shortening(printable(reason), glyphs.more)] if reason else []


def _end_of_patience(status: Status) -> list[Segment]:
    """When the search ends, with an error; before that comes near, only if there is room.

    What is done now, and why, is told rather than that.
    """
    if status.gives_up_in is None:
        return []
    near = status.gives_up_in < SOON
    said = f"gives up in {whole(status.gives_up_in)}"
    return [Segment((said, ""), (7 if near else 0,), "magenta" if near else "dim")]


def _progress(view: View, glyphs: Glyphs) -> list[Segment]:
    """How much of a size that is known is done."""
    if not view.size:
        return []
    safe = moved(view.status)
    if view.status.tally is not None and view.status.state is not State.FINISHING:
        safe = min(safe, view.size * 99 // 100)  # all of it is done when it has its name
    percent = f"{safe * 100 // view.size}%"
    variants = [f"{gauge(safe, view.size, length, glyphs)} {percent}" for length in (20, 10, 6)]
    return [Segment((*variants, percent, ""), (5, 7, 12, 16))]


def _amounts(view: View) -> list[Segment]:
    """How much is safe, the direction with more of it first."""
    status, size = view.status, view.size
    verb, other_verb, other = "sent", "received", status.delivered
    if inward(status):
        verb, other_verb, other = other_verb, verb, status.confirmed
    if status.tally is not None and status.tally.compared:
        return [_comparison(status.tally)]
    amount = format_size(moved(status))
    of = [f"{verb} {amount} of {format_size(size)}"] if size else []
    ranks = (7, 9, 11) if size else (9, 16)
    segments = [Segment((*of, f"{verb} {amount}", amount, ""), ranks, "bold")]
    if other:
        segments.append(Segment((f"{other_verb} {format_size(other)}", ""), (6,)))
    return segments


def _comparison(tally: Tally) -> Segment:
    """How much of what lies there is what was to be sent."""
    verb = "received" if tally.incoming else "sent"
    compared, equal, moved = format_sizes(*tally[:3])
    long = f"{compared} compared, {equal} equal, {moved} {verb}"
    equal, moved = format_sizes(tally.equal, tally.moved)
    return Segment((long, f"{equal} equal, {moved} {verb}", ""), (10, 16), "bold")


def _pace(view: View) -> list[Segment]:
    """How fast it goes; if it does not, who is waited for."""
    status = view.status
    if status.silence is not None:
        silence = whole(status.silence)
        return [Segment((f"nothing heard for {silence}", f"silent {silence}"), (8,), "magenta")]
    if view.still:
        return [_waited_for(status)]
    if view.quiet >= STALL:
        return [Segment((f"nothing moved for {whole(view.quiet)}", "stalled"), (8,))]
    segments = [Segment((f"{format_size(view.rate)}/s",)), *_at_most(view)]
    if view.size and view.rate >= 1 and (left := view.size - moved(status)) > 0:
        time_left = whole(left / view.rate + 1)
        segments.append(Segment((f"{time_left} left", time_left, ""), (13, 15)))
    return segments


def _at_most(view: View) -> list[Segment]:
    """The rate that holds it up; of what comes it is known by how fast that is."""
    most = view.status.held_to
    if inward(view.status):
        most = view.allowed if view.rate >= NEARLY * (view.allowed or math.inf) else None
    return [] if most is None else [Segment((at_most(most), ""), (14,))]


def _waited_for(status: Status) -> Segment:
    """Who it is that nothing moves for."""
    if status.unconfirmed:
        return Segment(("the far side takes nothing", "stalled"), (8,), "magenta")
    if status.received > status.delivered:
        who = "stdout" if status.tally is None else "the disk"
        return Segment((f"{who} takes nothing", "stalled"), (8,), "magenta")
    if not status.finished and not inward(status) and (status.written or status.peer_finished):
        return Segment(("stdin gives nothing", "idle"), (8,))
    if status.received or status.finished:
        return Segment(("the far side sends nothing", "idle"), (8,))
    return Segment(("idle",))


def _held(status: Status) -> list[Segment]:
    """What this end holds because it is not safe yet; more of it when that matters."""
    if inward(status):
        who = "stdout" if status.tally is None else "the disk"
        held, why = status.received - status.delivered, f"for {who}"
    else:
        held, why = status.unconfirmed, "until confirmed"
    if held < (1 if status.tally is None else TOLD):
        return []
    amount, size = format_size(held), format_size(status.buffer_size)
    away = status.state is State.RECONNECTING
    if held >= status.buffer_size:
        variants = f"{amount} held {why}: full", f"{amount} held: full", "full", ""
        return [Segment(variants, (3, 15, 16) if away else (3, 7, 12), "magenta")]
    of = f"{amount} of {size}" if away else amount
    return [Segment((f"{of} held {why}", f"{amount} held", ""), (3, 15 if away else 6))]


def _missing(status: Status) -> list[Segment]:
    """How many links there are, if that is not all that there may be."""
    up, slots = status.up, len(status.slots)
    if status.state is not State.CONNECTED or up in (0, slots):
        return []
    return [Segment((f"{up} of {slots} links", ""), (10,), "magenta")]


def _round_trip(status: Status) -> list[Segment]:
    """How far the far side is, and, if there are several ways and all are good, how many."""
    up = status.up if status.up == len(status.slots) else 0
    ways = [Segment((f"{up} links", ""), (1,), "dim")] * (up > 0)
    if status.round_trip is None:
        return ways
    return [*ways, Segment((f"round trip {format_duration(status.round_trip)}", ""), (0,), "dim")]


def _reconnects(status: Status) -> str:
    return count(status.reconnects, "reconnect") if status.reconnects else ""


def whole(seconds: float) -> str:
    """A duration that does not flicker."""
    return format_duration(int(seconds)) if seconds >= 1 else "0s"


def gauge(part: int, whole: int, length: int, glyphs: Glyphs) -> str:
    """A bar of this many characters; it is empty, or full, only if ``part`` really is."""
    filled = -(-part * length // whole)
    if filled == length and part < whole and length > 1:
        filled -= 1
    return glyphs.full * filled + glyphs.empty * (length - filled)
