"""Ranges, beside a set of numbers that does the same slowly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bpipe.protocol.ranges import Ranges

offsets = st.integers(0, 30)
pairs = st.tuples(offsets, offsets).map(lambda pair: (min(pair), max(pair) + 1))
steps = st.lists(st.tuples(st.booleans(), pairs), max_size=12)


def ranges(*pieces: tuple[int, int]) -> Ranges:
    made = Ranges()
    for start, end in pieces:
        made.add(start, end)
    return made


def numbers(pieces: Iterable[tuple[int, int]]) -> set[int]:
    return {number for start, end in pieces for number in range(start, end)}


def build(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[Ranges, set[int]]:
    made, model = Ranges(), set[int]()
    for adds, (start, end) in steps:
        if adds:
            made.add(start, end)
            model |= set(range(start, end))
        else:
            made.remove(start, end)
            model -= set(range(start, end))
        check(made, model)
    return made, model


def check(made: Ranges, model: set[int]) -> None:
    pieces = list(made)
    assert numbers(pieces) == model
    assert all(start < end for start, end in pieces)
    assert all(one[1] < other[0] for one, other in pairwise(pieces))
    assert made.size == len(model)
    assert made.end == max(model, default=-1) + 1
    assert len(made) == len(pieces)


@given(steps)
def test_it_is_a_set_in_as_few_pieces_as_can_be(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    made, model = build(steps)
    for offset in range(33):
        end, following = made.end_at(offset), made.start_after(offset)
        assert (end is not None) == (offset in model)
        assert end is None or (end not in model and set(range(offset, end)) <= model)
        starts = {number for number in model if number > offset and number - 1 not in model}
        assert following == min(starts, default=None)
        assert made.adjoins(offset) == (offset in model or offset - 1 in model)


@given(steps, steps)
def test_two_of_them(
    steps: list[tuple[bool, tuple[int, int]]], others: list[tuple[bool, tuple[int, int]]]
) -> None:
    (one, model), (other, removed) = build(steps), build(others)
    lowest, copy = one.lowest_outside(other), one.copy()
    if lowest is None:
        assert model <= removed
    else:
        assert lowest[0] == min(model - removed)
        assert numbers([lowest]) <= model - removed
        assert lowest[1] not in model - removed
    one.remove_all(other)
    check(one, model - removed)
    one.add_all(other)
    check(one, model | removed)
    check(copy, model)


@given(steps, offsets)
def test_what_lies_below_an_offset_is_dropped(
    steps: list[tuple[bool, tuple[int, int]]], offset: int
) -> None:
    made, model = build(steps)
    made.drop_below(offset)
    check(made, {number for number in model if number >= offset})


@given(steps, st.integers(1, 4))
def test_too_many_become_fewer_and_lose_nothing(
    steps: list[tuple[bool, tuple[int, int]]], most: int
) -> None:
    made, model = build(steps)
    end = made.end
    made.merge(most)
    assert len(made) <= most
    assert numbers(made) >= model
    assert made.end == end


def test_the_smallest_gaps_are_counted_in_first() -> None:
    made = ranges((0, 1), (10, 11), (12, 13), (16, 17))
    made.merge(3)
    assert list(made) == [(0, 1), (10, 13), (16, 17)]
    made.merge(2)
    assert list(made) == [(0, 1), (10, 17)]
