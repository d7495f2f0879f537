"""Session: the two halves of a pipe, whichever link carries them. It outlives all links.

Theory of operation. A greeting attaches a channel, which says and hears frames over one link. The
session knows neither. It keeps what has to survive them: who it is, its halves, how far its end has
come (``ending.py``), since when it waits (``patience.py``), and what it may send (``rate.py``).

An answerer says nothing of its stream before it has heard a frame of the caller: until then
nobody can have taken anything of it, and the session may give way to another caller.

One thread owns a session; the producer and the consumer may be threads of their own; what
they may touch is said in ``writer.py`` and ``reader.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpipe.errors import BpipeError, ProtocolError, SessionEnded, SessionLost
from bpipe.protocol.driver import Driver
from bpipe.protocol.ending import MOVING, Ending, Phase, lost
from bpipe.protocol.history import History, Loss
from bpipe.protocol.patience import Limits, Patience
from bpipe.protocol.rate import Bucket, Rate
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.slots import Slots
from bpipe.protocol.terms import Terms
from bpipe.protocol.trace import Traced
from bpipe.protocol.wire import UNTOLD, Finish, Position, Reason, Stop
from bpipe.protocol.writer import BackedWriter

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret

FRUITLESS_LINKS: Final = 3  # lost to protocol errors without progress: they end a session


class Session(Traced):
    """Both directions of one pipe. ``buffer_size`` bytes are kept for each.

    With a ``secret``, which both share, its links are sealed. ``needs``, ``links``: see ``Terms``;
    ``bucket``: see ``Rate``.
    """

    def __init__(
        self,
        buffer_size: int,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        secret: Secret | None = None,
        needs: int = 0,
        bucket: Bucket | None = None,
        links: int = 1,
    ) -> None:
        super().__init__()
        self.secret = secret
        self.resume_secret = b""  # which the two ends of this session share, on sealed links
        self.id: bytes | None = None
        self.epoch = 0  # of the last attempt (caller), of the last attached link (answerer)
        self.writer = BackedWriter(buffer_size)
        self.reader = BackedReader(buffer_size)
        self.patience = Patience(limits)
        self.ending = Ending()
        self.rate = Rate(bucket)
        self.established = False  # READY came (caller), or a frame after it (answerer)
        self.channel: Driver | None = None  # over the link that is attached, or one of several
        self.slots = Slots(self.reader)
        self.history = History()
        self.fruitless = 0  # links lost to protocol errors, in a row, without progress
        self.heard_at = 0.0  # when the peer was heard last
        self.terms = Terms(needs, buffer_size, links)
        self.if_missed = ""  # what to say if there was more for it

    # --- what the outside may ask ---

    @property
    def phase(self) -> Phase:
        """How far this end has come."""
        return self.ending.phase

    @property
    def over(self) -> bool:
        """Whether this end has left: it needs no link any more."""
        return self.ending.phase is Phase.OVER

    @property
    def done(self) -> bool:
        """Whether both streams are delivered to their ends, and this end knows it."""
        return self.reader.done and self.writer.done

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self.ending.failure

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self.channel is not None

    @property
    def position(self) -> Position:
        """Where this end stands in the stream that it reads."""
        r, terms = self.reader, self.terms
        return Position(r.delivered, r.received, r.capacity, terms.links, terms.needs)

    @property
    def replaceable(self) -> bool:
        """Whether an answerer's session gives way to a new OPEN: nobody was ever heard in it."""
        return self.channel is None and not self.established and self.phase is Phase.UP

    @property
    def waits_until(self) -> float | None:
        """Until when an end without a link waits for the next one; None: it always will."""
        if self.ending.abort:
            return self.ending.abort_until
        return self.patience.until(
            established=self.established,
            done=self.phase is Phase.DONE,
            told=self.history.told,
            only_asks=self.reader.gone and not self.reader.done and self.writer.done,
            only_mark=self.reader.done and self.writer.acked == self.writer.mark,
        )

    # --- links come and go ---

    def identify(self, id: bytes | None, resume_secret: bytes = b"") -> None:
        """By what the peer is to know this session from now on."""
        self.id, self.resume_secret = id, resume_secret

    def advance(self, epoch: int, slot: int = 0) -> None:
        """A greeting with this epoch is the latest, in this slot."""
        self.epoch = epoch
        self.slots.advance(slot, epoch)

    def restart(self) -> None:
        """An answerer's session, in which nobody was heard, begins anew for another caller."""
        self.writer.restart()
        self.patience.outage_ended()
        self.terms.forget()
        self.slots.forget()
        self.rate.forget()
        self.history, self.fruitless = History(), 0

    def fits(self, position: Position) -> bool:
        """Whether a peer that says it stands there, with these terms, can be resumed."""
        old = self.terms.slots_with(position) > 1  # over another link it may have told more
        return self.terms.fit(position) and self.writer.holds(*position[:2], old=old)

    def attach(self, channel: Driver, position: Position, now: float, slot: int = 0) -> None:
        """A link is greeted; the peer stands at ``position`` (``fits`` was asked before)."""
        self.terms.agree(position)
        writer, others = self.writer, self.attached
        # Where there may be several links, no cursor is moved.
        start = position.received if self.terms.slots == 1 else writer.high
        self.slots.attach(slot, channel, position.received)
        self.channel, self.heard_at = channel, now
        self.changed()
        self.history.attached(writer.high - start, now, slot, others=others)
        writer.resume(start, position.window)
        stands = f"the peer stands at {position}, this end at {self.position}"
        self.log("=", f"{self.terms.link(slot)}attached: {stands}")

    def detach(self, loss: Loss, now: float, slot: int = 0) -> None:
        """The link in this slot is gone."""
        channel, self.channel, cause = self.channel, self.slots.detach(slot), loss.cause
        if channel is None or self.over:
            return
        self.changed()
        wrong = isinstance(cause, ProtocolError)
        self.log("!" if wrong else "=", f"{self.terms.link(slot)}detached: {cause}")
        self.history.lost(loss, now, slot, others=self.attached)
        if not self.attached:
            self.patience.outage_began(now)
        if not self.attached and self.phase is Phase.ANSWERING:
            self.leave(self.verdict())
        elif wrong and not loss.progress:
            self.fruitless += 1
            if self.slots.fruitless(slot, self.fruitless) >= FRUITLESS_LINKS:
                self.abort(Reason.PROTOCOL, f"protocol error: {cause}", now)

    def note(self, cause: BpipeError, slot: int | None = None) -> None:
        """An attempt to get a link has failed."""
        self.changed()
        self.history.failed(cause, slot)

    def establish(self) -> None:
        """The peer belongs to this session: READY came, or a frame after it."""
        self.established = True

    def heard(self, now: float, *, crossed: bool = False) -> None:
        """The peer has said something. ``crossed``: past whatever was in flight, both ways."""
        self.established, self.heard_at = True, now
        patience, writer = self.patience, self.writer
        if patience.outage_since is not None and (
            crossed or (writer.sent == writer.acked and not writer.sendable)
        ):
            patience.outage_ended()  # where nothing is to move, hearing the peer is enough
        self.settle(now)

    def progressed(self, now: float) -> None:
        """A byte of a stream, or an ACK that moved, has come."""
        self.fruitless = 0
        self.heard_at = now
        if self.patience.outage_since is not None:
            self.patience.outage_ended()
        if self.reader.gone and self.reader.missed:
            self.abort(Reason.BROKEN_PIPE, self.if_missed, now)

    # --- the end, as this end wants it ---

    def finish(self, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        """The producer has ended; ``more``: it was stopped, and had more to write."""
        self.changed()
        self.writer.finish(more=more, ended=ended)

    def stop(self) -> None:
        """Take no more of the peer's stream, quietly; the other direction goes on."""
        self.reader.stop()

    def cut(self) -> None:
        """There is more for a consumer that has gone: nobody will have it."""
        self.changed()
        self.writer.cut()

    def consumer_gone(self, message: str, now: float, *, untaken: bool = False) -> None:
        """The consumer has closed its pipe; ``untaken``: it left bytes there.

        After all that has come it may. If there was to be more, the session fails with this.
        """
        if self.phase not in MOVING:
            return
        if untaken or self.reader.buffered:
            self.abort(Reason.BROKEN_PIPE, message, now)
        else:
            self.if_missed = message
            self.reader.consumer_gone()

    def program_left(self) -> None:
        """A program that took the peer's stream has ended: what it has left is discarded.

        Whether that was enough, its exit status tells; the other direction goes on.
        """
        if self.phase in MOVING:
            self.reader.stop(Stop.CONSUMER_GONE)

    def abort(self, reason: Reason, message: str, now: float) -> None:
        """End both directions with a reason, and tell the peer if it can be told."""
        self.settle(now)
        if self.phase not in MOVING:
            return
        if self.phase is Phase.DONE:
            verdict = self.verdict()
            self.writer.abandon()
            self.ending.part()
            self.leave(verdict)
            return
        self.changed()
        self.ending.begin_abort(reason, message, now, self.patience.limits.linger)
        self.reader.discard()
        if not self.history.links:
            self.leave(self.failure)  # there is nobody who could be told

    def deliver_mark(self) -> None:
        """The consumer was closed after its last byte."""
        if self.phase in MOVING:
            self.reader.close()

    def settle(self, now: float) -> None:
        """Check whether what has happened, a delivery for example, ends a stream or the session."""
        writer, ending = self.writer, self.ending
        if writer.asked and writer.had_more:
            self.cut()
        if ending.phase is Phase.UP:
            if not (self.reader.done and writer.done):
                return
            self.changed()
            ending.enter(Phase.DONE)
            self.patience.done(now)
        if ending.phase is Phase.DONE and not writer.producing:
            ending.part()  # a producer that was stopped has said whether it had more
        if ending.phase is not Phase.OVER and ending.due:
            self.leave(self.verdict())

    def verdict(self) -> SessionEnded | None:
        """How this end reports, if it has nothing left to do."""
        left = self.terms.records and self.writer.unwanted  # by a program, which may do that
        return self.ending.verdict(done=self.done, cut_short=self.writer.cut_short and not left)

    def lost(self, why: str) -> SessionLost:
        """The failure of a session that cannot go on, and what is known of its stream then."""
        all_but_end = self.reader.done and self.writer.mark is not None
        return lost(why, *self.writer.content(), all_but_end=all_but_end)

    def leave(self, failure: SessionEnded | None) -> None:
        """Be over, with this failure or with success. Again: no effect."""
        if not self.over:
            self.changed()
            self.ending.leave(failure)
            self.log("=", f"over: {failure or 'success'}")
