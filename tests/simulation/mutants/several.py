"""Mutants of several links at once: what each owes, what is put together, which one is meant."""

from __future__ import annotations

import math
from typing import Any

from bpipe.errors import LinkLost
from bpipe.net.listener import Listener
from bpipe.protocol.caller import Caller
from bpipe.protocol.channel import Channel
from bpipe.protocol.outflow import Outflow
from bpipe.protocol.owed import Debt, Owed
from bpipe.protocol.ranges import Ranges
from bpipe.protocol.rate import Bucket, Rate
from bpipe.protocol.reassembly import Reassembly
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.slots import Slots
from bpipe.protocol.wire import Header, Hello, Kind, Position
from bpipe.protocol.writer import BackedWriter
from tests.simulation.mutants.registry import Patch, worlds
from tests.simulation.several import PERIOD, PLACE

several = worlds(PLACE, PERIOD)
dark = worlds(PLACE + 4 * PERIOD, 6 * PERIOD)
shared = worlds(PLACE + 5 * PERIOD, 12 * PERIOD)
many = worlds(PLACE + 11 * PERIOD, 12 * PERIOD)


# --- what is owed ---


@several
def _forget_what_was_given_back(patch: Patch) -> None:
    """a range given back and forgotten"""
    patch.setattr(Owed, "_give_back", lambda self, debt: None)


@several
def _give_back_one_piece(patch: Patch) -> None:
    """only the first piece given back"""
    give_back = Owed._give_back

    def first(self: Any, debt: Debt) -> None:
        pieces, debt.all = debt.all, Ranges()
        for start, end in [*pieces][:1]:
            debt.all.add(start, end)
        give_back(self, debt)
        debt.all = pieces

    patch.setattr(Owed, "_give_back", first)


@several
def _pay_too_much(patch: Patch) -> None:
    """a PONG that pays what was begun after its PING"""

    def answered(self: Any, now: float) -> Ranges:
        arrived: Ranges = self.all.copy()
        self.acked, self.asked_since, self._asked = self.sent, None, Ranges()
        return arrived

    patch.setattr(Debt, "answered", answered)


@several
def _believe_any_pong(patch: Patch) -> None:
    """the answer to a PING that was said before taken for that to the last one"""
    hear_pong = SlotChannel._hear_pong

    def any_one(self: Any, number: int, now: float) -> None:
        self._asked = 0
        hear_pong(self, number, now)

    patch.setattr(SlotChannel, "_hear_pong", any_one)


@several
def _pay_for_a_frame_that_has_begun(patch: Patch) -> None:
    """what an ACK of another link takes for granted: all that lies below the furthest"""
    drop = Owed.drop_below

    def too_far(self: Any, offset: int) -> None:
        drop(self, max(offset, *[0, *(end for each in [self.given] for _, end in each)]))

    patch.setattr(Owed, "drop_below", too_far)


@several
def _doubt_for_ever(patch: Patch) -> None:
    """a doubt that never ends"""
    patch.setattr(Owed, "trust", lambda self, debt, *_: None)


@dark
def _doubt_without_giving_back(patch: Patch) -> None:
    """a doubt that gives nothing back"""
    patch.setattr(Owed, "doubt", lambda self, debt, *_: debt.doubt(True))


@dark
def _never_doubt(patch: Patch) -> None:
    """a link that is believed in until it is lost"""
    patch.setattr(Debt, "doubted_at", lambda self, heard_at: math.inf)


@dark
def _begin_in_doubt(patch: Patch) -> None:
    """frames begun on a link in doubt, beside one that is not"""
    patch.setattr(Owed, "paused", lambda self, debt: False)


@dark
def _repeat_at_once(patch: Patch) -> None:
    """what others owe repeated at once"""

    def at_once(self: Any, debt: Debt, *_: Any) -> Any:
        others = [each for each in self.debts.values() if each is not debt]
        found = [each.all.lowest_outside(debt.all) for each in others]
        return min((piece for piece in found if piece), default=None), math.inf

    patch.setattr(Owed, "next_repeat", at_once)


@dark
def _never_repeat(patch: Patch) -> None:
    """nothing repeated of what lies in a slow link's queue"""
    patch.setattr(Owed, "next_repeat", lambda self, *_: (None, math.inf))


@dark
def _fill_the_window(patch: Patch) -> None:
    """the window filled by what lies in a slow link's queue"""
    patch.setattr(Owed, "holds_up", lambda self, *_: False)


