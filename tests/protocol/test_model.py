"""Two production sessions, a link that a test can cut anywhere, and a model: two byte strings.

The sessions greet with the production greetings. Nothing moves by itself: each rule does one
thing, and hypothesis looks for an order of them that breaks an invariant.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bpipe.errors import Forged, LinkLost, PipeClosed, ProtocolError
from bpipe.protocol import waiting
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from tests.support.loopback import (
    CALLER,
    EVERYTHING,
    LISTENER,
    SECRET,
    SIDES,
    Link,
    Pair,
    take,
    write,
)
from tests.support.peer import deadline

pytestmark = pytest.mark.slow

LIMITS = Limits(heartbeat=2, connect_timeout=1e9, give_up_after=1e9, linger=1e6)
ROUNDS = 2000  # of everything that can be done; more than the end ever needs

PATTERN = bytes(at * 7 % 256 for at in range(256)) * 4  # what is written, again and again

sides = st.sampled_from(SIDES)
sizes = st.integers(1, 300)
pieces = sizes | st.just(EVERYTHING)
seldom = st.sampled_from([False] * 15 + [True])


class Model(RuleBasedStateMachine):
    """``written`` and ``taken`` are the model: what went into each stream, and what came out."""

    secret: Secret | None = None

    @initialize(buffers=st.tuples(st.integers(1, 300), st.integers(1, 300)))
    def start(self, buffers: tuple[int, int]) -> None:
        self.buffers = buffers
        caller, listener = (Session(size, LIMITS, secret=self.secret) for size in buffers)
        self.pair = Pair(caller, listener)
        self.sessions = self.pair.sessions
        self.written = bytearray(), bytearray()
        self.taken = bytearray(), bytearray()
        self.left = False  # a consumer has closed its pipe
        self.pair.connect().run(self.pair.now)

    @property
    def link(self) -> Link:
        return self.pair.links[-1]

    # --- the producers and the consumers ---

    @rule(side=sides, count=sizes)
    def write(self, side: int, count: int) -> None:
        session, written = self.sessions[side], self.written[side]
        if session.writer.mark is None:
            data = PATTERN[len(written) % 256 :][:count]
            written += data[: write(session, data)]

    @rule(side=sides, limit=pieces)
    def deliver(self, side: int, limit: int) -> None:
        session = self.sessions[side]
        if session.reader.stopped is not None:
            return
        self.taken[side].extend(take(session, limit))
        if session.reader.drained and not session.reader.done:
            session.deliver_mark()
            session.settle(self.pair.now)

    @rule(side=sides, really=st.sampled_from([False] * 4 + [True]))
    def finish(self, side: int, really: bool) -> None:
        if really:
            self.sessions[side].finish()

    @rule(side=sides, really=seldom)
    def stop(self, side: int, really: bool) -> None:
        if really:
            self.sessions[side].stop()
            self.sessions[side].settle(self.pair.now)

    @rule(side=sides, really=seldom)
    def leave(self, side: int, really: bool) -> None:
        """The consumer closes its pipe, with or without having taken everything."""
        session = self.sessions[side]
        if really and not (session.reader.drained or session.reader.stopped is not None):
            self.left = True
            session.consumer_gone("gone", self.pair.now)
            session.settle(self.pair.now)

    # --- the link ---

    @rule(side=sides, sent=pieces, arrived=pieces)
    def move(self, side: int, sent: int, arrived: int) -> None:
        """This end puts some bytes on the link, and some of those on it arrive at the other."""
        self.link.send(side, self.pair.now, sent)
        self.link.arrive(1 - side, self.pair.now, arrived)

    @rule(side=sides, count=sizes, sent=pieces, arrived=pieces, limit=pieces)
    def flow(self, side: int, count: int, sent: int, arrived: int, limit: int) -> None:
        """What happens most of the time."""
        self.write(side, count)
        self.move(side, sent, arrived)
        self.deliver(1 - side, limit)

    @rule(noticed=st.booleans())
    def cut(self, noticed: bool) -> None:
        """What is in flight is lost; the listener may not notice before the caller is back."""
        if noticed:
            self.link.cut(self.pair.now)
        else:
            self.link.ends[CALLER].lose(LinkLost("cut"), self.pair.now)
            self.link.ends[LISTENER].inbox = b""

    @precondition(lambda self: self.link.ends[CALLER].cause is not None)
    @rule(greeted=st.integers(0, 200) | st.just(EVERYTHING) | st.just(EVERYTHING))
    def reconnect(self, greeted: int) -> None:
        if self.sessions[CALLER].over:
            return
        link = self.pair.connect()
        for _ in range(2):  # two messages from either end
            for side in SIDES:
                greeted -= link.send(side, self.pair.now, max(greeted, 0))
                link.arrive(1 - side, self.pair.now)

    # --- the clock ---

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.5, 2.0, 7.0]))
    def advance(self, seconds: float) -> None:
        self.pair.now += seconds
        now = self.pair.now
        for side, session in enumerate(self.sessions):
            waiting.tick(session, now)
            for link in self.pair.links:
                end = link.ends[side]
                if end.cause is None and end.greeting.channel is not None:
                    try:
                        end.channel.tick(now)
                    except LinkLost as cause:
                        end.lose(cause, now)
            due = deadline(session)
            assert due is None or due > now

    # --- what holds at each step ---

    @invariant()
    def what_came_out_is_a_prefix_of_what_went_in(self) -> None:
        for side in SIDES:
            assert self.written[1 - side].startswith(self.taken[side])

    @invariant()
    def the_cursors_of_the_two_ends_are_in_order(self) -> None:
        for near, far in (self.sessions, self.sessions[::-1]):
            writer, reader = near.writer, far.reader
            assert writer.acked <= reader.delivered <= reader.received <= writer.high <= writer.end
            assert writer.acked <= writer.sent <= writer.high
            sent = writer.sent if writer.mark is None else min(writer.sent, writer.mark)
            assert sent <= writer.acked + far.reader.capacity

    @invariant()
    def only_what_the_consumer_took_is_delivered(self) -> None:
        for side, session in enumerate(self.sessions):
            if session.reader.stopped is None:
                assert session.reader.delivered == len(self.taken[side]) + session.reader.done

    @invariant()
    def neither_end_breaks_the_protocol(self) -> None:
        for link in self.pair.links:
            assert not any(isinstance(end.cause, ProtocolError | Forged) for end in link.ends)

    @invariant()
    def no_buffer_holds_more_than_its_size(self) -> None:
        for side, session in enumerate(self.sessions):
            writer, size = session.writer, self.buffers[side]
            acked = writer.acked if writer.mark is None else min(writer.acked, writer.mark)
            assert writer.room == size - writer.written + acked >= 0
            assert session.reader.buffered <= size

    @invariant()
    def who_reports_success_is_right(self) -> None:
        for side, session in enumerate(self.sessions):
            if session.over:
                self._judge(side)

    def _judge(self, side: int) -> None:
        """This end is over: what it reports, and what the far consumer has."""
        session, far = self.sessions[side], self.sessions[1 - side]
        stopped = far.reader.stopped
        if session.failure is None and stopped is None:
            assert self.taken[1 - side] == self.written[side]
        elif session.failure is None:
            assert stopped == len(self.taken[1 - side]) == len(self.written[side])
        else:
            assert isinstance(session.failure, PipeClosed)
            if not self.left:
                assert stopped is not None
                assert stopped < len(self.written[side])

    # --- without faults, everything comes to its end ---

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        for _ in range(ROUNDS):
            for side in SIDES:
                self.sessions[side].finish()
                self.deliver(side, EVERYTHING)
            if self.link.run(self.pair.now) == 0 and self._quiet():
                break
            self.the_cursors_of_the_two_ends_are_in_order()
        for side in SIDES:
            assert self.sessions[side].over
            self._judge(side)

    def _quiet(self) -> bool:
        """Nothing moves over the link: find a new one, or let time pass; true if all is over."""
        if all(session.over for session in self.sessions):
            return True
        now = self.pair.now
        for side, session in enumerate(self.sessions):
            if session.over:  # it closes its link, and the other learns of it
                self.link.ends[side].lose(LinkLost("closed"), now)
                self.link.arrive(1 - side, now)
        if self.link.ends[CALLER].cause is not None and not self.sessions[CALLER].over:
            self.pair.now += 1.0  # between two calls that are refused
            self.pair.connect()
        else:
            deadlines = [deadline(session) for session in self.sessions]
            self.advance(max(0.01, min(each - now for each in deadlines if each is not None)))
        return False


class SealedModel(Model):
    """The same under a secret."""

    secret = SECRET


@pytest.mark.parametrize(("model", "examples"), [(Model, 200), (SealedModel, 70)])
@pytest.mark.timeout(400)  # a failure is made small first, and that may take 300 s
def test_two_sessions_and_a_link_that_fails(model: type[Model], examples: int) -> None:
    effort = settings(max_examples=examples, stateful_step_count=60)
    run_state_machine_as_test(model, settings=effort)
