"""The status line: what a person who waits for a pipe wants to know, at any width.

Theory of operation. ``Meter`` makes a ``View`` of a pipe's status; ``line`` lays it out, and is a
pure function. The line consists of segments, each of which can be said at greater or lesser
length. As long as the line does not fit, something is said more shortly, in the order of what is
missed least. So 200 columns say everything, and 60 what matters: is it moving, is it safe.

What counts is what the far consumer has confirmed, not what was put on the way: a hundred per
cent are not reached before all of it is safe.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from typing import Final, NamedTuple

from bpipe.cli.events import count
from bpipe.cli.values import format_duration, format_size
from bpipe.pipe import State, Status

RATE_WINDOW: Final = 8.0  # seconds over which a rate is taken
SOON: Final = 3600.0  # seconds before this end gives up from which on that is said everywhere
BAR: Final = "█░"
ASCII_BAR: Final = "#-"

_GAP: Final = "  "


class View(NamedTuple):
    """What is shown. Counts are bytes, times are seconds."""

    status: Status
    rate: float  # per second, of the direction that has moved more
    size: int | None  # what that direction will have moved in the end
    elapsed: float
    still: bool = False  # nothing has moved for as long as a rate is taken over


class Piece(NamedTuple):
    """A part of the line in one style, which is one of rich's."""

    text: str
    style: str = ""


class Segment(NamedTuple):
    """The same in several lengths, the longest first.

    Each rank belongs to one step from a length to the next; those of the lowest rank are taken
    first.
    """

    variants: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    style: str = ""


class Meter:
    """Makes views of a pipe's status.

    ``size`` is that of the longer stream, if it is known, or (``of_stdin``) of what is sent.
    """

    def __init__(self, size: int | None, now: float, *, of_stdin: bool = False) -> None:
        self._size = size
        self._of_stdin = of_stdin
        self._since = now  # the first connection, once there was one
        self._up = False
        self._samples: deque[tuple[float, Status]] = deque(maxlen=100)

    def note(self, status: Status, now: float) -> None:
        """The first connection may be up."""
        if status.links and not self._up:
            self._up, self._since = True, now

    def elapsed(self, now: float) -> float:
        """Seconds since the first connection, or without one since the start."""
        return now - self._since

    def view(self, status: Status, now: float) -> View:
        """What is to be shown now. The rate is that of the last seconds with a connection."""
        if status.state in (State.CONNECTING, State.RECONNECTING):
            self._samples.clear()
        self._samples.append((now, status))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW:
            self._samples.popleft()
        began, first = self._samples[0]
        before = _safe(first, inward(status))
        rate = max(0, moved(status) - before) / max(now - began, 0.1)
        still = rate < 1 and now - began >= RATE_WINDOW
        return View(status, rate, self._credible_size(status), self.elapsed(now), still)

    def _credible_size(self, status: Status) -> int | None:
        """The size, if it can be that of the longer stream; none any more when it was exceeded."""
        other = self._of_stdin and inward(status)
        longer = max(status.received, status.written)
        return None if other or self._size is None or longer > self._size else self._size


def moved(status: Status) -> int:
    """The bytes that are safe, of the direction that has more of them."""
    return _safe(status, inward(status))


def _safe(status: Status, inwards: bool) -> int:
    """The bytes that are safe, of this direction."""
    return status.delivered if inwards else status.confirmed


def inward(status: Status) -> bool:
    """Whether more has come than gone."""
    return status.received > status.written


def line(view: View, width: int, bar: str = BAR) -> list[Piece]:
    """The status line, at most ``width`` columns; ``bar`` has the full and the empty character."""
    segments = _segments(view, bar)
    lengths = [[columns(variant) for variant in segment.variants] for segment in segments]
    chosen = [0] * len(segments)

    def excess() -> int:
        shown = [lengths[i][pick] for i, pick in enumerate(chosen) if lengths[i][pick]]
        return sum(shown) + len(_GAP) * (len(shown) - 1) - width

    steps = [(rank, i) for i, segment in enumerate(segments) for rank in segment.ranks]
    for _, i in sorted(steps):
        if excess() <= 0:
            break
        chosen[i] += 1
    pieces: list[Piece] = []
    for segment, pick in zip(segments, chosen, strict=True):
        if segment.variants[pick]:
            pieces += [Piece(_GAP)] if pieces else []
            pieces.append(Piece(segment.variants[pick], segment.style))
    return _crop(pieces, width)


def _segments(view: View, bar: str) -> list[Segment]:
    status, elapsed = view.status, whole(view.elapsed)
    end = [
        Segment((_reconnects(status), ""), (2,)),
        Segment((f"elapsed {elapsed}", elapsed, ""), (4, 5), "dim"),
    ]
    match status.state:
        case State.CONNECTING:
            return [_state(status), *_search(status), *end]
        case State.RECONNECTING:
            return [_state(status), *_search(status), *_amounts(view), _buffer(status, bar), *end]
        case State.ABORTING:
            return [_state(status), *_amounts(view), *end]
        case _:
            moving = [*_amounts(view), *_pace(view), _buffer(status, bar)]
            return [_state(status), *moving, *_round_trip(status), *end]


