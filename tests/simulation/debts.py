"""What two ends with several links owe each other, and have got: seen from within, at any time.

What was begun and has not arrived is owed by a link that lives, or was given back: else nobody
would ever send it again. What an end keeps beyond what it has in order lies within its window. And
no link is closed for another one's sake whose caller still holds it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from bpipe.protocol.ending import MOVING
from bpipe.protocol.owed import Debt
from bpipe.protocol.ranges import Ranges
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.wire import MOST_LINKS, UNTOLD, Finish
from tests.simulation.network import Network, Socket
from tests.support.owing import in_none

BACK = "the peer has come back"  # of a link that had to make room


class Account:
    """Of one end: what its links owe, and what they have brought."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.debts: dict[int, Debt] = {}  # by their slots
        self.there = Ranges()  # has arrived, in whatever order
        self._channels: dict[int, SlotChannel] = {}
        self._doubts: dict[int, tuple[float, int]] = {}  # when it was heard last, what had begun
        self._cursors = (0, 0)  # of what is sent, and acknowledged
        self._better = False  # there was a link that was not in doubt
        self._watch_debts(session.slots.owed)
        self._watch_channels(session.slots)
        self._watch_arrivals(session.slots.reassembly)

    def _watch_debts(self, owed: Any) -> None:
        join, leave = owed.join, owed.leave

        def joined(slot: int) -> Debt:
            debt: Debt = join(slot)
            self.debts[slot] = debt
            return debt

        def left(slot: int) -> None:
            leave(slot)
            del self.debts[slot]

        owed.join, owed.leave = joined, left

    def _watch_channels(self, slots: Any) -> None:
        join = slots.join

        def joined(slot: int, channel: SlotChannel) -> None:
            join(slot, channel)
            self._channels[slot] = channel

        slots.join = joined

    def _watch_arrivals(self, reassembly: Any) -> None:
        receive, receive_mark = reassembly.receive, reassembly.receive_mark

        def received(at: int, count: int) -> Any:
            new = receive(at, count)
            self.there.add(at, at + count)
            return new

        def received_mark(number: int, ended: Finish = UNTOLD) -> Any:
            new = receive_mark(number, ended)
            self.there.add(number, number + 1)
            return new

        reassembly.receive, reassembly.receive_mark = received, received_mark

    @property
    def moves(self) -> bool:
        """Whether there may be more to send, and to hear, and several links for that."""
        session = self.session
        whole = session.reader.stopped is None and session.writer.stopped is None
        return whole and session.phase in MOVING and session.terms.slots > 1

    def missing(self, far: Account) -> list[tuple[int, int]]:
        """What this end has begun, the other has not got, and nobody is going to send."""
        debts = [debt.all for debt in self.debts.values()]
        sets = [self.session.slots.owed.given, far.there, *debts]
        return in_none(far.session.reader.received, self.session.writer.high, sets)

    def look(self, far: Account) -> str | None:
        """What is wrong with the stream from here to there; None if nothing is."""
        reader = far.session.reader
        if far.there.end > reader.delivered + reader.capacity + 1:
            return f"{far.there.end} bytes are kept, and {reader.delivered} delivered"
        writer, before = self.session.writer, self._cursors
        self._cursors = writer.sent, writer.acked
        if writer.sent < before[0] or writer.acked < before[1]:
            return f"sent and acked are {self._cursors} after {before}"
        slots = self.session.slots.live
        for slot in self.debts:
            slots ^= 1 << slot
        if slots:
            live = self.session.slots.live
            return f"links in the slots {live:b}, and debts in {sorted(self.debts)}"
        missing = self.missing(far)
        return f"nobody owes {missing} of what was begun" if missing else None

    def _kept(self, debt: Debt) -> Ranges:
        """What a link in doubt owes, and no better one, which was not given back."""
        kept = debt.all.copy()
        kept.remove_all(self.session.slots.owed.given)
        for other in self.debts.values():
            if not other.doubted:
                kept.remove_all(other.all)
        return kept

    def look_at_doubts(self) -> str | None:
        """A link in doubt begins nothing beside one that is not, and is not when it was heard.

        Unless the system says that it has no way: what is heard then may have come before.
        """
        better = any(not debt.doubted for debt in self.debts.values())
        for slot, debt in self.debts.items():
            if not debt.doubted:
                self._doubts.pop(slot, None)
                continue
            liveness = self._channels[slot].liveness
            heard_at = liveness.heard_at
            if better and slot not in self._doubts and len(self._kept(debt)):
                return f"link {slot} is in doubt, and keeps {list(self._kept(debt))}"
            was, sent = self._doubts.get(slot, (heard_at, debt.sent))
            was = heard_at if liveness.away else was
            self._doubts[slot] = was, debt.sent
            if heard_at > was:
                return f"link {slot} was heard, and is still in doubt"
            if better and self._better and debt.sent > sent:
                return f"a frame was begun on link {slot}, which is in doubt"
        self._better = better
        return None


class Books:
    """Both ends of one session."""

    def __init__(self, caller: Session, callee: Session, networks: list[Network]) -> None:
        self._accounts = Account(caller), Account(callee)
        self._wrong: str | None = None
        self._dropped = False  # the listener has just let go of a link for another one
        self._watch_drops(callee)
        self._watch_epochs(callee)
        for network in networks:
            network.closed = self._look_who_closes

    def look(self) -> str | None:
        """What is wrong; None if nothing is."""
        near, far = self._accounts
        if self._wrong is None and near.session.id == far.session.id and near.moves and far.moves:
            wrong = near.look(far) or far.look(near)
            return wrong or near.look_at_doubts() or far.look_at_doubts()
        return self._wrong

    def _watch_drops(self, session: Any) -> None:
        detach = session.detach

        def detached(loss: Any, now: float, slot: int = 0) -> None:
            self._dropped = BACK in str(loss.cause)
            detach(loss, now, slot)

        session.detach = detached

    def _watch_epochs(self, session: Any) -> None:
        """Who greets is compared with the last who was let in in his slot, and with nobody else."""
        slots = session.slots
        last = Counter({slot: slots.epoch(slot) for slot in range(MOST_LINKS)})
        advance, epoch, forget = slots.advance, slots.epoch, slots.forget

        def advanced(slot: int, number: int) -> None:
            advance(slot, number)
            last[slot] = number

        def compared(slot: int) -> int:
            number: int = epoch(slot)
            if number != last[slot]:
                self._wrong = f"slot {slot} compares with {number}, and {last[slot]} was the last"
            return number

        def forgotten() -> None:
            forget()
            last.clear()

        slots.advance, slots.epoch, slots.forget = advanced, compared, forgotten

    def _look_who_closes(self, sock: Socket) -> None:
        """A link that made room is dead, or its caller has closed it."""
        if sock.calls or not self._dropped:
            return
        self._dropped = False
        if sock.healthy:
            self._wrong = f"connection {sock.number} was closed, and its caller holds it"
