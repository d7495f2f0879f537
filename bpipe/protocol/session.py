"""Session: the two halves of a pipe over whichever link is attached.

Theory of operation. A session outlives its links. A link is attached by a greeting, which
settles where the peer stands; from then on the session says what goes out next (``outgoing``)
and where the next bytes belong (``incoming``). Everything that has to survive a lost frame is
*state*, said anew on each link, and not an event: STOP first, then an ACK whether or not its
number has moved, then ABORT, then the stream from where the peer stands. What belongs to one
link only (half a frame, the size of frames, the heartbeat) lives in ``_Traffic`` and dies with it.

The end. An end is *done* when its own end mark is acknowledged and the peer's is delivered.
It says BYE on every link from then on, and is *over* when its BYE is written and the peer's has
come. An end that fails says ABORT until that is answered by BYE. How long an end
without a link stays, and what it reports when it leaves, is in ``_patience``.

One thread owns a session. The producer and the consumer may be threads of their own; what
they may touch is said in ``writer.py`` and ``reader.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.errors import (
    Busy,
    LinkLost,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    ProtocolError,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.liveness import Liveness
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import (
    HEADER_SIZE,
    LARGEST_MESSAGE,
    LARGEST_PAYLOAD,
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    Status,
    pack_frame,
    unpack_header,
)
from bpipe.protocol.writer import BackedWriter

ACK_DELAY: Final = 0.010  # seconds from delivery to its ACK, unless a quarter of the window is due
SMALLEST_FRAME: Final = 16 << 10  # the first DATA payload on a link
QUICK_FRAME: Final = 0.05  # seconds: a frame that went out faster lets the next be twice as long
SLOW_FRAME: Final = 0.2  # seconds: one that took longer lets the next be half as long
FRUITLESS_LINKS: Final = 3  # links lost to protocol errors without progress that end a session
GRACE: Final = 10.0  # seconds that a limit is extended by if it ran out while the machine slept
INTERRUPT_LINGER: Final = 2.0


class Limits(NamedTuple):
    """How long an end waits for what, in seconds."""

    heartbeat: float = 2.0
    connect_timeout: float = 30.0  # for the first link of a caller; 0: one try
    give_up_after: float = 86400.0  # for an outage
    linger: float = 30.0  # for a peer that may not know yet that all is done


class _Traffic:
    """What belongs to one link, and is forgotten with it."""

    def __init__(self, heartbeat: float, now: float) -> None:
        self.liveness = Liveness(heartbeat, now)
        self.header = bytearray(HEADER_SIZE)  # of the frame that is arriving
        self.header_view = memoryview(self.header)
        self.filled = 0  # bytes of it
        self.remaining = 0  # bytes of DATA that are still to come
        self.message: bytearray | None = None  # of the ABORT that is arriving
        self.message_filled = 0
        self.reason = 0
        self.lent: Views = []  # what goes out next; begun, so it has to go out whole
        self.frame_size = SMALLEST_FRAME
        self.frame_began: float | None = None
        self.acknowledged: int | None = None  # the number of the last ACK said here
        self.ack_at: float | None = None
        self.ack_due = True
        self.stop_due = True
        self.abort_due = True
        self.bye_due = True
        self.bye_lent = False
        self.pong: int | None = None
        self.progress = False


class Session:
    """Both directions of one pipe. ``buffer_size`` bytes are kept for each."""

    def __init__(
        self,
        buffer_size: int,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        new_id: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        self.id: bytes | None = None
        self.epoch = 0  # of the last attempt (caller), of the last attached link (answerer)
        self.writer = BackedWriter(buffer_size)
        self.reader = BackedReader(buffer_size)
        self.limits = limits
        self.established = False  # READY came (caller), or a frame after it (answerer)
        self.links = 0  # attached so far
        self.replayed = 0  # bytes that were begun on one link and begun again on a later one
        self.over = False
        self.failure: SessionEnded | None = None  # once over: None is success
        self.last_cause = ""  # why the last link was lost, or the last attempt failed
        self.outage_since: float | None = None
        self._new_id = new_id
        self._opened = False  # a caller's CONFIRM for this id may have arrived: RESUME from now on
        self._calling_since: float | None = None
        self._traffic: _Traffic | None = None
        self._fruitless = 0
        self._peer_bye = False
        self._bye_written = False
        self._abort: tuple[Reason, str] | None = None  # ours
        self._abort_until = 0.0
        self._answering_abort = False  # the peer's: answer BYE and leave
        self._done_at: float | None = None
        self._grace: float | None = None

    # --- what the outside may ask ---

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._traffic is not None

    @property
    def done(self) -> bool:
        """Whether both streams are delivered to their ends, and this end knows it."""
        return self.writer.done and self.reader.done

    @property
    def aborting(self) -> bool:
        """Whether the session has failed, here or there: no more of either stream is moved."""
        return self._abort is not None or self._answering_abort

    @property
    def round_trip(self) -> float | None:
        """The last heartbeat's round-trip time in seconds, on this link."""
        return self._traffic.liveness.round_trip if self._traffic else None

    @property
    def position(self) -> Position:
        """Where this end stands in the stream that it reads."""
        return Position(self.reader.delivered, self.reader.received, self.reader.capacity)

    @property
    def yielding(self) -> bool:
        """Whether an answerer's session gives way to a new OPEN: nobody was ever heard in it."""
        return self._traffic is None and not self.established and not self.over

    # --- links come and go ---

    def hello(self, now: float) -> Hello:
        """The first message of a caller's next greeting."""
        if self._calling_since is None:
            self._calling_since = now
        if self.id is None:
            self.id, self.epoch, self._opened = self._new_id(), 0, False
        self.epoch += 1
        opening = Opening.RESUME if self._opened else Opening.OPEN
        return Hello(opening, self.id, self.epoch, self.position)

    def confirming(self) -> None:
        """A caller's CONFIRM goes out: the answerer may know the session from now on."""
        self._opened = True

    def adopt(self, hello: Hello) -> None:
        """An answerer takes up this caller: a new one (OPEN), or its own (RESUME)."""
        if hello.opening is Opening.OPEN:
            self.writer.restart()
            self.id = hello.session
        self.epoch = hello.epoch

    def fits(self, position: Position) -> bool:
        """Whether a peer that says it stands there can be resumed."""
        window = self.writer.window or position.window
        return position.window == window >= 1 and self.writer.holds(*position[:2])

    def attach(self, position: Position, now: float, *, caller: bool) -> None:
        """A link is greeted; the peer stands at ``position`` (``fits`` was asked before)."""
        assert self._traffic is None
        if caller:
            self.established = True
        self.links += 1
        self.replayed += self.writer.high - position.received
        self.writer.window = position.window
        self.writer.resume(position.received)
        self._traffic = _Traffic(self.limits.heartbeat, now)

    def detach(self, cause: LinkLost, now: float) -> None:
        """The link is gone: nothing of it is used any more."""
        traffic, self._traffic = self._traffic, None
        if traffic is None:
            return
        self.last_cause = str(cause)
        if self.outage_since is None:
            self.outage_since = now
        if self._answering_abort:
            self._leave(self.failure)
        elif isinstance(cause, ProtocolError) and not traffic.progress:
            self._fruitless += 1
            if self._fruitless >= FRUITLESS_LINKS:
                self.abort(Reason.PROTOCOL, f"protocol error: {cause}", now)

    def attempt_failed(self, cause: str, now: float, *, nobody: bool = False) -> None:
        """A caller's attempt failed; ``nobody``: where the peer was, nobody listens any more."""
        self.last_cause = cause
        if self.over:
            return
        if nobody and self.done:
            self._leave(None)
        elif not self.established and self.limits.connect_timeout <= 0:
            self._leave(NotConnected(cause))

    def refused(self, status: Status, now: float) -> None:
        """The answerer said no to a caller's greeting."""
        if self.over or status is Status.STALE:
            return  # the next attempt has a higher epoch
        if status is Status.UNKNOWN and not self.established:
            self.id = None  # nothing was consumed there: a new OPEN is safe
        elif status is Status.UNKNOWN and (self.done or self.aborting):
            self._leave(self._verdict())
        elif status is Status.BUSY and not self.established:
            self._leave(Busy("busy: the listener is serving another session"))
        elif status is not Status.BUSY:
            unknown = status is Status.UNKNOWN
            self._leave(
                self._lost(f"the peer {'no longer knows this session' if unknown else 'stands elsewhere'}")
            )

    # --- the end, as this end wants it ---

    def stop(self) -> None:
        """Take no more of the peer's stream, quietly; the other direction goes on."""
        self.reader.stop()

    def abort(self, reason: Reason, message: str, now: float) -> None:
        """End both directions with a reason, and tell the peer if it can be told."""
        if self.over or self.aborting:
            return
        if self.done:
            self._leave(self._verdict())
            return
        failure = PipeClosed if reason is Reason.BROKEN_PIPE else LocalAbort
        self.failure = failure(message)
        self.reader.deaf = True
        self._abort = reason, message
        quick = reason in (Reason.INTERRUPTED, Reason.PROTOCOL)
        self._abort_until = now + (INTERRUPT_LINGER if quick else self.limits.linger)
        if not self.established and not self.attached:
            self._leave(self.failure)

    def deliver_mark(self, now: float) -> None:
        """The consumer was closed after its last byte."""
        if not self.aborting:
            self.reader.close()

    # --- time ---

    def deadline(self) -> float | None:
        """When ``tick`` has to be called; None: not before something else happens."""
        if self.over:
            return None
        if self._traffic is None:
            return self._patience()
        deadline = self._traffic.liveness.deadline()
        if self._traffic.ack_at is not None:
            deadline = min(deadline, self._traffic.ack_at)
        return min(deadline, self._abort_until) if self._abort else deadline

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the link has to be given up."""
        if self.over:
            return
        if self._abort and now >= self._abort_until:
            self._leave(self.failure)
        elif self._traffic is None:
            until = self._patience()
            if until is not None and now >= until:
                self._run_out(now - until, now)
        else:
            if self._traffic.liveness.tick(now):
                self._traffic.ack_due = True
            self._consider_ack(self._traffic, now)

    def _patience(self) -> float | None:
        """Until when an end without a link waits for the next one."""
        limits = self.limits
        if self._abort:
            return self._abort_until
        if not self.established:
            if self._calling_since is None or not limits.connect_timeout:
                return None  # an answerer, or a caller with one try
            until = self._calling_since + limits.connect_timeout
        elif self.outage_since is None:
            return None
        elif self.done:
            assert self._done_at is not None
            until = max(self.outage_since, self._done_at) + limits.linger
        elif self.reader.done and self.writer.acked == self.writer.mark:
            until = self.outage_since + min(10 * limits.linger, limits.give_up_after)
        else:
            until = self.outage_since + limits.give_up_after
        return until if self._grace is None else max(until, self._grace)

    def _run_out(self, late: float, now: float) -> None:
        if late > 1 and self._grace is None and not self.done:
            self._grace = now + GRACE  # the machine slept: one more attempt
        elif self.done:
            self._leave(self._verdict())
        elif not self.established:
            self._leave(NotConnected(self.last_cause or "nobody answered"))
        else:
            assert self.outage_since is not None
            self._leave(self._lost(f"gave up after {now - self.outage_since:.0f} s without a link"))

    # --- the link's bytes: out ---

    def outgoing(self, now: float) -> Views:
        """What to put on the link next, in order; ``[]`` when there is nothing to say."""
        traffic = self._traffic
        if traffic is None:
            return []
        if not traffic.lent:
            self._compose(traffic, now)
        return traffic.lent

    def sent(self, count: int, now: float) -> None:
        """The first ``count`` bytes of ``outgoing`` are on the link."""
        traffic = self._traffic
        assert traffic is not None
        traffic.liveness.sent(now)
        lent = traffic.lent
        done = 0
        while done < len(lent) and count >= len(lent[done]):
            count -= len(lent[done])
            done += 1
        del lent[:done]
        if lent:
            lent[0] = lent[0][count:]
            return
        self._pace(traffic, now)
        if traffic.bye_lent:
            self._bye_written = True
            self._settle(now)

    def _compose(self, traffic: _Traffic, now: float) -> None:
        """Begin the next frames: what is due of the small ones, then one of the stream's."""
        self._consider_ack(traffic, now)
        small = self._small_frames(traffic, now)
        if small:
            traffic.lent.append(memoryview(small))
        if self.aborting:
            return
        frame = self.writer.next_frame(traffic.frame_size)
        if frame:
            traffic.lent += frame
            traffic.frame_began = now

    def _small_frames(self, traffic: _Traffic, now: float) -> bytes:
        small = b""
        if traffic.stop_due and self.reader.stopped is not None and not self._peer_bye:
            traffic.stop_due = False
            small += pack_frame(Kind.STOP, self.reader.stopped)
        if traffic.ack_due:
            traffic.ack_due, traffic.ack_at = False, None
            traffic.acknowledged = self.reader.delivered
            small += pack_frame(Kind.ACK, traffic.acknowledged)
        if traffic.abort_due and self._abort:
            traffic.abort_due = False
            reason, message = self._abort
            text = message.encode()[:LARGEST_MESSAGE].decode(errors="ignore").encode()
            small += pack_frame(Kind.ABORT, reason, text)
        if traffic.pong is not None:
            small += pack_frame(Kind.PONG, traffic.pong)
            traffic.pong = None
        if traffic.liveness.ping_due:
            small += pack_frame(Kind.PING, traffic.liveness.ping(now))
        if traffic.bye_due and (self._answering_abort or (self.done and not self._abort)):
            traffic.bye_due, traffic.bye_lent = False, True
            small += pack_frame(Kind.BYE, 0)
        return small

    def _consider_ack(self, traffic: _Traffic, now: float) -> None:
        """An ACK is due at once for a quarter of the window or the end mark, else soon."""
        if traffic.ack_due or traffic.acknowledged is None:
            return
        moved = self.reader.delivered - traffic.acknowledged
        if moved <= 0:
            return
        if moved * 4 >= self.reader.capacity or self.reader.done:
            traffic.ack_due = True
        elif traffic.ack_at is None:
            traffic.ack_at = now + ACK_DELAY
        elif now >= traffic.ack_at:
            traffic.ack_due = True
        if traffic.ack_due:
            traffic.ack_at = None

    def _pace(self, traffic: _Traffic, now: float) -> None:
        """A slow link is not to be stuck behind one huge frame."""
        if traffic.frame_began is None:
            return
        took, traffic.frame_began = now - traffic.frame_began, None
        if took < QUICK_FRAME:
            traffic.frame_size = min(traffic.frame_size * 2, LARGEST_PAYLOAD)
        elif took > SLOW_FRAME:
            traffic.frame_size = max(traffic.frame_size // 2, SMALLEST_FRAME)

    # --- the link's bytes: in ---

    def incoming(self) -> Views:
        """Where the next bytes from the link belong, in order; never empty while attached."""
        traffic = self._traffic
        assert traffic is not None
        if traffic.remaining:
            views = self.reader.lend(traffic.remaining)
            if sum(map(len, views)) == traffic.remaining:
                views.append(traffic.header_view)
            return views
        if traffic.message is not None:
            return [memoryview(traffic.message)[traffic.message_filled :]]
        return [traffic.header_view[traffic.filled :]]

    def received(self, count: int, now: float) -> None:
        """``count`` bytes (at least 1) arrived where ``incoming`` said.

        Raises ProtocolError if they are not what the peer may say now.
        """
        traffic = self._traffic
        assert traffic is not None
        traffic.liveness.heard(now)
        if traffic.remaining:
            payload = min(count, traffic.remaining)
            self.reader.receive(payload)
            traffic.remaining -= payload
            count -= payload
            self._progress(traffic)
            if not count:
                return
        if traffic.message is not None:
            traffic.message_filled += count
            if traffic.message_filled == len(traffic.message):
                message, traffic.message = bytes(traffic.message), None
                self._hear_abort(traffic.reason, message)
                self._settle(now)
            return
        traffic.filled += count
        if traffic.filled == HEADER_SIZE:
            traffic.filled = 0
            self._hear(traffic, unpack_header(traffic.header), now)

    def _hear(self, traffic: _Traffic, header: Header, now: float) -> None:
        kind, length, number = header
        if kind is Kind.DATA:
            self.reader.check(number, length)
            traffic.remaining = length
        elif kind is Kind.ACK:
            if self.writer.acknowledge(number):
                self._progress(traffic)
        elif kind is Kind.FIN:
            self.reader.receive_mark(number)
            self._progress(traffic)
        elif kind is Kind.PING:
            traffic.pong = number  # only the last of several: the queue is bounded
        elif kind is Kind.PONG:
            traffic.liveness.pong(number, now)
            self.outage_since = self._grace = None  # it crossed whatever was in flight, both ways
        elif kind is Kind.STOP:
            self.writer.stop(number)
        elif kind is Kind.BYE:
            if not self.aborting and not self.done:
                raise ProtocolError("a BYE before the end")
            self._peer_bye = True
        elif kind is Kind.ABORT:
            traffic.reason = number
            if length:
                traffic.message, traffic.message_filled = bytearray(length), 0
            else:
                self._hear_abort(number, b"")
        else:
            raise ProtocolError(f"a {kind.name} frame after the greeting")
        self.established = True
        if self.writer.sent == self.writer.acked and not self.writer.sendable:
            self.outage_since = None  # nothing is to move: hearing the peer is enough
        self._settle(now)

    def _hear_abort(self, reason: int, message: bytes) -> None:
        """The peer ends the session: answer BYE, and leave."""
        self._answering_abort = True
        self.reader.deaf = True
        if self.done or self._abort:
            return
        text = "".join(
            c if c.isprintable() else f"\\x{ord(c):02x}" for c in message.decode(errors="replace")
        )
        if reason == Reason.BROKEN_PIPE:
            self.failure = PipeClosed(text or "the far consumer closed its pipe")
        else:
            self.failure = PeerAborted(text or "the peer gave no reason")

    def _progress(self, traffic: _Traffic) -> None:
        traffic.progress = True
        self._fruitless = 0
        self.outage_since = self._grace = None

    # --- leaving ---

    def settle(self, now: float) -> None:
        """Look whether something that happened outside (a delivery) ends the session."""
        self._settle(now)

    def _settle(self, now: float) -> None:
        if self.done and self._done_at is None:
            self._done_at = now
        if self.over:
            return
        if self._answering_abort:
            if self._bye_written:
                self._leave(self._verdict() if self.done else self.failure)
        elif self._abort:
            if self._peer_bye:
                self._leave(self.failure)
        elif self.done and self._peer_bye and self._bye_written:
            self._leave(self._verdict())

    def _verdict(self) -> SessionEnded | None:
        """How an end that has nothing left to do reports."""
        if self._abort or not self.done:
            return self.failure
        return PipeClosed("the far side stopped reading") if self.writer.cut_short else None

    def _lost(self, why: str) -> SessionLost:
        writer = self.writer
        confirmed, open_ = writer.confirmed, writer.written - writer.confirmed
        if self.reader.done and writer.mark is not None and not open_:
            return SessionLost(
                f"{why}; delivery not confirmed: {confirmed} bytes are, the end of the stream is not"
            )
        return SessionLost(f"{why}; {confirmed} bytes are confirmed, {open_} more are not")

    def _leave(self, failure: SessionEnded | None) -> None:
        self.over = True
        self.failure = failure