def _state(status: Status) -> Segment:
    waits = status.retry_in is None  # for somebody to call
    peer = printable(status.peer)
    match status.state:
        case State.CONNECTING:
            what, where = ("waiting for a caller", "at") if waits else ("connecting", "to")
            return Segment((f"{what} {where} {peer}", what), (3,), "bold yellow")
        case State.RECONNECTING:
            outage = whole(status.outage or 0.0)
            what = "reconnecting" if waits else f"reconnecting to {peer},"
            return Segment((f"{what} {outage}", f"reconnecting {outage}"), (3,), "bold yellow")
        case State.CONNECTED if _waiting_for_peer(status):
            return Segment(("waiting for the peer",), (), "bold cyan")
        case State.CONNECTED if not _ending(status):
            return Segment((f"connected to {peer}", "connected"), (3,), "bold green")
        case State.ABORTING:
            return Segment(("telling the other end",), (), "bold yellow")
        case _:
            return Segment(("finishing",), (), "bold green")


def _waiting_for_peer(status: Status) -> bool:
    """Whether everything of ours is safe, and only the peer has not ended its own stream."""
    return status.finished and not status.unconfirmed and not inward(status) and status.written > 0


def _ending(status: Status) -> bool:
    """Whether the longer stream is complete, and only the last of it is still under way."""
    if inward(status):
        return status.peer_finished and (status.finished or status.received > status.delivered)
    return status.finished and status.written > 0


def _search(status: Status) -> list[Segment]:
    """What is done to get a connection."""
    if status.retry_in is None:
        waiting = status.state is State.RECONNECTING
        search = [Segment(("waiting for the caller to come back", "caller away"), (8,))] * waiting
        return [*search, *_end_of_patience(status)]
    when = f"in {whole(status.retry_in)}" if status.retry_in >= 1 else "now"
    attempt = f"attempt {status.attempts + 1} {when}"
    weight = 1 if status.state is State.RECONNECTING else 9  # a wrong address, perhaps
    return [
        Segment((attempt, ""), (8,), "yellow"),
        Segment((printable(status.cause), ""), (weight,), "dim"),
        *_end_of_patience(status),
    ]


def _end_of_patience(status: Status) -> list[Segment]:
    """When the search ends, with an error; before that comes near, only if there is room."""
    if status.gives_up_in is None:
        return []
    near = status.gives_up_in < SOON
    said = f"gives up in {whole(status.gives_up_in)}"
    return [Segment((said, ""), (13 if near else 0,), "yellow" if near else "dim")]


def _amounts(view: View) -> list[Segment]:
    """How much is safe, the direction with more of it first."""
    status, safe, size = view.status, moved(view.status), view.size
    verb, other_verb, other = "sent", "received", status.delivered
    if inward(status):
        verb, other_verb, other = other_verb, verb, status.confirmed
    amount = format_size(safe)
    if size:
        percent = f"{safe * 100 // size}%"
        known = f"{verb} {amount} of {format_size(size)}, {percent}", f"{amount}, {percent}"
        segments = [Segment(known, (7,), "bold")]
    else:
        segments = [Segment((f"{verb} {amount}", amount), (9,), "bold")]
    if other:
        segments.append(Segment((f"{other_verb} {format_size(other)}", ""), (6,)))
    return segments


def _pace(view: View) -> list[Segment]:
    """How fast it goes; if it does not, who is waited for."""
    status = view.status
    if status.silence is not None:
        silence = whole(status.silence)
        return [Segment((f"nothing heard for {silence}", f"silent {silence}"), (8,), "yellow")]
    if view.still:
        if status.unconfirmed:
            return [Segment(("the far side takes nothing", "stalled"), (8,), "yellow")]
        if status.received > status.delivered:
            return [Segment(("stdout takes nothing", "stalled"), (8,), "yellow")]
        return [Segment(("idle",))]
    segments = [Segment((f"{format_size(view.rate)}/s",))]
    if view.size and view.rate >= 1 and (left := view.size - moved(status)) > 0:
        time_left = whole(left / view.rate + 1)
        segments.append(Segment((f"{time_left} left", time_left, ""), (6, 11), "cyan"))
    return segments


def _buffer(status: Status, bar: str) -> Segment:
    """What this end holds because it is not safe yet, against what it can hold."""
    if inward(status):
        what, held = "wait for stdout", status.received - status.delivered
    else:
        what, held = "unconfirmed", status.unconfirmed
        if status.state is State.RECONNECTING and held:
            what += ", and kept"
    amount, size = format_size(held), status.buffer_size
    variants = (
        f"{gauge(held, size, 20, bar)} {amount} of {format_size(size)} {what}",
        f"{gauge(held, size, 10, bar)} {amount} {what}",
        f"{gauge(held, size, 6, bar)} {amount}",
        gauge(held, size, 6, bar),
        "",
    )
    return Segment(variants, (3, 5, 7, 12), "magenta")


def _round_trip(status: Status) -> list[Segment]:
    if status.round_trip is None:
        return []
    return [Segment((f"round trip {format_duration(status.round_trip)}", ""), (0,), "dim")]


def _reconnects(status: Status) -> str:
    return count(status.reconnects, "reconnect") if status.reconnects else ""


def whole(seconds: float) -> str:
    """A duration that does not flicker."""
    return format_duration(int(seconds)) if seconds >= 1 else "0s"


def gauge(part: int, whole: int, length: int, bar: str) -> str:
    """A bar of this many characters; it is empty, or full, only if ``part`` really is."""
    filled = -(-part * length // whole)
    if filled == length and part < whole and length > 1:
        filled -= 1
    return bar[0] * filled + bar[1] * (length - filled)


def columns(text: str) -> int:
    """How wide a terminal shows this."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def printable(text: str) -> str:
    """The same without what a terminal would act upon."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _crop(pieces: list[Piece], width: int) -> list[Piece]:
    """The first ``width`` columns."""
    cropped = []
    for text, style in pieces:
        while columns(text) > width:
            text = text[:-1]
        width -= columns(text)
        cropped.append(Piece(text, style))
    return cropped