@dark
def _leave_it_to_the_quickest(patch: Patch) -> None:
    """nothing new begun on a link beside a quicker one"""

    def any_quicker(self: Any, debt: Debt, *_: Any) -> bool:
        return any(each.latest < debt.latest for each in self.debts.values())

    patch.setattr(Owed, "holds_up", any_quicker)


# --- what is put together ---


@several
def _put_it_a_byte_off(patch: Patch) -> None:
    """a range beyond a gap put in the wrong place by one"""
    lend = Reassembly.lend

    def off(self: Any, at: int, limit: int) -> Views:
        reader = self._reader
        if at > reader.received + 1 and self.beyond.end_at(at) is None:
            views: Views = reader.lend(limit, at - 1 - reader.received)
            return views
        return lend(self, at, limit)

    patch.setattr(Reassembly, "lend", off)


@several
def _deliver_twice(patch: Patch) -> None:
    """a duplicate delivered twice"""
    lend, receive = Reassembly.lend, Reassembly.receive

    def again(self: Any, at: int, limit: int) -> Views:
        if at < self._reader.received and not len(self.beyond):
            views: Views = self._reader.lend(limit, 0)
            return views or lend(self, at, limit)
        return lend(self, at, limit)

    def count(self: Any, at: int, count: int) -> int:
        if at < self._reader.received and not len(self.beyond):
            self._reader.receive(min(count, sum(map(len, self._reader.lend(count, 0)))))
            return count
        new: int = receive(self, at, count)
        return new

    patch.setattr(Reassembly, "lend", again)
    patch.setattr(Reassembly, "receive", count)


@dark
def _write_over_what_is_there(patch: Patch) -> None:
    """what comes again beyond a gap taken for more of what is in order"""
    receive = Reassembly.receive

    def more(self: Any, at: int, count: int) -> int:
        if at > self._reader.received and self.beyond.end_at(at) is not None:
            at = self._reader.received
        new: int = receive(self, at, count)
        return new

    patch.setattr(Reassembly, "receive", more)


@several
def _end_early(patch: Patch) -> None:
    """an end mark that comes before the bytes taken for the end"""

    def deliver(self: Any) -> None:
        if self.mark is not None and self._reader.mark is None:
            self._reader.receive_mark(*self.mark)

    patch.setattr(Reassembly, "_deliver_mark", deliver)


# --- numbers that are old ---


@several
def _believe_a_stale_position(patch: Patch) -> None:
    """a stale `received` believed: the stream goes on from there"""
    attach = Session.attach

    def believe(self: Any, channel: Any, position: Position, now: float, slot: int = 0) -> None:
        attach(self, channel, position, now, slot)
        self.writer.resume(position.received, position.window)

    patch.setattr(Session, "attach", believe)


@several
def _take_an_ack_back(patch: Patch) -> None:
    """a smaller ACK taken back"""
    hear, acknowledge = SlotChannel._hear, BackedWriter.acknowledge

    def listen(self: Any, header: Header, now: float) -> None:
        if header.kind is Kind.ACK and header.number < self._writer.acked:
            Channel._hear(self, header, now)
        else:
            hear(self, header, now)

    def take_back(self: Any, number: int) -> bool:
        if number < self.acked:
            self.acked = number
            return False
        return acknowledge(self, number)

    patch.setattr(SlotChannel, "_hear", listen)
    patch.setattr(BackedWriter, "acknowledge", take_back)


@several
def _forget_epochs(patch: Patch) -> None:
    """an old greeting of a slot taken for a new one"""
    patch.setattr(Slots, "epoch", lambda self, slot: 0)


@several
def _compare_with_any(patch: Patch) -> None:
    """an epoch compared with the last of any slot"""
    patch.setattr(Slots, "epoch", lambda self, slot: max(self._epochs.values(), default=0))


# --- which link is meant ---


@several
def _replace_another(patch: Patch) -> None:
    """a RESUME that replaces another slot's link"""

    def drop(self: Any, session: Session, hello: Hello) -> None:
        self._drop_link(session)

    patch.setattr(Sessions, "_drop", drop)


@several
def _close_who_is_not_told_of(patch: Patch) -> None:
    """a link closed because a greeting does not tell of it, which is older than it"""

    def dead(self: Any, live: int, epoch: int) -> list[int]:
        return [slot for slot in self._channels if not live >> slot & 1]

    patch.setattr(Slots, "dead", dead)


@several
def _tell_of_few(patch: Patch) -> None:
    """the greeting's `live` closing a healthy link: one that greets just now is not told of"""
    hello = Caller.hello

    def only_attached(self: Any, slot: int = 0) -> Hello:
        said: Hello = hello(self, slot)
        return said._replace(live=self.session.slots.live & ~(1 << slot))

    patch.setattr(Caller, "hello", only_attached)


