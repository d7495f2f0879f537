"""Session: the two halves of a pipe over whichever link is attached.

Theory of operation. A session outlives its links. A link is attached by a greeting, which
settles where the peer stands; from then on the session says what goes out next (``outgoing``)
and where the next bytes belong (``incoming``). Everything that has to survive a lost frame is
*state*, said anew on each link, and not an event: STOP first, then an ACK whether or not its
number has moved, then ABORT, then the stream from where the peer stands. What belongs to one
link only (half a frame, the size of frames, the heartbeat) lives in ``Traffic`` and dies with it.

An answerer says nothing of its stream before it has heard a frame of the caller: until then
nobody can have taken anything of it, and the session may give way to another caller.

The end. An end is *done* when its own end mark is acknowledged and the peer's is delivered.
It says BYE on every link from then on, and is *over* when its BYE is written and the peer's has
come. An end that fails says ABORT until that is answered by BYE. How long an end
without a link stays is in ``Patience``, and what it says and reports in ``Ending``.

One thread owns a session. The producer and the consumer may be threads of their own; what
they may touch is said in ``writer.py`` and ``reader.py``.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final

from bpipe.errors import (
    BpipeError,
    Busy,
    LinkLost,
    NobodyListens,
    NotConnected,
    PipeClosed,
    ProtocolError,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.ending import Ending, unanswered
from bpipe.protocol.frames import Frames
from bpipe.protocol.patience import QUESTION, Limits, Patience
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.secret import Secret
from bpipe.protocol.traffic import Traffic
from bpipe.protocol.wire import (
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    Status,
    Stop,
)
from bpipe.protocol.writer import BackedWriter

FRUITLESS_LINKS: Final = 3  # links lost to protocol errors without progress that end a session
BUSY: Final = (
    "busy: the listener is serving another session; if that one is dead, press ^C there,"
    " or have it give up sooner (--give-up-after)"
)


class Session:
    """Both directions of one pipe. ``buffer_size`` bytes are kept for each."""

    def __init__(
        self,
        buffer_size: int,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        new_id: Callable[[], bytes] = lambda: secrets.token_bytes(16),
        secret: Secret | None = None,
    ) -> None:
        self.secret = secret  # which both ends share; None: links are plain
        self.resume_secret = b""  # which the two ends of this session share, on sealed links
        self.id: bytes | None = None
        self.epoch = 0  # of the last attempt (caller), of the last attached link (answerer)
        self.writer = BackedWriter(buffer_size)
        self.reader = BackedReader(buffer_size)
        self.patience = Patience(limits)
        self.established = False  # READY came (caller), or a frame after it (answerer)
        self.links = 0  # attached so far
        self.replayed = 0  # bytes that were begun on one link and begun again on a later one
        self.fruitless = 0  # links lost to protocol errors, in a row, without progress
        self.last_cause: BpipeError | None = (
            None  # why the last link was lost, or the last attempt failed
        )
        self.trace: Callable[[str, str], None] | None = None  # see _log
        self._new_id = new_id
        self._opened = False  # a caller's CONFIRM for this id may have arrived: RESUME from now on
        self._renewed = False  # the CONFIRM for an id that was given up may still arrive
        self._told = False  # the peer was heard on a link after an ACK of its end mark
        self._consumer_gone = ""  # what to say if there was more for it
        self._traffic: Traffic | None = None
        self._attached_at = 0.0  # the last link
        self._heard_at: float | None = None  # the last byte over the last link that was lost
        self._ending = Ending()

    # --- what the outside may ask ---

    @property
    def limits(self) -> Limits:
        """How long this end waits for what."""
        return self.patience.limits

    @property
    def outage_since(self) -> float | None:
        """When the last progress was made before the link was lost; None: it is not lost."""
        return self.patience.outage_since

    @property
    def waits_until(self) -> float | None:
        """Until when an end without a link waits for the next one; None: it always will."""
        if self._ending.abort:
            return self._ending.abort_until
        return self.patience.until(
            established=self.established,
            done=self.done,
            told=self._told,
            only_asks=self._only_asks,
            only_mark=self.reader.done and self.writer.acked == self.writer.mark,
        )

    @property
    def _only_asks(self) -> bool:
        """Whether all that is missing is whether there was more for a consumer that has gone."""
        return self.reader.gone and not self.reader.done and self.writer.done

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._traffic is not None

    @property
    def done(self) -> bool:
        """Whether both streams are delivered to their ends, and this end knows it."""
        return self.writer.done and self.reader.done

    @property
    def _complete(self) -> bool:
        """Done, and a producer that was stopped has said whether it had more."""
        return self.done and not self.writer.producing

    @property
    def aborting(self) -> bool:
        """Whether the session has failed, here or there: no more of either stream is moved."""
        return self._ending.aborting

    @property
    def over(self) -> bool:
        """Whether this end has left: it needs no link any more."""
        return self._ending.over

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self._ending.failure

    @property
    def round_trip(self) -> float | None:
        """The last heartbeat's round-trip time in seconds, on this link."""
        return self._traffic.liveness.round_trip if self._traffic else None

    def silence(self, now: float) -> float:
        """How long nothing was heard over the link, in seconds; 0 without one."""
        return now - self._traffic.liveness.heard_at if self._traffic else 0.0

    def away(self, now: float) -> float | None:
        """How long nothing was heard for want of a link, in seconds; None if none was ever lost.

        That is from the last byte until the link that is attached, or until now.
        """
        if self._heard_at is None:
            return None
        return (self._attached_at if self.attached else now) - self._heard_at

    def doubted_at(self, now: float) -> float:
        """From when on the link is in doubt if nothing comes before; inf without one."""
        return self._traffic.liveness.doubted_at(now) if self._traffic else math.inf

    @property
    def position(self) -> Position:
        """Where this end stands in the stream that it reads."""
        return Position(self.reader.delivered, self.reader.received, self.reader.capacity)

    @property
    def yielding(self) -> bool:
        """Whether an answerer's session gives way to a new OPEN: nobody was ever heard in it."""
        return self._traffic is None and not self.established and not self.over

    # --- links come and go ---

    def calling(self, now: float) -> None:
        """A caller looks for a link."""
        if self.patience.calling_since is None:
            self.patience.calling_since = now

    def hello(self) -> Hello:
        """The first message of a caller's next greeting."""
        if self.id is None:
            self.id, self.epoch, self._opened = self._new_id(), 0, False
            self.resume_secret = b""
        self.epoch += 1
        opening = Opening.RESUME if self._opened else Opening.OPEN
        return Hello(opening, self.id, self.epoch, self.position)

    def confirming(self, resume_secret: bytes) -> None:
        """A caller's CONFIRM goes out: the answerer may know the session from now on."""
        if not self._opened:
            self._opened, self.resume_secret = True, resume_secret

    def adopt(self, hello: Hello, resume_secret: bytes) -> None:
        """An answerer takes up this caller: a new one (OPEN), or its own (RESUME)."""
        if hello.opening is Opening.OPEN:
            self.writer.restart()
            self.patience.outage_ended()
            self.links = self.replayed = self.fruitless = 0
            self.last_cause = self._heard_at = None
            self.id, self.resume_secret = hello.session, resume_secret
        self.epoch = hello.epoch

    def fits(self, position: Position) -> bool:
        """Whether a peer that says it stands there can be resumed."""
        window = self.writer.window or position.window
        return position.window == window >= 1 and self.writer.holds(*position[:2])

    def attach(self, position: Position, frames: Frames, now: float, *, caller: bool) -> None:
        """A link is greeted; the peer stands at ``position`` (``fits`` was asked before)."""
        assert self._traffic is None
        if caller:
            self.established = True
        self.links += 1
        self._attached_at = now
        self.replayed += self.writer.high - position.received
        self.writer.window = position.window
        self.writer.resume(position.received)
        self._traffic = Traffic(self.limits.heartbeat, now, frames)
        self._log("=", f"attached: the peer stands at {position}, this end at {self.position}")

    def detach(self, cause: LinkLost, now: float) -> None:
        """The link is gone: nothing of it is used any more."""
        traffic, self._traffic = self._traffic, None
        if traffic is None or self.over:
            return
        self.last_cause = cause
        self._told |= traffic.told
        self._heard_at = traffic.liveness.heard_at
        self._log("!" if isinstance(cause, ProtocolError) else "=", f"detached: {cause}")
        self.patience.outage_began(now)
        if self._ending.answering:
            self._leave(self._verdict())
        elif isinstance(cause, ProtocolError) and not traffic.progress:
            self.fruitless += 1
            if self.fruitless >= FRUITLESS_LINKS:
                self.abort(Reason.PROTOCOL, f"protocol error: {cause}", now)

    def attempt_failed(self, cause: BpipeError, now: float) -> None:
        """A caller's attempt failed."""
        if self.over:
            return
        self.last_cause = cause
        if self.done and isinstance(cause, NobodyListens):
            self._leave(self._verdict())
        elif not self.established and self.limits.connect_timeout <= 0:
            self._leave(self._not_connected())

    def refused(self, status: Status) -> None:
        """The answerer said no to a caller's greeting.

        STALE means nothing: the next attempt has a higher epoch. Nor does anything while there is a
        link, which may still be good: a name can lead to somebody else.
        """
        if self.over or self.attached or status is Status.STALE:
            return
        if not self.established:
            self._refused_early(status)
        elif status is not Status.BUSY and (self.done or self.aborting):
            self._leave(self._verdict())
        elif status is Status.UNKNOWN:
            self._leave(self._lost("the peer no longer knows this session"))
        elif status is Status.RANGE:
            self._leave(self._lost("the peer stands elsewhere in the stream"))

    def _refused_early(self, status: Status) -> None:
        if status is Status.UNKNOWN:
            self.id = None  # nothing was consumed there: a new OPEN is safe
            self._renewed = True
        elif status is Status.BUSY and self._renewed:
            pass  # perhaps by that session, whose link is dead: it gives way when that is noticed
        elif status is Status.BUSY:
            self._leave(Busy(BUSY))
        else:
            self._leave(NotConnected("the peer stands elsewhere in the stream"))

    # --- the end, as this end wants it ---

    def stop(self) -> None:
        """Take no more of the peer's stream, quietly; the other direction goes on."""
        self.reader.stop()

    def consumer_gone(self, message: str, now: float, *, untaken: bool = False) -> None:
        """The consumer has closed its pipe; ``untaken``: it left bytes there.

        After everything that has come it may: whether there was to be more, the peer knows. If
        there was, the session fails with this message.
        """
        if self.over or self.aborting:
            return
        if untaken or self.reader.buffered:
            self.abort(Reason.BROKEN_PIPE, message, now)
        else:
            self._consumer_gone = message
            self.reader.consumer_gone()

    def abort(self, reason: Reason, message: str, now: float) -> None:
        """End both directions with a reason, and tell the peer if it can be told."""
        if self.over or self.aborting:
            return
        if self.done:
            verdict = self._verdict()
            self.writer.producing = False  # nobody waits for it any more; a BYE can be said
            self._leave(verdict)
            return
        self._ending.begin_abort(reason, message, now, self.limits.linger)
        self.reader.deaf = True
        if not self.established and not self.attached:
            self._leave(self.failure)

    def deliver_mark(self) -> None:
        """The consumer was closed after its last byte."""
        if not (self.aborting or self.over):
            self.reader.close()

    # --- time ---

    def deadline(self) -> float | None:
        """When ``tick`` has to be called; None: not before something else happens."""
        if self.over:
            return None
        deadline = self.waits_until if self._traffic is None else self._traffic.deadline()
        until = self._ending.abort_until if self._ending.abort else self._answer_until
        if until is None:
            return deadline
        return until if deadline is None else min(deadline, until)

    @property
    def _answer_until(self) -> float | None:
        """When the producer must have ended, for a consumer that has gone."""
        return self.patience.asked_at + QUESTION if self.writer.asked else None

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the link has to be given up."""
        if self.over:
            return
        if (until := self._answer_until) is not None and now >= until:
            self.writer.cut()
        if self._ending.abort and now >= self._ending.abort_until:
            self._ending.give_up_abort()
            self._leave(self.failure)
        elif self._traffic is not None:
            self._traffic.tick(now)
        elif (until := self.waits_until) is not None and now >= until:
            self._run_out(until, now)

    def _run_out(self, until: float, now: float) -> None:
        if self.patience.extend(until, now):
            pass  # one more attempt
        elif self.done:
            self._leave(self._verdict())
        elif not self.established:
            self._leave(self._not_connected())
        elif self._only_asks:
            self._leave(PipeClosed(unanswered(self._consumer_gone)))
        else:
            assert self.outage_since is not None
            outage = f"{now - self.outage_since:.0f} s without a connection"
            self._leave(self._lost(f"gave up after {outage}: {self.last_cause}"))

    # --- the link's bytes ---

    def outgoing(self, now: float) -> Views:
        """What to put on the link next, in order; ``[]`` when there is nothing to say."""
        traffic = self._traffic
        if traffic is None:
            return []
        if not traffic.lent:
            traffic.consider_ack(self.reader, self.writer.window, now, last=self.aborting)
            small = self._small_frames(traffic, now)
            traffic.lend(small, self._stream_frame(traffic), now)
        return traffic.lent

    def sent(self, count: int, now: float) -> None:
        """The first ``count`` bytes of ``outgoing`` are on the link."""
        traffic = self._traffic
        assert traffic is not None
        if not traffic.sent(count, now):
            return
        if traffic.mark_lent and traffic.told_at is None:
            traffic.told_at = now
        if traffic.bye_lent:
            self._ending.bye_written = True
            self.settle(now)

    def _small_frames(self, traffic: Traffic, now: float) -> bytes:
        """What is due of everything that is not the stream, in the order that it has to have."""
        ending = self._ending
        small = b""
        if traffic.stop_due and self.reader.stopped is not None and not ending.peer_bye:
            traffic.stop_due = False
            why = Stop.CONSUMER_GONE if self.reader.gone else Stop.UNWANTED
            small += self._pack(traffic, Kind.STOP, self.reader.stopped, how=why)
        if traffic.ack_due:
            small += self._pack(traffic, Kind.ACK, traffic.acknowledge(self.reader))
        if traffic.abort_due and ending.abort:
            traffic.abort_due = False
            small += self._pack(traffic, Kind.ABORT, *ending.abort_message())
        if traffic.pong is not None:
            small += self._pack(traffic, Kind.PONG, traffic.pong)
            traffic.pong = None
        if traffic.liveness.ping_due:
            small += self._pack(traffic, Kind.PING, traffic.liveness.ping(now))
        if traffic.bye_due and (ending.answering or (self._complete and not ending.abort)):
            traffic.bye_due, traffic.bye_lent = False, True
            small += self._pack(traffic, Kind.BYE, 0)
        return small

    def _stream_frame(self, traffic: Traffic) -> Views:
        """The next frame of the stream, if it may go on and there is one."""
        if self.aborting or not self.established:
            return []
        piece = self.writer.next_frame(traffic.frame_size)
        if piece is None:
            return []
        if piece.kind is Kind.FIN:
            return [memoryview(self._pack(traffic, Kind.FIN, piece.number, how=piece.how))]
        self._log_frame(">", Kind.DATA, piece.number, len(piece.payload))
        return traffic.frames.pack_data(piece.number, piece.payload)

    def _pack(
        self, traffic: Traffic, kind: Kind, number: int, message: bytes = b"", how: int = 0
    ) -> bytes:
        self._log_frame(">", kind, number)
        return traffic.frames.pack(kind, number, message, how)

    def incoming(self) -> Views:
        """Where the next bytes from the link belong, in order; never empty while attached."""
        assert self._traffic is not None
        return self._traffic.incoming(self.reader)

    def received(self, count: int, now: float) -> None:
        """``count`` bytes (at least 1) arrived where ``incoming`` said.

        Raises ProtocolError if they are not what the peer may say now.
        """
        traffic = self._traffic
        assert traffic is not None
        before = self.reader.received
        try:
            for header, message in traffic.received(count, self.reader, now):
                self._hear(traffic, header, message, now)
                self.established = True
                if header.kind is Kind.DATA:
                    continue  # its payload is progress, below; it cannot end anything
                if self.writer.sent == self.writer.acked and not self.writer.sendable:
                    self.patience.outage_ended()  # nothing is to move: hearing the peer is enough
                self.settle(now)
        finally:  # what came before a junk header is progress all the same
            if self.reader.received > before:
                self._progress(traffic)
                if self.reader.missed:
                    self.abort(Reason.BROKEN_PIPE, self._consumer_gone, now)

    @property
    def passable(self) -> int:
        """How many of the bytes that come next may go straight to the consumer, unseen."""
        traffic = self._traffic
        return traffic.frames.passable if traffic is not None and self.reader.passing else 0

    def passed(self, count: int, now: float) -> None:
        """``count`` of them did, and the consumer has them."""
        traffic = self._traffic
        assert traffic is not None
        traffic.liveness.heard(now)
        traffic.frames.passed(count)
        self.reader.receive_passed(count)
        self._progress(traffic)

    def _hear(self, traffic: Traffic, header: Header, message: bytes, now: float) -> None:
        kind, length, number, how, _ = header
        self._log_frame("<", kind, number, length)
        if kind is Kind.DATA:
            pass  # its payload goes straight to the reader
        elif kind is Kind.ACK:
            if self.writer.acknowledge(number):
                self._progress(traffic)
        elif kind is Kind.FIN:
            self.reader.receive_mark(number, how)
            self._progress(traffic)
        elif kind is Kind.PING:
            traffic.pong = number
        elif kind is Kind.PONG:
            traffic.liveness.pong(number, now)
            self.patience.outage_ended()  # it crossed whatever was in flight, both ways
        elif kind is Kind.STOP:
            self.writer.stop(number, consumer_gone=how == Stop.CONSUMER_GONE)
            self.patience.asked(now)
        elif kind is Kind.BYE:
            if not self.aborting and not self.done:
                raise ProtocolError("a BYE before the end")
            self._ending.peer_bye = True
        elif kind is Kind.ABORT:
            self._ending.hear_abort(number, message, done=self.done)
            self.reader.deaf = True
        else:
            raise ProtocolError(f"{kind.name} after the greeting")

    def _progress(self, traffic: Traffic) -> None:
        traffic.progress = True
        self.fruitless = 0
        self.patience.outage_ended()

    # --- leaving ---

    def settle(self, now: float) -> None:
        """Look whether what has happened, a delivery for example, ends the session."""
        if self.writer.had_more:
            self.writer.cut()
        if self.done and self.patience.done_at is None:
            self.patience.done_at = now
        if not self.over and self._ending.due(done=self._complete):
            self._leave(self._verdict())

    def _verdict(self) -> SessionEnded | None:
        return self._ending.verdict(done=self.done, cut_short=self.writer.cut_short)

    def _not_connected(self) -> NotConnected:
        cause = self.last_cause
        return NotConnected(str(cause), cause.code) if cause else NotConnected("nobody answered")

    def _lost(self, why: str) -> SessionLost:
        writer = self.writer
        confirmed, open_ = writer.confirmed, writer.written - writer.confirmed
        if self.reader.done and writer.mark is not None and not open_:
            return SessionLost(
                f"{why}; delivery not confirmed: all {confirmed} bytes are, but not their end"
            )
        if not writer.written:
            return SessionLost(why)
        return SessionLost(f"{why}; {confirmed} bytes are confirmed, {open_} more are not")

    def fail(self, failure: SessionEnded) -> None:
        """Leave at once: something that nobody foresaw has happened."""
        if not self.over:
            self._leave(failure)

    def _leave(self, failure: SessionEnded | None) -> None:
        self._ending.over = True
        self._ending.failure = failure
        self._log("=", f"over: {failure or 'success'}")

    def _log(self, prefix: str, text: str) -> None:
        """Tell ``trace``: ``<`` heard, ``>`` said, ``=`` a change of state, ``!`` an error."""
        if self.trace is not None:
            self.trace(prefix, text)

    def _log_frame(self, prefix: str, kind: Kind, number: int, length: int = 0) -> None:
        if self.trace is not None:
            self.trace(prefix, f"{kind.name} {number}" + (f" +{length}" if length else ""))
