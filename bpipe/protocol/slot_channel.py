"""SlotChannel: the conversation of a session over one of several links.

What is said here is the same as over the only link of a session, and what is heard may be old news,
as another link was faster. In addition:

* READY, with what has been received, follows each ACK: so a consumer that takes nothing does not
  look like a path that brings nothing.
* A PING is said as soon as something of the stream is, one at a time. A link is in order, so a PONG
  proves that all before its PING has arrived; of what has come behind a gap nothing else tells.
* Who hears something of the stream says so soon, on the same link. From whom nothing is heard for a
  while, although he owes an answer, is in *doubt* before the link is lost: nothing more is begun
  there, and what it owes may go out elsewhere.
"""

from __future__ import annotations

import math
from typing import Final

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.channel import Channel
from bpipe.protocol.ending import MOVING, Phase
from bpipe.protocol.frames import Frames
from bpipe.protocol.lender import lender
from bpipe.protocol.outflow import Outflow
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.trace import OfLink
from bpipe.protocol.wire import Header, Kind

ACK_WITHIN: Final = 0.050  # seconds from something of the stream, or a delivery, to an ACK


class SlotChannel(Channel):
    """What is said and heard over the link in this ``slot``."""

    def __init__(
        self,
        session: Session,
        frames: Frames,
        now: float,
        slot: int,
        round_trip: float = math.inf,
    ) -> None:
        super().__init__(session, frames, now)
        self.slot = slot
        self._slots = session.slots
        self._debts = session.slots.owed
        self._debt = self._debts.join(slot)
        self._debt.timed(round_trip)
        self._slots.join(slot, self)
        self._outflow = Outflow(session.writer, self._debts, self._debt, session.history)
        self._inflow = self._arrivals = session.slots.reassembly.inflow()
        frames.join(self._inflow)
        self._rate = session.rate.share(slot)
        self._trace = OfLink(session, slot)
        self._lender = lender(session, frames, self._outflow, self._rate, self._trace)
        self._said = 0  # the number of the last ACK on this link
        self._answer_at = math.inf  # to what has come of the stream
        self._asked = self._last = 0  # tokens: of the PING for which the debt waits, and the last
        self._now = now
        self.liveness.ask()  # how far it is

    def detach(self, cause: LinkLost, now: float) -> None:
        if not self._slots.holds(self.slot, self):
            return
        self._debts.leave(self.slot)
        self._session.rate.leave(self.slot)
        if not isinstance(cause, ProtocolError):
            self._slots.forgive()
        super().detach(cause, now)
        self._slots.say_again()
        self._consider_parting(now)

    @property
    def passable(self) -> int:
        """Nothing goes to the consumer unseen: other links may have brought the same."""
        return 0

    @property
    def doubted(self) -> bool:
        """Whether this link owes an answer for too long."""
        return self._debt.doubted

    @property
    def round_trip(self) -> float:
        """The shortest that was seen, in seconds; infinite before there was any."""
        return self._debt.round_trip

    @property
    def rank(self) -> tuple[bool, float]:  # type: ignore[override]
        """Of several links the least begins first: what is new goes the way that is quickest now.

        That is told by the last answer, which has waited behind what was on its way.
        """
        return self._debt.doubted, self._debt.latest

    # --- out ---

    def outgoing(self, now: float) -> Views:
        if not self._lent:
            self._now = now
            self._consider_ping(now)
            moved = self._reader.delivered - self._said
            if moved > 0 and not self._ack_due:
                self._consider_ack(moved, now)
            self._outflow.choose(now)
        return super().outgoing(now)

    def say_again(self) -> None:
        """An ACK that was said elsewhere may be lost, and a RATE that is old may have come last."""
        self._ack_due = True
        if self._session.rate.own is not None:
            self._owed[Kind.RATE] = self._session.rate.own.rate

    def limit(self) -> None:
        """The session has a rate from now on."""
        self._lender = self._lender.limited()

    def _consider_ping(self, now: float) -> None:
        """What is owed is asked about, again and again."""
        if now >= self._debt.ask_at:
            self.liveness.ask()

    def _consider_ack(self, moved: int, now: float) -> None:
        """It is said soon on the links that have brought something, and a little later on others.

        Nobody knows which of them lives.
        """
        hurries = self._inflow.touched or self._reader.done or self._ending.phase not in MOVING
        if hurries or self._ack_at is not None:
            super()._consider_ack(moved, now)
        else:
            self._ack_at = now + ACK_WITHIN

    def _pack(
        self, kind: Kind, number: int, finish: tuple[int, int] = (0, 0), message: bytes = b""
    ) -> bytes:
        packed = super()._pack(kind, number, finish, message)
        if kind is Kind.ACK:
            self._said, self._answer_at = number, math.inf
            self._inflow.answered()
            packed += super()._pack(Kind.READY, self._reader.received)
        elif kind is Kind.PING:
            self._last = number
            if self._debt.ask(self._now):
                self._asked = number
        return packed

    def _wrote_bye(self, now: float) -> None:
        self._slots.wrote_bye(self.slot, now)
        self._consider_parting(now)

    def _consider_parting(self, now: float) -> None:
        """BYE may be said where it has to be."""
        session, ending = self._session, self._ending
        answering = ending.phase is Phase.ANSWERING
        if session.over or not (answering or ending.peer_bye):
            return
        if self._slots.parted(answering=answering, now=now):
            ending.wrote_bye()
            session.settle(now)

    # --- in ---

    def received(self, count: int, now: float) -> None:
        super().received(count, now)
        if self._debt.doubted and not self.liveness.away:
            self._debts.trust(self._debt, now)
        if self._answer_at == math.inf and (self._inflow.touched or self.midway):
            self._answer_at = now + ACK_WITHIN

    def _hear(self, header: Header, now: float) -> None:
        kind, number = header.kind, header.number
        if kind is Kind.ACK:
            header = header._replace(number=max(number, self._writer.acked))
        super()._hear(header, now)
        if kind is Kind.PONG:
            self._hear_pong(number, now)

    def _hear_pong(self, number: int, now: float) -> None:
        """All that was said before that PING has arrived."""
        if self.liveness.round_trip is not None:
            self._debt.timed(self.liveness.round_trip)
        if self._debt.asked_since is not None and self._asked <= number <= self._last:
            self._debts.answered(self._debt, now)

    def _hear_more(self, header: Header, now: float) -> None:
        kind, number = header.kind, header.number
        if kind is Kind.READY:
            if number > self._writer.high:
                raise ProtocolError("more is received than was sent")
            self._debts.drop_below(number)
            return
        limit = self._session.rate.limit
        super()._hear_more(header, now)
        if self._session.rate.limit != limit:
            self._slots.limit()
        if kind is Kind.BYE:
            self._slots.brought_bye(self.slot)
        self._consider_parting(now)

    def suspect(self, now: float, *, away: bool) -> None:
        super().suspect(now, away=away)
        if not self._debt.doubted:
            self._debts.doubt(self._debt)
            self._slots.say_again()

    # --- time ---

    def tick(self, now: float) -> None:
        super().tick(now)
        if now >= self._answer_at:
            self._ack_due, self._answer_at = True, math.inf
        if now >= self._debt.doubted_at(self.liveness.heard_at):
            self._debts.doubt(self._debt)
        self._consider_ping(now)
        self._outflow.tick(now)
        self._rate.tick(now)
        self._consider_parting(now)

    def deadline(self) -> float:
        soonest = min(
            super().deadline(),
            self._answer_at,
            self._debt.doubted_at(self.liveness.heard_at),
            self._outflow.look_at,
            math.inf if self.liveness.ping_due else self._debt.ask_at,
        )
        part_at = self._slots.part_at if self._ending.phase is Phase.ANSWERING else None
        return min([soonest, *(each for each in (part_at, self._rate.until) if each is not None)])
