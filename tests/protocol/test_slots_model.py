"""Two production sessions and several links, each of which a test can cut anywhere.

The same as ``test_model.py``, and what is there has to hold here, too. Bytes of different links
arrive in any order; greetings may be late, and an end may not know that a link is dead.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from bpipe.errors import LinkLost
from bpipe.protocol.ranges import Ranges
from bpipe.protocol.secret import Secret
from tests.protocol.test_model import ROUNDS, Model, pieces, sides, sizes
from tests.support.loopback import CALLER, EVERYTHING, SECRET, SIDES, Link
from tests.support.several import Line, Several, several
from tests.support.walk import Walk

pytestmark = pytest.mark.slow

MOST = 3
indices = st.integers(0, 20)  # of a link that lives, modulo


class SlotsModel(Model):
    """``written`` and ``taken`` are the model, whichever link carries them."""

    secret: Secret | None = None
    pair: Several

    @initialize(
        buffers=st.tuples(st.integers(1, 300), st.integers(1, 300)), links=st.integers(2, MOST)
    )
    def start(self, buffers: tuple[int, int], links: int) -> None:
        self.buffers, self.most = buffers, links
        self.pair = several(links, buffers=buffers, secret=self.secret)
        self.sessions = self.pair.sessions
        self.written = bytearray(), bytearray()
        self.taken = bytearray(), bytearray()
        self.left = False

    def pick(self, index: int) -> Link:
        alive = self.pair.alive or self.pair.links
        return alive[index % len(alive)]

    # --- the links ---

    @rule(index=indices, side=sides, sent=pieces, arrived=pieces)
    def move(self, index: int, side: int, sent: int, arrived: int) -> None:
        link = self.pick(index)
        link.send(side, self.pair.now, sent)
        link.arrive(1 - side, self.pair.now, arrived)

    @rule(index=indices, side=sides, count=sizes, sent=pieces, arrived=pieces, limit=pieces)
    def flow(self, index: int, side: int, count: int, sent: int, arrived: int, limit: int) -> None:
        self.write(side, count)
        self.move(index, side, sent, arrived)
        self.deliver(1 - side, limit)

    @rule(index=indices, noticed=st.sampled_from([(0, 1), (0,), (1,)]))
    def cut(self, index: int, noticed: tuple[int, ...]) -> None:
        """What is in flight is lost; one end may not notice yet."""
        link = self.pick(index)
        for side in SIDES:
            if side in noticed:
                link.ends[side].lose(LinkLost("cut"), self.pair.now)
            else:
                link.ends[side].inbox = b""

    @rule(index=indices)
    def darken(self, index: int) -> None:
        """Nothing comes over it any more, and nobody notices before it was silent for long."""
        link = self.pick(index)
        assert isinstance(link, Line)
        link.darken()

    @precondition(lambda self: not self.sessions[CALLER].over)
    @rule(slot=st.integers(0, MOST - 1), greeted=st.integers(0, 200) | st.just(EVERYTHING))
    def reconnect(self, greeted: int, slot: int = 0) -> None:
        """A greeting, beside an old link perhaps; what is left of it may come later."""
        slot %= self.most
        link = self.pair.connect(slot)
        for _ in range(2):
            for side in SIDES:
                greeted -= link.send(side, self.pair.now, max(greeted, 0))
                link.arrive(1 - side, self.pair.now)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.5, 2.0, 7.0]))
    def advance(self, seconds: float) -> None:
        self.pair.now += seconds
        self.pair.tick()
        self.pair.deadline()

    # --- what holds at each step ---

    @invariant()
    def what_has_not_arrived_is_owed_or_given_back(self) -> None:
        """It is owed by a link that lives, or goes out over one."""
        for near, far in (self.sessions, self.sessions[::-1]):
            missing = Ranges()
            if far.reader.received < near.writer.high:
                missing.add(far.reader.received, near.writer.high)
            there = far.slots.reassembly
            missing.remove_all(there.beyond)
            if there.mark is not None:
                missing.remove(there.mark[0], there.mark[0] + 1)
            missing.remove_all(near.slots.owed.given)
            for slot, debt in near.slots.owed.debts.items():
                assert near.slots.live >> slot & 1
                missing.remove_all(debt.all)
            assert list(missing) == []

    # --- without faults, everything comes to its end ---

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        for _ in range(ROUNDS):
            for side in SIDES:
                self.sessions[side].finish()
                self.deliver(side, EVERYTHING)
            if self.pair.run() == 0 and self._quiet():
                break
            self.the_cursors_of_the_two_ends_are_in_order()
            self.neither_end_breaks_the_protocol()
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
    for seed in range(40):
        Walk(seed, model).run()
