"""Channel: the conversation of a session over one link.

Everything here starts anew on each link, which is why it is one object that is thrown away and
not fields of the session that somebody has to remember to reset: half frames, their size, the
heartbeat, and what is due.

Theory of operation. Whatever has to survive a lost frame is *state* of the session, and is said
anew by every channel, and not an event: STOP first, then an ACK whether or not its number has
moved, then ABORT, then the stream from where the peer stands. What is heard goes to the session's
halves, or to the session, which knows no frame.
"""

from __future__ import annotations

from typing import Final, Protocol

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.ending import MOVING
from bpipe.protocol.frames import Frames, Sink
from bpipe.protocol.history import Loss
from bpipe.protocol.lender import lender
from bpipe.protocol.liveness import Liveness
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.trace import Trace
from bpipe.protocol.wire import Ended, Finish, Header, Kind, Stop

ACK_DELAY: Final = 0.010  # seconds from delivery to its ACK, unless a quarter of the window is due


class Arrivals(Sink, Protocol):
    """Where the peer's stream goes: a BackedReader, or what stands before it."""

    received: int  # raised by everything of it that is new

    def receive_mark(self, number: int, ended: Finish = ...) -> None:
        """A FIN came; ProtocolError if it may not."""


class Channel:
    """What is said and heard over one link; a ``Driver``. ``frames`` are those of that link."""

    slot = 0
    rank = (False, 0.0)  # of the only one

    def __init__(self, session: Session, frames: Frames, now: float) -> None:
        frames.join(session.reader)
        self.liveness = Liveness(session.patience.limits.heartbeat, now)
        self._session = session
        self._reader = session.reader
        self._arrivals: Arrivals = session.reader
        self._writer = session.writer
        self._ending = session.ending
        self._frames = frames
        self._trace: Trace = session
        self._lender = lender(session, frames)
        self._progress = False  # a byte of a stream, or an ACK that moved, came over this link
        self._lent: Views = []  # what goes out next; begun, so it has to go out whole
        self._ack_due = True  # an ACK is the first thing said on every link, after STOP
        self._ack_at: float | None = None
        self._stop_due = True
        self._abort_due = True
        self._bye_due = True
        self._bye_lent = False
        self._mark_lent = False  # an ACK of the peer's end mark is, or was, among what was lent
        self._told_at: float | None = None  # when that was on the link
        self._owed: dict[Kind, int] = {}  # PONG and RATE: of several only the last
        if session.rate.own is not None:
            self._owed[Kind.RATE] = session.rate.own.rate

    def detach(self, cause: LinkLost, now: float) -> None:
        """The link is gone: nothing of it is used any more."""
        heard_at = self.liveness.heard_at
        told = self._told_at is not None and heard_at > self._told_at
        loss = Loss(cause, heard_at, told=told, progress=self._progress)
        self._session.detach(loss, now, self.slot)

    # --- out ---

    def outgoing(self, now: float) -> Views:
        """What to put on the link next, in order; ``[]`` when there is nothing to say."""
        if not self._ack_due and (moved := self._reader.unacknowledged) > 0:
            self._consider_ack(moved, now)
        if self._lent:
            return self._lender.again(self._lent, now)
        if small := self._small_frames(now):
            self._lent.append(memoryview(small))
        if self._session.established and self._ending.phase in MOVING:
            return self._lender.lend(self._lent, now)
        return self._lent

    def sent(self, count: int, now: float) -> None:
        """The first ``count`` bytes of ``outgoing`` are on the link."""
        self.liveness.sent(now)
        lent, done = self._lent, 0
        while done < len(lent) and count >= len(lent[done]):
            count -= len(lent[done])
            done += 1
        del lent[:done]
        if lent:
            lent[0] = lent[0][count:]
            return
        if self._mark_lent and self._told_at is None:
            self._told_at = now
        if self._bye_lent:
            self._wrote_bye(now)

    def _wrote_bye(self, now: float) -> None:
        self._ending.wrote_bye()
        self._session.settle(now)

    def _consider_ack(self, moved: int, now: float) -> None:
        """An ACK is due at once for the end mark, or for a quarter of what either end can hold.

        What the peer can hold is that of its other direction, which it has told. Anything less
        is due soon. The last ACK, before an ABORT or its answer, tells exactly how far it got.
        """
        reader = self._reader
        large = moved * 4 >= min(reader.capacity, self._writer.window)
        if large or reader.done or self._ending.phase not in MOVING:
            self._ack_due = True
        elif self._ack_at is None:
            self._ack_at = now + ACK_DELAY
        elif now >= self._ack_at:
            self._ack_due = True

    def _small_frames(self, now: float) -> bytes:
        """What is due of everything that is not the stream, in the order that it has to have."""
        ending, reader = self._ending, self._reader
        small = b""
        if self._owed:  # before the peer may begin its stream, it knows the rate
            small += b"".join([self._pack(kind, number) for kind, number in self._owed.items()])
            self._owed.clear()
        if self._stop_due and reader.stopped is not None and not ending.peer_bye:
            self._stop_due = False
            small += self._pack(Kind.STOP, reader.stopped, (reader.why, 0))
        if self._ack_due:
            self._ack_due, self._ack_at = False, None
            self._mark_lent = reader.done
            small += self._pack(Kind.ACK, reader.acknowledge())
        if self._abort_due and ending.abort:
            self._abort_due = False
            reason, message = ending.abort_message()
            small += self._pack(Kind.ABORT, reason, message=message)
        if self.liveness.ping_due:
            small += self._pack(Kind.PING, self.liveness.ping(now))
        if self._bye_due and ending.parting:
            self._bye_due, self._bye_lent = False, True
            small += self._pack(Kind.BYE, 0, self._writer.exit)
        return small

    def _pack(
        self, kind: Kind, number: int, finish: tuple[int, int] = (0, 0), message: bytes = b""
    ) -> bytes:
        if self._trace.trace is not None:
            self._trace.log(">", f"{kind.name} {number}")
        return self._frames.pack(kind, number, message, *finish)

    # --- in ---

    def incoming(self) -> Views:
        """Where the next bytes from the link belong, in order; never empty."""
        return self._frames.incoming()

    def received(self, count: int, now: float) -> None:
        """``count`` bytes (at least 1) arrived where ``incoming`` said.

        Raises ProtocolError if they are not what the peer may say now. What came before a junk
        header is progress anyway.
        """
        self.liveness.heard(now)
        before = self._arrivals.received
        try:
            for header in self._frames.receive(count):
                self._hear(header, now)
        finally:
            if self._arrivals.received > before:
                self._progress = True
                self.liveness.verified(now)
                self._session.progressed(now)

    @property
    def midway(self) -> bool:
        """Whether more of a frame is to come, of which something has."""
        return self._frames.missing > 0

    @property
    def passable(self) -> int:
        """How many of the bytes that come next may go straight to the consumer, unseen."""
        frames = self._frames
        return frames.missing if frames.passing and self._reader.passing else 0

    def passed(self, count: int, now: float) -> None:
        """``count`` of them did, and the consumer has them."""
        self.liveness.heard(now)
        self.liveness.verified(now)
        self._frames.passed(count)
        self._reader.receive_passed(count)
        self._progress = True
        self._session.progressed(now)

    def _hear(self, header: Header, now: float) -> None:
        """A frame has come; the payload of DATA has gone, or goes, straight to the reader."""
        self.liveness.verified(now)
        kind, length, number, how, status = header
        session = self._session
        if self._trace.trace is not None:
            self._trace.log("<", f"{kind.name} {number}" + (f" +{length}" if length else ""))
        if kind is Kind.DATA:
            if not session.established:
                session.establish()
            return
        if kind is Kind.ACK:
            if self._writer.acknowledge(number):
                self._moved(now)
        elif kind is Kind.FIN:
            self._arrivals.receive_mark(number, Finish(Ended(how), status))
            session.changed()
        elif kind is Kind.PING:
            self._owed[Kind.PONG] = number
        elif kind is Kind.PONG:
            self.liveness.pong(number, now)
        else:
            self._hear_more(header, now)
        session.heard(now, crossed=kind is Kind.PONG)

    def _moved(self, now: float) -> None:
        """The peer has taken more of the stream, as it says."""
        self._progress = True
        self._session.progressed(now)

    def _hear_more(self, header: Header, now: float) -> None:
        """A frame that ends a stream, or the session, or tells what the peer allows."""
        self._session.changed()
        kind, _, number, how, status = header
        if kind is Kind.STOP:
            moved = self._writer.stop(number, consumer_gone=how == Stop.CONSUMER_GONE)
            self._session.patience.asked(now)
            if moved:
                self._moved(now)
        elif kind is Kind.BYE and not number:
            self._ending.hear_bye()
            self._reader.exited(Finish(Ended(how), status))
        elif kind is Kind.ABORT:
            self._ending.hear_abort(number, self._frames.message)
            self._reader.discard()
        elif kind is Kind.RATE:
            self._session.rate.hear(number)
            self._lender = self._lender.limited()
        else:
            raise ProtocolError(f"{kind.name} that may not be said")

    def suspect(self, now: float, *, away: bool) -> None:
        """The system says that there is no way to the peer; or, not ``away``, that one is back."""
        self.liveness.suspect(now, away=away)

    # --- time ---

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the peer was silent for too long."""
        if self.liveness.tick(now) or (self._ack_at is not None and now >= self._ack_at):
            self._ack_due, self._ack_at = True, None

    def deadline(self) -> float:
        """When ``tick`` has to be called."""
        deadline = self.liveness.deadline()
        return deadline if self._ack_at is None else min(deadline, self._ack_at)
