from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.protocol.ring import LARGEST_PAGE, Ring, fill
from tests.support.loopback import EVERYTHING

CAPACITIES = [1, 2, 15, 16, 17, 100, 5000]


def put(ring: Ring, data: bytes) -> int:
    count = fill(ring.writable(len(data)), data)
    ring.commit(count)
    return count


def held(ring: Ring) -> bytes:
    return b"".join(ring.readable(ring.start, EVERYTHING))


def numbered(offset: int, count: int) -> bytes:
    """Bytes that differ from those a page, or the capacity, away."""
    return bytes(at % 251 for at in range(offset, offset + count))


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_ring_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Ring(capacity)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_it_takes_its_capacity_and_not_a_byte_more(capacity: int) -> None:
    ring = Ring(capacity)
    assert put(ring, numbered(0, capacity + 1)) == capacity
    assert ring.writable(1) == []
    assert len(ring) == capacity
    assert held(ring) == numbered(0, capacity)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_each_released_byte_makes_room_for_one(capacity: int) -> None:
    ring = Ring(capacity)
    put(ring, numbered(0, capacity))
    for offset in range(1, 2 * capacity + 1):
        ring.release(offset)
        assert put(ring, numbered(ring.end, 2)) == 1
    assert held(ring) == numbered(2 * capacity, capacity)


def test_it_lends_no_more_than_asked_for() -> None:
    ring = Ring(100)
    assert sum(map(len, ring.writable(7))) == 7
    put(ring, numbered(0, 50))
    assert b"".join(ring.readable(10, 7)) == numbered(10, 7)


def test_a_lent_place_that_was_not_used_is_lent_again() -> None:
    ring = Ring(100)
    fill(ring.writable(100), b"?" * 100)
    put(ring, b"ab")
    put(ring, b"cd")
    assert held(ring) == b"abcd"


def test_a_large_ring_lends_pages_of_bounded_size() -> None:
    ring = Ring(20 * LARGEST_PAGE)
    assert {len(view) for view in ring.writable(EVERYTHING)} == {LARGEST_PAGE}


def test_a_stream_whose_consumer_keeps_up_stays_in_the_same_two_pages() -> None:
    ring = Ring(1000)
    for _ in range(200):
        put(ring, b"x" * 10)
        ring.release(ring.end)
    touched = [view for view in ring.writable(1000) if any(view)]
    assert len(touched) <= 2


def test_only_an_empty_ring_can_be_skipped() -> None:
    ring = Ring(10)
    put(ring, b"a")
    with pytest.raises(AssertionError):
        ring.skip(1)


Step = tuple[str, int]


def steps(*kinds: str) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 300)), max_size=40)


def replay(ring: Ring, todo: Iterable[Step]) -> None:
    """Do these steps to the ring and to a model of it, and compare after each."""
    model = b""
    for kind, count in todo:
        if kind == "put":
            data = numbered(ring.end, count)
            taken = put(ring, data)
            assert taken == min(count, ring.capacity - len(model))
            model += data[:taken]
        elif kind == "release":
            count = min(count, len(model))
            ring.release(ring.start + count)
            model = model[count:]
        else:
            ring.release(ring.end)
            end, model = ring.end, b""
            ring.skip(count)
            assert ring.start == ring.end == end + count
        assert held(ring) == model


@given(st.integers(1, 200), steps("put", "release"))
def test_bytes_come_out_as_they_went_in(capacity: int, todo: list[Step]) -> None:
    replay(Ring(capacity), todo)


@given(st.integers(1, 200), steps("put", "release", "skip"))
def test_skipping_does_not_disturb_what_is_written_later(capacity: int, todo: list[Step]) -> None:
    replay(Ring(capacity), todo)
