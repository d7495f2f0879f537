from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.noise import CipherState
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.reassembly import MOST_RANGES, Inflow, Reassembly
from bpipe.protocol.ring import fill
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.wire import Ended, Finish
from tests.support.loopback import EVERYTHING, unpack

CAPACITY = 100
STREAM = bytes(range(1, CAPACITY + 1))


class Lines(NamedTuple):
    """A reader, and links that bring it something."""

    reader: BackedReader
    reassembly: Reassembly

    def bring(self, start: int, end: int, inflow: Inflow | None = None) -> Inflow:
        """A frame with this part of the stream comes over a link."""
        inflow = inflow or self.reassembly.inflow()
        inflow.check(start, end - start)
        move(inflow, STREAM[start:end])
        return inflow

    @property
    def held(self) -> bytes:
        """What waits for the consumer."""
        return b"".join(self.reader.readable(EVERYTHING))


def move(inflow: Inflow, data: bytes) -> None:
    while data:
        count = fill(inflow.lend(len(data)), data)
        assert count > 0
        inflow.receive(count)
        data = data[count:]


def lines(capacity: int = CAPACITY) -> Lines:
    reader = BackedReader(capacity)
    return Lines(reader, Reassembly(reader))


def test_what_comes_early_waits_for_what_is_before_it() -> None:
    both = lines()
    one = both.bring(10, 20)
    assert (both.reader.received, both.held, one.received) == (0, b"", 10)
    other = both.bring(0, 10)
    assert (both.reader.received, both.held, other.received) == (20, STREAM[:20], 10)


def test_what_comes_twice_is_read_and_forgotten() -> None:
    both = lines()
    both.bring(0, 10)
    both.bring(20, 30)
    again = both.reassembly.inflow()
    for start, end in [(0, 10), (20, 30), (22, 28)]:
        both.bring(start, end, again)
    assert (again.received, both.held) == (0, STREAM[:10])
    both.bring(5, 25, again)
    assert (again.received, both.held) == (10, STREAM[:30])


def test_two_links_that_are_in_the_middle_of_the_same() -> None:
    both = lines()
    one, other = both.reassembly.inflow(), both.reassembly.inflow()
    for inflow in (one, other):
        inflow.check(0, 50)
    move(one, STREAM[:10])
    move(other, STREAM[:30])
    move(one, STREAM[10:50])
    move(other, STREAM[30:50])
    assert both.held == STREAM[:50]
    assert (one.received, other.received) == (30, 20)


def test_a_link_knows_whether_it_owes_an_answer() -> None:
    both = lines()
    inflow = both.reassembly.inflow()
    assert not inflow.touched
    steps: list[Callable[[], None]] = [
        lambda: inflow.check(0, 2),
        lambda: move(inflow, STREAM[:1]),
        lambda: inflow.receive_mark(2),
    ]
    for come in steps:
        come()
        assert inflow.touched
        inflow.answered()
        assert not inflow.touched


def test_the_window_holds_whatever_the_order() -> None:
    both = lines()
    both.reassembly.check(CAPACITY - 1, 1)
    with pytest.raises(ProtocolError, match="window"):
        both.reassembly.check(CAPACITY - 1, 2)
    both.bring(0, 10)
    both.reader.took(10)
    both.reassembly.check(CAPACITY, 10)
    with pytest.raises(ProtocolError, match="window"):
        both.reassembly.check(CAPACITY, 11)


def test_gaps_are_bounded() -> None:
    both = lines(capacity=3 * MOST_RANGES)
    inflow = both.reassembly.inflow()
    for at in range(MOST_RANGES):
        inflow.check(1 + 2 * at, 1)
        move(inflow, b"x")
    inflow.check(1 + 2 * MOST_RANGES, 1)
    with pytest.raises(ProtocolError, match="gaps"):
        move(inflow, b"x")


# --- the end mark ---


