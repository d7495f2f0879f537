"""Mutants of the rate: what it counts, when, for whom, and who is to hear of it."""

from __future__ import annotations

from typing import Any

from bpipe.protocol import rate as rates
from bpipe.protocol.channel import Channel
from bpipe.protocol.lender import Lender, LimitedLender
from bpipe.protocol.rate import Bucket, Rate
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import LARGEST_PAYLOAD
from tests.simulation.limited import PERIOD, PLACE
from tests.simulation.mutants.registry import Patch, worlds

limited = worlds(PLACE, PERIOD)


@limited
def _gather_credit(patch: Patch) -> None:
    """credit that gathers while nothing is sent"""
    patch.setattr(rates, "BURST", 1e6)


@limited
def _pass_over_a_replay(patch: Patch) -> None:
    """a replay that is not counted"""
    lend, draw = LimitedLender.lend, Rate.draw

    def note(self: Any, lent: Views, now: float, most: int = LARGEST_PAYLOAD) -> Views:
        writer, before = self._writer, self._writer.high
        lent = lend(self, lent, now, most)
        self._rate.again = writer.high == before and writer.sent < writer.high
        return lent

    def forgive(self: Any, count: int, now: float) -> None:
        if not getattr(self, "again", False):
            draw(self, count, now)

    patch.setattr(LimitedLender, "lend", note)
    patch.setattr(Rate, "draw", forgive)


@limited
def _ignore_the_peer(patch: Patch) -> None:
    """a rate of the peer that is not heeded"""
    patch.setattr(Rate, "hear", lambda self, number: None)


@limited
def _do_not_tell_a_change(patch: Patch) -> None:
    """a rate that has changed told on the next link only"""
    patch.setattr(LimitedLender, "_say_change", lambda self, lent: None)


@limited
def _draw_early(patch: Patch) -> None:
    """the bucket drawn before the bytes are on the link, and never given back"""
    lend = LimitedLender.lend

    def early(self: Any, lent: Views, now: float, most: int = LARGEST_PAYLOAD) -> Views:
        before = self._unpaid
        lent = lend(self, lent, now, most)
        if self._unpaid > before:
            self._rate.draw(self._unpaid, now)
            self._unpaid = 0
        return lent

    patch.setattr(LimitedLender, "lend", early)


@limited
def _draw_when_it_is_lent(patch: Patch) -> None:
    """what is lent counted again with each try to send it"""
    again = LimitedLender.again

    def twice(self: Any, lent: Views, now: float) -> Views:
        views = again(self, lent, now)
        if self._unpaid:
            self._rate.draw(sum(map(len, views)), now)
        return views

    patch.setattr(LimitedLender, "again", twice)


@limited
def _make_frames_large(patch: Patch) -> None:
    """a frame as large as it can be, however slow it leaves"""
    patch.setattr(Rate, "_frame", property(lambda self: LARGEST_PAYLOAD))


@limited
def _send_a_frame_at_once(patch: Patch) -> None:
    """the rest of a frame that has begun sent as the link takes it"""
    patch.setattr(Rate, "allow", lambda self, count, now: count)


@limited
def _wait_on(patch: Patch) -> None:
    """who waits for a bucket waits on when its rate has changed"""
    begin = Rate.begin

    def patient(self: Any, wanted: int, now: float) -> int:
        if self.until is not None and now < self.until:
            return 0
        return begin(self, wanted, now)

    patch.setattr(Rate, "begin", patient)


@limited
def _keep_a_promise(patch: Patch) -> None:
    """a frame as large as was promised when the rate was another one"""
    begin = Rate.begin

    def keep(self: Any, wanted: int, now: float) -> int:
        promised = self._promised
        if promised is not None and self.own is not None:
            self._promised = promised[0], promised[1], self.own.rate
        count = begin(self, wanted, now)
        return promised[1] if count and promised is not None else count

    patch.setattr(Rate, "begin", keep)


