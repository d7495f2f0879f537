"""Lenders: what lends the frames of a stream to one link. A session with a rate has another one."""

from __future__ import annotations

from typing import Protocol

from bpipe.protocol.frames import Frames
from bpipe.protocol.pace import Pace
from bpipe.protocol.rate import Rate
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.trace import Trace
from bpipe.protocol.wire import LARGEST_PAYLOAD, Kind
from bpipe.protocol.writer import Piece


class Supply(Protocol):
    """Where the frames of a stream come from: a BackedWriter, or what stands before it."""

    @property
    def sent(self) -> int:
        """What was begun on this link, in bytes from somewhere."""

    @property
    def acked(self) -> int:
        """What of that has arrived."""

    @property
    def due(self) -> int:
        """The bytes that frames may carry now."""

    def next_frame(self, limit: int) -> Piece | None:
        """Begin the next frame, of at most ``limit`` bytes; None if there is none."""


class Lender:
    """As fast as the link takes them."""

    def __init__(
        self, trace: Trace, frames: Frames, supply: Supply, rate: Rate, pace: Pace
    ) -> None:
        self._trace = trace
        self._writer = supply
        self._frames = frames
        self._rate = rate
        self._pace = pace

    def lend(self, lent: Views, now: float, most: int = LARGEST_PAYLOAD) -> Views:
        """Add the next frame of the stream to what is lent; returns what of that may go now."""
        writer = self._writer
        piece = writer.next_frame(self._pace.limit(writer.sent, writer.acked, now, most))
        if piece is None:
            return lent
        kind, number, payload, finish = piece
        if self._trace.trace is not None:
            size = f" +{len(payload)}" if payload else ""
            self._trace.log(">", f"{kind.name} {number}{size}")
        if kind is Kind.FIN:
            lent.append(memoryview(self._frames.pack(kind, number, b"", *finish)))
        else:
            lent += self._frames.pack_data(number, payload)
        return lent

    def again(self, lent: Views, now: float) -> Views:
        """This is left of what was lent: what of it may go now."""
        return lent

    def limited(self) -> Lender:
        """The same at the session's rate, which may have changed."""
        return LimitedLender(self._trace, self._frames, self._writer, self._rate, self._pace)


class LimitedLender(Lender):
    """No faster than the session's rate, and what is not of the stream goes first.

    A link asks again as soon as something has gone: what is missing then has gone just now. A frame
    that has begun when the rate changes goes on as if there were none: it is small for the old one,
    and all else would wait for it at the new one, perhaps for minutes.
    """

    def __init__(
        self, trace: Trace, frames: Frames, supply: Supply, rate: Rate, pace: Pace
    ) -> None:
        super().__init__(trace, frames, supply, rate, pace)
        self._said = self._own
        self._unpaid = 0  # bytes of a frame that was lent, which are not on the link yet

    def lend(self, lent: Views, now: float, most: int = LARGEST_PAYLOAD) -> Views:
        self._pay(0, now)
        self._say_change(lent)
        if lent:
            return lent
        due, around = self._writer.due, self._frames.around
        if not due:
            self._rate.rest()
        elif count := self._rate.begin(due + around, now):
            super().lend(lent, now, min(most, count - around))
            self._unpaid = sum(map(len, lent))
            return self.again(lent, now)
        return lent

    def again(self, lent: Views, now: float) -> Views:
        rest = sum(map(len, lent))
        self._pay(rest, now)
        if self._said != self._own:
            self._unpaid = 0
        return _first(lent, self._rate.allow(rest, now)) if self._unpaid else lent

    def limited(self) -> Lender:
        self._unpaid = 0
        return self

    @property
    def _own(self) -> int:
        return 0 if self._rate.own is None else self._rate.own.rate

    def _pay(self, rest: int, now: float) -> None:
        """So many bytes are left of what was lent."""
        if self._unpaid > rest:
            self._rate.draw(self._unpaid - rest, now)
            self._unpaid = rest

    def _say_change(self, lent: Views) -> None:
        """The peer is to know what this end's rate is by now."""
        if self._said != self._own:
            self._said = self._own
            self._trace.log(">", f"{Kind.RATE.name} {self._said}")
            lent.append(memoryview(self._frames.pack(Kind.RATE, self._said)))


def lender(
    session: Session,
    frames: Frames,
    supply: Supply | None = None,
    rate: Rate | None = None,
    trace: Trace | None = None,
) -> Lender:
    """What lends this session's stream to a link with these frames.

    It has a supply, a share in the rate and a trace of its own where it is one of several links.
    """
    pace = Pace(several=supply is not None)
    source, rate = supply or session.writer, rate or session.rate
    plain = Lender(trace or session, frames, source, rate, pace)
    return plain.limited() if session.rate.known else plain


def _first(views: Views, count: int) -> Views:
    """The first so many bytes of them."""
    first = []
    for view in views:
        if count > 0:
            first.append(view[:count])
            count -= len(view)
    return first