def test_an_end_mark_that_comes_early_waits() -> None:
    both = lines()
    inflow = both.reassembly.inflow()
    inflow.receive_mark(10, Finish(Ended.EXITED, 3))
    assert (both.reader.mark, inflow.received) == (None, 1)
    both.bring(5, 10)
    both.bring(0, 5)
    assert (both.reader.mark, both.reader.received) == (10, 11)
    assert both.reader.ended == Finish(Ended.EXITED, 3)
    inflow.receive_mark(10, Finish(Ended.EXITED, 3))
    assert inflow.received == 1
    both.bring(0, 10)
    assert both.held == STREAM[:10]


@pytest.mark.parametrize(
    "break_a_rule",
    [
        lambda inflow: inflow.receive_mark(29),
        lambda inflow: inflow.receive_mark(CAPACITY + 1),
        lambda inflow: (inflow.receive_mark(30), inflow.receive_mark(31)),
        lambda inflow: (inflow.receive_mark(30), inflow.receive_mark(30, Finish(Ended.CUT))),
        lambda inflow: (inflow.receive_mark(40), inflow.check(39, 2)),
        lambda inflow: (inflow.check(35, 5), inflow.receive_mark(39)),
    ],
)
def test_an_end_mark_that_cannot_be(break_a_rule: Callable[[Inflow], None]) -> None:
    both = lines()
    both.bring(20, 30)
    with pytest.raises(ProtocolError):
        break_a_rule(both.reassembly.inflow())


def test_an_end_mark_needs_no_window() -> None:
    both = lines()
    both.bring(0, CAPACITY)
    both.reassembly.inflow().receive_mark(CAPACITY)
    assert both.reader.mark == CAPACITY


# --- nobody takes it any more ---


@pytest.mark.parametrize("stop", [BackedReader.stop, BackedReader.discard])
def test_what_nobody_takes_counts_in_any_order(stop: Callable[[BackedReader], None]) -> None:
    both = lines()
    both.bring(10, 20)
    stop(both.reader)
    both.bring(30, 60)
    both.bring(5, 35)
    assert both.reader.received == 0
    both.bring(0, 5)
    both.reassembly.inflow().receive_mark(60)
    assert (both.reader.received, both.held) == (61, b"")
    assert both.reader.done == (stop is BackedReader.stop)


def test_pages_that_are_skipped_can_be_used_again() -> None:
    both = lines(capacity=20)
    both.bring(12, 20)
    both.reader.stop()
    for at in range(0, 400, 10):
        inflow = both.reassembly.inflow()
        inflow.check(at + 10, 10) if at + 20 <= both.reader.delivered + 20 else None
        inflow.check(at, 10)
        move(inflow, bytes(10))
    assert both.reader.delivered == 400


# --- any order, plain and sealed ---

LONG = bytes(at * 7 % 251 for at in range(5000))
journeys = st.tuples(st.integers(0, 2), st.integers(0, 4900), st.integers(1, 2500))


def sealed() -> Frames:
    return SealedFrames(CipherState(bytes(32)), CipherState(bytes(32)))


@pytest.mark.parametrize("make", [Frames, sealed])
@settings(max_examples=40)
@given(seed=st.integers(0, 1000), frames=st.lists(journeys, max_size=15), step=st.integers(20, 900))
def test_any_order_any_pieces_any_repetition(
    make: Callable[[], Frames], seed: int, frames: list[tuple[int, int, int]], step: int
) -> None:
    """Frames come over three links, and in the end the whole stream does."""
    both, rng = lines(capacity=len(LONG)), random.Random(seed)
    near, far = [make() for _ in range(3)], [make() for _ in range(3)]
    for each in far:
        each.join(both.reassembly.inflow())
    queues = [b""] * 3
    whole = [(at % 3, at * 250, 250) for at in range(20)]
    for link, start, count in [*frames, *whole]:
        payload = memoryview(LONG[start : start + count])
        queues[link] += b"".join(near[link].pack_data(start, payload))
    taken = b""
    while any(queues):
        link = rng.choice([at for at in range(3) if queues[at]])
        unpack(far[link], queues[link][:step])
        queues[link] = queues[link][step:]
        taken += both.held
        both.reader.took(len(both.held))
        assert LONG.startswith(taken)
    assert taken == LONG