@dark
def _never_close_who_is_dead(patch: Patch) -> None:
    """a greeting of one slot drops those of the others"""

    def drop(self: Any, session: Session, slot: int) -> None:
        for link in self._pending[:]:
            greeting = link.greeting
            theirs = greeting.hello is not None and greeting.hello.session == session.id
            if theirs and greeting.channel is None and link.cause is None:
                link.fail(LinkLost("another greeting came first"))

    patch.setattr(Listener, "_drop_greetings", drop)


# --- the end, and what is said on every link ---


@dark
def _believe_one_bye(patch: Patch) -> None:
    """BYE believed on one link only"""
    brought = Slots.brought_bye

    def only_the_first(self: Any, slot: int) -> None:
        if slot == min(self._channels):
            brought(self, slot)

    patch.setattr(Slots, "brought_bye", only_the_first)


@dark
def _say_bye_once(patch: Patch) -> None:
    """BYE said on one link only"""
    small = Channel._small_frames

    def once(self: Any, now: float) -> bytes:
        if self._bye_due and self._ending.parting:
            if getattr(self._session, "said_bye", self.slot) != self.slot:
                self._bye_due = False
            self._session.said_bye = self.slot
        return small(self, now)

    patch.setattr(Channel, "_small_frames", once)


@dark
def _ack_the_mark_once(patch: Patch) -> None:
    """the end mark's ACK on a dead link only"""
    outgoing = SlotChannel.outgoing

    def where_it_came(self: Any, now: float) -> Views:
        if self._reader.done and self._ack_due:
            if getattr(self._session, "marked", self.slot) != self.slot:
                self._ack_due = False
            self._session.marked = self.slot
        views: Views = outgoing(self, now)
        return views

    patch.setattr(SlotChannel, "outgoing", where_it_came)
    patch.setattr(SlotChannel, "say_again", lambda self: None)
    patch.setattr(SlotChannel, "_consider_ack", lambda self, moved, now: None)


@dark
def _ack_on_one_link(patch: Patch) -> None:
    """a delivery acknowledged only where it came"""
    consider = SlotChannel._consider_ack

    def where_it_came(self: Any, moved: int, now: float) -> None:
        if self._inflow.touched:
            consider(self, moved, now)

    patch.setattr(SlotChannel, "_consider_ack", where_it_came)
    patch.setattr(SlotChannel, "say_again", lambda self: None)


@several
def _begin_the_outage_early(patch: Patch) -> None:
    """an outage that begins with the loss of the first of several links"""
    detach = Session.detach

    def early(self: Any, loss: Any, now: float, slot: int = 0) -> None:
        if not self.over:
            self.patience.outage_began(now)
        detach(self, loss, now, slot)

    patch.setattr(Session, "detach", early)


@several
def _send_more_than_the_window(patch: Patch) -> None:
    """a window for each link"""
    choose = Outflow.choose

    def greedy(self: Any, *args: Any) -> None:
        writer = self._writer
        window, writer.window = writer.window, writer.window + 500
        try:
            choose(self, *args)
        finally:
            writer.window = window

    patch.setattr(Outflow, "choose", greedy)


# --- many sessions, and a rate ---


@many
def _attach_to_another(patch: Patch) -> None:
    """one caller's link attached to another's session: in any slot but the first"""
    judge = Sessions.judge

    def first(self: Any, hello: Hello, now: float) -> Any:
        if hello.slot:
            for each in self._sessions:
                if each.established and not each.over and each.id is not None:
                    hello = hello._replace(session=each.id)
                    break
        return judge(self, hello, now)

    patch.setattr(Sessions, "judge", first)


@many
def _drop_greetings_of_all(patch: Patch) -> None:
    """a caller's links closed by another caller's greeting"""
    drop = Sessions._drop

    def wrong(self: Any, session: Session, hello: Hello) -> None:
        for other in self._sessions:
            if other is not session and other.attached:
                self._drop_slot(other, hello.slot)
        drop(self, session, hello)

    patch.setattr(Sessions, "_drop", wrong)


@shared
def _a_rate_for_each_link(patch: Patch) -> None:
    """a bucket for each link in place of one for the process"""

    def alone(self: Any, slot: int) -> Rate:
        share = self._shares[slot] = Rate(None if self.own is None else Bucket(self.own.rate))
        return share

    patch.setattr(Rate, "share", alone)
