"""Two production sessions and several links, each of which a test can cut anywhere.

The same as ``test_model.py``, and what is there has to hold here, too. Bytes of different links
arrive in any order; greetings may be late, and an end may not know that a link is dead.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from bpipe.errors import Forged, ProtocolError
from bpipe.protocol.ranges import Ranges
from bpipe.protocol.secret import Secret
from tests.protocol.test_model import ROUNDS, Model, pieces, sides, sizes
from tests.support.loopback import CALLER, EVERYTHING, SECRET, SIDES
from tests.support.owing import in_none
from tests.support.several import Line, Several, several
from tests.support.walk import Walk

pytestmark = pytest.mark.slow

MOST = 3
indices = st.integers(0, 20)  # of a link that lives, modulo
WRONG = (ProtocolError, Forged)
HAPPENS = {  # in some walks
    "cuts told to both ends", "cuts told to an end, then the other", "cuts told to an end only",
    "gone dark", "told of a way", "links", "links doubted",
    "stale greetings", "greetings repeated", "repeats refused",
}  # fmt: skip
lags = st.sampled_from([0.0, 0.0, 0.02, 0.2, 1.5])  # seconds


class SlotsModel(Model):
    """``written`` and ``taken`` are the model, whichever link carries them."""

    secret: Secret | None = None
    pair: Several

    @initialize(
        buffers=st.tuples(st.integers(1, 300), st.integers(1, 300)),
        links=st.integers(1, MOST),
        slow=st.lists(lags, min_size=MOST, max_size=MOST),
    )
    def start(self, buffers: tuple[int, int], links: int, slow: list[float]) -> None:
        self.buffers, self.most = buffers, links
        self.pair = several(links, buffers=buffers, secret=self.secret)
        self.pair.slow_down(slow)
        self.pair.watch_doubts()
        self.sessions = self.pair.sessions
        self.written = bytearray(), bytearray()
        self.taken = bytearray(), bytearray()
        self.left = False

    def pick(self, index: int) -> Line | None:
        alive = self.pair.alive
        if not alive:
            return None
        link = alive[index % len(alive)]
        assert isinstance(link, Line)
        return link

    # --- the links ---

    @rule(index=indices, side=sides, sent=pieces, arrived=pieces)
    def move(self, index: int, side: int, sent: int, arrived: int) -> None:
        if (link := self.pick(index)) is not None:
            link.send(side, self.pair.now, sent)
            link.arrive(1 - side, self.pair.now, arrived)

    @rule(index=indices, side=sides, count=sizes, sent=pieces, arrived=pieces, limit=pieces)
    def flow(self, index: int, side: int, count: int, sent: int, arrived: int, limit: int) -> None:
        self.write(side, count)
        self.move(index, side, sent, arrived)
        self.deliver(1 - side, limit)

    @rule(index=indices, noticed=st.sampled_from([(0, 1), (0,), (1,)]), heard=st.booleans())
    def cut(self, index: int, noticed: tuple[int, ...], heard: bool) -> None:
        """What is in flight is lost; one end may not notice before it hears that, if it does."""
        if (link := self.pick(index)) is None:
            return
        link.cut(self.pair.now, noticed)
        if not heard:
            link.darken()
        told = (
            "both ends"
            if len(noticed) > 1
            else "an end, then the other"
            if heard
            else "an end only"
        )
        self.pair.seen[f"cuts told to {told}"] += 1

    @rule(index=indices)
    def darken(self, index: int) -> None:
        """Nothing comes over it any more, and nobody notices before it was silent for long."""
        if (link := self.pick(index)) is not None:
            link.darken()
            self.pair.seen["gone dark"] += 1

    @rule(index=indices, side=sides, away=st.booleans())
    def suspect(self, index: int, side: int, away: bool) -> None:
        """An end is told that a link has no way, or has one again: so or not."""
        if channels := self.pair.channels(side):
            channels[index % len(channels)][1].suspect(self.pair.now, away=away)
            self.pair.seen["told of a way"] += 1

    @rule(index=indices, arrived=pieces, stays=st.booleans())
    def echo(self, index: int, arrived: int, stays: bool) -> None:
        """A greeting comes again, late, and from nobody; what comes of it may stay."""
        links = [link for link in self.pair.links if isinstance(link, Line) and link.said]
        if links:
            self.pair.echo(links[index % len(links)], arrived, stays=stays)
            self.pair.seen["greetings repeated"] += 1

    @precondition(lambda self: not self.sessions[CALLER].over)
    @rule(
        slot=st.integers(0, MOST - 1), greeted=st.integers(0, 200) | st.just(EVERYTHING), late=lags
    )
    def reconnect(self, slot: int, greeted: int, late: float) -> None:
        """A greeting, beside an old link perhaps; what is left of it may come later.

        So may its CONFIRM, by so many seconds: after that of the next one in its slot.
        """
        link = self.pair.connect(slot % self.most)
        for _ in range(2):
            for side in SIDES:
                greeted -= link.send(side, self.pair.now, max(greeted, 0))
                link.arrive(1 - side, self.pair.now)
            link.lag += late

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.5, 2.0, 7.0]))
    def advance(self, seconds: float) -> None:
        self.pair.now += seconds
        self.pair.tick()
        self.pair.deadline()

    # --- what holds at each step ---

    @invariant()
    def what_has_not_arrived_is_owed_or_given_back(self) -> None:
        """It is owed by a link that lives, or goes out over one."""
        if self.most == 1:
            return
        for near, far in (self.sessions, self.sessions[::-1]):
            there, owed, bits = far.slots.reassembly, near.slots.owed, 0
            sets = [owed.given, there.beyond]
            for slot, debt in owed.debts.items():
                bits |= 1 << slot
                sets.append(debt.all)
            assert near.slots.live == bits
            if there.mark is not None:
                sets.append(Ranges())
                sets[-1].add(there.mark[0], there.mark[0] + 1)
            assert in_none(far.reader.received, near.writer.high, sets) == []

    @invariant()
    def neither_end_breaks_the_protocol(self) -> None:
        """But what was said before is found out, where links are sealed."""
        for link in self.pair.links:
            for end in link.ends:
                if end.cause is not None and isinstance(end.cause, WRONG):
                    assert isinstance(link, Line)
                    assert link.echoed, end.cause
                    assert isinstance(end.cause, Forged), end.cause

    @invariant()
    def who_is_let_in_is_the_latest_of_his_slot(self) -> None:
        """Whoever came meanwhile in the others; and no link is closed that its caller holds."""
        assert self.pair.look() == []
        self.pair.bury()

    # --- without faults, everything comes to its end ---

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        self.pair.hurry()
        for _ in range(ROUNDS + max(map(len, self.written))):  # a window may be of one byte
            for side in SIDES:
                self.sessions[side].finish()
                self.deliver(side, EVERYTHING)
            if self.pair.run() == 0 and self._quiet():
                break
            self.the_cursors_of_the_two_ends_are_in_order()
            self.neither_end_breaks_the_protocol()
            self.who_is_let_in_is_the_latest_of_his_slot()
        for side in SIDES:
            assert self.sessions[side].over
            self._judge(side)

    def _quiet(self) -> bool:
        if all(session.over for session in self.sessions):
            return True
        self.pair.leave()
        caller = self.sessions[CALLER]
        if not caller.attached and not caller.over:
            self.pair.now += 1.0
            self.pair.tick()
            self.pair.connect()
        elif (due := self.pair.deadline()) is not None:
            self.advance(max(0.01, due - self.pair.now))
        return False


class SealedSlotsModel(SlotsModel):
    """The same under a secret."""

    secret = SECRET


@pytest.mark.parametrize(("model", "examples"), [(SlotsModel, 100), (SealedSlotsModel, 40)])
@pytest.mark.timeout(400)
def test_two_sessions_and_several_links_that_fail(model: type[SlotsModel], examples: int) -> None:
    effort = settings(max_examples=examples, stateful_step_count=50)
    run_state_machine_as_test(model, settings=effort)


@pytest.mark.parametrize("model", [SlotsModel, SealedSlotsModel])
def test_walks(model: type[SlotsModel]) -> None:
    walks, seen = [Walk(seed, model) for seed in range(40)], Counter[str]()
    for walk in walks:
        walk.run()
        seen += walk.model.pair.seen
    assert {walk.links for walk in walks} == {1, 2, 3, 4}
    assert seen.keys() >= HAPPENS