@limited
def _hold_to_the_new_rate(patch: Patch) -> None:
    """a frame that has begun held to the rate that came after"""

    def again(self: Any, lent: Views, now: float) -> Views:
        rest = sum(map(len, lent))
        self._pay(rest, now)
        left, views = self._rate.allow(rest, now) if self._unpaid else rest, []
        for view in lent:
            if left > 0:
                views.append(view[:left])
                left -= len(view)
        return views

    patch.setattr(LimitedLender, "again", again)
    patch.setattr(LimitedLender, "limited", lambda self: self)


@limited
def _one_for_each(patch: Patch) -> None:
    """a bucket for each session in place of one for the process"""
    init = Rate.__init__

    def alone(self: Any, own: Bucket | None = None) -> None:
        init(self, None if own is None else Bucket(own.rate))

    patch.setattr(Rate, "__init__", alone)


@limited
def _stand_in_line_again(patch: Patch) -> None:
    """who comes when he was told to is put at the end of the line again"""
    begin = Rate.begin

    def again(self: Any, wanted: int, now: float) -> int:
        if self._promised is not None and now >= self._promised[0]:
            self._promised = None
        return begin(self, wanted, now)

    patch.setattr(Rate, "begin", again)


@limited
def _let_the_first_go_on(patch: Patch) -> None:
    """a bucket that the one session whose turn it is keeps while it has something to send"""
    begin = Rate.begin

    def keep(self: Any, wanted: int, now: float) -> int:
        owner = getattr(self.own, "owner", None)
        if self.own is not None and owner is not None and owner is not self:
            since = getattr(self.own, "owned", now)
            if now - since < 0.5:
                self._wait(since + 0.5, now)
                return 0
        if count := begin(self, wanted, now):
            if self.own is not None:
                self.own.owner, self.own.owned = self, now
        return count

    patch.setattr(Rate, "begin", keep)


@limited
def _draw_small_frames(patch: Patch) -> None:
    """an ACK that waits for the bucket"""
    small = Channel._small_frames

    def hold(self: Any, now: float) -> bytes:
        rate = self._session.rate
        if self._session.established and rate.limit and not rate.allow(self._frames.size, now):
            return b""
        data = small(self, now)
        rate.draw(len(data), now)
        return data

    patch.setattr(Channel, "_small_frames", hold)


@limited
def _start_the_delay_late(patch: Patch) -> None:
    """an ACK that is thought of when no frame is under way"""
    outgoing = Channel.outgoing

    def late(self: Any, now: float) -> Views:
        if self._lent:
            views: Views = self._lender.again(self._lent, now)
            return views
        return outgoing(self, now)

    patch.setattr(Channel, "outgoing", late)


@limited
def _forget_the_rate(patch: Patch) -> None:
    """what the peer allows forgotten with the link"""
    init = Channel.__init__

    def anew(self: Any, *args: Any) -> None:
        args[0].rate.forget()
        init(self, *args)

    patch.setattr(Channel, "__init__", anew)


@limited
def _tell_it_late(patch: Patch) -> None:
    """the rate told when the stream has begun"""
    init = Channel.__init__

    def silent(self: Any, *args: Any) -> None:
        init(self, *args)
        self._owed.clear()
        if isinstance(self._lender, LimitedLender):
            self._lender._said = 0

    patch.setattr(Channel, "__init__", silent)


@limited
def _leave_out_what_is_around(patch: Patch) -> None:
    """headers and tags not counted"""
    pay = LimitedLender._pay

    def less(self: Any, rest: int, now: float) -> None:
        if self._unpaid > rest:
            spare = min(getattr(self, "_spare", 0), self._unpaid - rest)
            self._unpaid, self._spare = self._unpaid - spare, getattr(self, "_spare", 0) - spare
        pay(self, rest, now)

    lend = Lender.lend

    def begin(self: Any, lent: Views, now: float, most: int = LARGEST_PAYLOAD) -> Views:
        self._spare = self._frames.around
        return lend(self, lent, now, most)

    patch.setattr(Lender, "lend", begin)
    patch.setattr(LimitedLender, "_pay", less)
