from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.protocol.liveness import OWED
from bpipe.protocol.owed import (
    ASK_EVERY,
    DOUBT_AFTER,
    DOUBT_TRIPS,
    MOST_GIVEN,
    MOST_OWED,
    PRESSED_AFTER,
    REPEAT_AFTER,
    REPEAT_TRIPS,
    SOON,
    Debt,
    Owed,
)
from bpipe.protocol.ranges import Ranges

NOW = 100.0
LATE = NOW + REPEAT_AFTER


def two() -> tuple[Owed, Debt, Debt]:
    owed = Owed()
    return owed, owed.join(0), owed.join(1)


def begun(owed: Owed, debt: Debt, *pieces: tuple[int, int], now: float = NOW) -> None:
    for start, end in pieces:
        owed.begin(debt, start, end, now)


# --- what is known to have arrived ---


def test_what_the_peer_has_received_is_owed_by_nobody() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10), (20, 30))
    begun(owed, other, (10, 20))
    owed.drop_below(15)
    assert (list(one.all), list(other.all)) == ([(20, 30)], [(15, 20)])
    owed.drop_below(5)
    owed.leave(1)
    assert list(owed.given) == [(15, 20)]
    owed.drop_below(20)
    assert list(owed.given) == []


def test_what_was_begun_before_a_question_has_arrived_with_the_answer() -> None:
    owed, one, other = two()
    begun(owed, one, (10, 20), (40, 50))
    begun(owed, other, (10, 30))
    one.ask(NOW)
    begun(owed, one, (50, 60))
    owed.answered(one, NOW)
    assert (list(one.all), list(other.all)) == ([(50, 60)], [(20, 30)])
    assert (one.sent, one.acked) == (30, 20)


def test_there_is_one_question_at_a_time() -> None:
    owed, one, _ = two()
    one.ask(NOW)
    assert one.asked_since is None
    begun(owed, one, (0, 10))
    one.ask(NOW)
    begun(owed, one, (10, 20), now=NOW + 1)
    one.ask(NOW)
    assert [one.asked_since, one.since] == [NOW, NOW + 1]
    owed.answered(one, NOW)
    assert list(one.all) == [(10, 20)]
    one.ask(NOW)
    owed.answered(one, NOW)
    assert (list(one.all), one.acked, one.since, one.asked_since) == ([], 20, None, None)


def test_what_has_arrived_over_another_link_is_not_given_back() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10))
    owed.leave(0)
    begun(owed, other, (0, 5))
    other.ask(NOW)
    owed.answered(other, NOW)
    assert list(owed.given) == [(5, 10)]


def test_it_is_not_asked_too_often() -> None:
    _, one, _ = two()
    assert one.ask_at == math.inf
    one.begin(0, 10, NOW)
    assert one.ask_at < NOW
    one.ask(NOW)
    one.begin(10, 20, NOW)
    assert one.ask_at == math.inf
    one.answered(NOW)
    assert one.ask_at == NOW + ASK_EVERY


# --- what is given back ---


def test_a_link_that_is_lost_gives_back_what_no_other_owes() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 30))
    begun(owed, other, (10, 20))
    owed.leave(0)
    assert list(owed.given) == [(0, 10), (20, 30)]
    assert owed.next_given(other) == (0, 10)
    begun(owed, other, (0, 4))
    assert owed.next_given(other) == (4, 10)
    begun(owed, other, (4, 10), (20, 30))
    assert owed.next_given(other) is None


def test_a_link_in_doubt_gives_back_what_it_owes_and_takes_nothing_while_another_lives() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10))
    owed.doubt(one)
    assert (owed.next_given(other), owed.next_given(one)) == ((0, 10), None)
    assert (owed.paused(one), owed.paused(other)) == (True, False)
    begun(owed, other, (0, 4))
    owed.trust(one, NOW)
    assert (owed.next_given(other), owed.paused(one)) == (None, False)
    owed.doubt(one)
    assert list(owed.given) == [(4, 10)]


def test_while_all_are_in_doubt_none_takes_what_another_will_bring() -> None:
    owed, one, other = two()
    third = owed.join(2)
    begun(owed, one, (0, 10))
    begun(owed, other, (10, 20))
    begun(owed, third, (20, 30))
    owed.leave(2)
    for debt in (one, other):
        owed.doubt(debt)
    assert not owed.paused(one)
    assert list(owed.given) == [(20, 30)]
    owed.trust(other, NOW)
    owed.tick(NOW + SOON - 0.001)
    assert list(owed.given) == [(20, 30)]
    assert again_at(owed, other) == NOW + SOON
    owed.tick(NOW + SOON)
    assert list(owed.given) == [(0, 10), (20, 30)]
    assert again_at(owed, other) > NOW + SOON


def test_links_that_were_silent_at_once_and_are_all_heard_again_go_on() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10))
    for debt in (one, other):
        owed.doubt(debt)
    for debt in (other, one):
        owed.trust(debt, NOW)
    owed.tick(NOW + SOON)
    assert list(owed.given) == []


def test_what_only_a_doubted_link_owes_goes_out_over_the_next_one() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10))
    owed.doubt(one)
    begun(owed, other, (0, 10))
    owed.leave(1)
    assert list(owed.given) == []
    owed.join(1)
    assert list(owed.given) == [(0, 10)]


def test_of_what_is_given_back_there_are_not_too_many_pieces() -> None:
    owed = Owed()
    for slot in range(2 * MOST_GIVEN // MOST_OWED):
        debt = owed.join(slot)
        begun(
            owed,
            debt,
            *[
                ((slot * MOST_OWED + at) * 3, (slot * MOST_OWED + at) * 3 + 1)
                for at in range(MOST_OWED)
            ],
        )
        owed.leave(slot)
    assert len(owed.given) == MOST_GIVEN
    assert owed.given.end == (2 * MOST_GIVEN - 1) * 3 + 1


# --- what is repeated ---


def repeats(owed: Owed, debt: Debt, now: float = LATE) -> tuple[int, int] | None:
    """What this link would repeat."""
    return owed.next_repeat(debt, now)[0]


def again_at(owed: Owed, debt: Debt, now: float = NOW) -> float:
    """When there may be something to repeat for it."""
    return owed.next_repeat(debt, now)[1]


def quick(*debts: Debt) -> None:
    """An answer takes these no time."""
    for debt in debts:
        debt.timed(0)


def test_a_link_repeats_the_lowest_that_others_owe_once() -> None:
    owed, one, other = two()
    third = owed.join(2)
    quick(one, other, third)
    begun(owed, one, (10, 20))
    begun(owed, other, (0, 10), (20, 30))
    assert repeats(owed, third) == (0, 10)
    begun(owed, third, (0, 10))
    assert repeats(owed, third) == (10, 20)
    begun(owed, third, (10, 20), (20, 30))
    assert repeats(owed, third) is None
    assert repeats(owed, one) == (0, 10)


def test_what_a_link_owes_is_repeated_when_its_answer_is_late() -> None:
    owed, one, other = two()
    quick(one, other)
    assert again_at(owed, other) == math.inf
    begun(owed, one, (0, 10))
    assert repeats(owed, other, LATE - 0.001) is None
    assert again_at(owed, other) == LATE
    assert repeats(owed, other) == (0, 10)
    assert again_at(owed, other, LATE) == math.inf


def test_how_old_it_is_makes_no_difference_as_long_as_it_answers() -> None:
    owed, one, other = two()
    quick(one, other)
    begun(owed, one, (0, 10))
    one.ask(NOW)
    begun(owed, one, (10, 20), now=NOW + 0.001)
    owed.answered(one, NOW)
    one.ask(NOW + 0.04)
    assert repeats(owed, other, LATE + 0.02) is None
    assert again_at(owed, other, LATE + 0.02) == NOW + 0.04 + REPEAT_AFTER
    begun(owed, one, (20, 30), now=NOW + 0.08)
    assert repeats(owed, other, NOW + 0.04 + REPEAT_AFTER) == (10, 30)


def test_who_is_slow_just_now_repeats_nothing_that_it_would_not_bring_sooner() -> None:
    owed, one, other = two()
    quick(one, other)
    begun(owed, one, (0, 10))
    one.ask(NOW)
    begun(owed, other, (10, 20))
    other.ask(NOW + 0.12)
    assert repeats(owed, other, LATE - 0.001) is None
    assert repeats(owed, other, LATE) == (0, 10)
    assert repeats(owed, other, LATE + 0.1) is None
    owed.answered(other, NOW)
    other.timed(0.3)
    assert (one.round_trip, other.round_trip) == (0, 0)
    assert again_at(owed, other, LATE + 0.1) == NOW + REPEAT_TRIPS * 0.3


def test_where_something_waits_for_it_it_is_repeated_sooner() -> None:
    owed, one, other = two()
    quick(one, other)
    begun(owed, one, (0, 10))
    assert owed.next_repeat(other, NOW + PRESSED_AFTER) == (None, LATE)
    piece, _ = owed.next_repeat(other, NOW + PRESSED_AFTER, PRESSED_AFTER)
    assert piece == (0, 10)


def test_an_answer_may_take_two_round_trips_of_either_link() -> None:
    owed, one, other = two()
    third = owed.join(2)
    begun(owed, one, (0, 10))
    quick(other)
    assert again_at(owed, other) == NOW + OWED
    one.timed(0.3)
    one.timed(0.1)
    one.timed(0.2)
    assert again_at(owed, other) == NOW + REPEAT_TRIPS * 0.1
    third.timed(0.15)
    assert again_at(owed, third) == NOW + REPEAT_TRIPS * 0.15


def test_where_nothing_is_owed_no_answer_is() -> None:
    owed, one, other = two()
    begun(owed, one, (0, 10))
    begun(owed, other, (0, 10))
    owed.drop_below(10)
    assert not one.ask(NOW)
    assert again_at(owed, other) == math.inf
    begun(owed, one, (10, 20))
    begun(owed, other, (10, 20))
    one.ask(NOW)
    owed.answered(one, NOW)
    assert not other.ask(NOW)


def test_who_answers_nothing_is_in_doubt_after_three_round_trips() -> None:
    owed, one, _ = two()
    assert one.doubted_at(NOW) == math.inf
    begun(owed, one, (0, 10))
    assert one.doubted_at(NOW - 1) == NOW + OWED
    one.timed(0)
    assert one.doubted_at(NOW - 1) == NOW + DOUBT_AFTER
    assert one.doubted_at(NOW + 1) == NOW + 1 + DOUBT_AFTER
    one.ask(NOW + 1)
    begun(owed, one, (10, 20), now=NOW + 2)
    assert one.doubted_at(NOW - 1) == NOW + DOUBT_AFTER
    owed.doubt(one)
    assert one.doubted_at(NOW - 1) == math.inf
    owed.trust(one, NOW)
    owed.answered(one, NOW)
    assert one.doubted_at(NOW - 1) == NOW + 2 + DOUBT_AFTER


def test_doubt_takes_longer_where_the_way_is_long() -> None:
    owed, one, _ = two()
    one.timed(0.3)
    begun(owed, one, (0, 10))
    assert one.doubted_at(NOW - 1) == NOW + DOUBT_TRIPS * 0.3


def test_a_link_that_owes_much_begins_only_what_adjoins() -> None:
    owed, one, other = two()
    begun(owed, one, *[(3 * at + 3, 3 * at + 4) for at in range(MOST_OWED)])
    begun(owed, other, (0, 2))
    assert (one.admits(1), one.admits(4)) == (False, True)
    quick(one, other)
    assert repeats(owed, one) is None
    owed.leave(1)
    assert owed.next_given(one) is None
    owed.drop_below(4)
    assert one.admits(1)


def test_what_was_begun_in_doubt_goes_out_over_a_better_link() -> None:
    owed, one, other = two()
    for debt in (one, other):
        owed.doubt(debt)
    begun(owed, one, (0, 10))
    assert owed.next_given(other) is None
    owed.trust(other, NOW)
    owed.tick(NOW + SOON)
    assert owed.next_given(other) == (0, 10)
    owed.doubt(other)
    begun(owed, one, (10, 20))
    assert owed.next_given(owed.join(2)) == (0, 20)


# --- nothing is forgotten ---

SLOTS = 3
acts = st.tuples(
    st.sampled_from(
        ["begin", "lose", "ask", "answer", "doubt", "trust", "relieve", "receive", "repeat"]
    ),
    st.integers(0, SLOTS - 1),
    st.integers(1, 9),
)


class Line:
    """A link: what is under way on it, in order, and how much of that before a question."""

    def __init__(self, debt: Debt) -> None:
        self.debt = debt
        self.under_way: list[tuple[int, int]] = []
        self.asked = 0


class World:
    """What the links carry, and what has arrived."""

    def __init__(self) -> None:
        self.owed = Owed()
        self.sent = 0
        self.arrived = Ranges()
        self.lines = [Line(self.owed.join(slot)) for slot in range(SLOTS)]

    def begin(self, slot: int, count: int) -> None:
        piece = self.owed.next_given(self.lines[slot].debt) or (self.sent, self.sent + count)
        self._carry(self.lines[slot], piece)

    def repeat(self, slot: int, count: int) -> None:
        piece = self.owed.next_repeat(self.lines[slot].debt, NOW + OWED)[0]
        if piece is not None:
            self._carry(self.lines[slot], piece)

    def _carry(self, line: Line, piece: tuple[int, int]) -> None:
        if self.owed.paused(line.debt):
            return
        self.sent = max(self.sent, piece[1])
        begun(self.owed, line.debt, piece)
        line.under_way.append(piece)

    def lose(self, slot: int, count: int) -> None:
        self.owed.leave(slot)
        self.lines[slot] = Line(self.owed.join(slot))

    def ask(self, slot: int, count: int) -> None:
        line = self.lines[slot]
        if line.debt.asked_since is None:
            line.debt.ask(NOW)
            line.asked = len(line.under_way)

    def answer(self, slot: int, count: int) -> None:
        line = self.lines[slot]
        for start, end in line.under_way[: line.asked]:
            self.arrived.add(start, end)
        del line.under_way[: line.asked]
        line.asked = 0
        self.owed.answered(line.debt, NOW)

    def doubt(self, slot: int, count: int) -> None:
        self.owed.doubt(self.lines[slot].debt)

    def trust(self, slot: int, count: int) -> None:
        self.owed.trust(self.lines[slot].debt, NOW)

    def relieve(self, slot: int, count: int) -> None:
        self.owed.tick(NOW + SOON)

    def receive(self, slot: int, count: int) -> None:
        self.owed.drop_below(self.arrived.end_at(0) or 0)

    def missing(self, debts: list[Debt]) -> list[tuple[int, int]]:
        """What has not arrived, and is not owed by these links nor given back."""
        rest = Ranges()
        rest.add(0, self.sent + 1)
        rest.remove(self.sent, self.sent + 1)
        for known in [self.arrived, self.owed.given, *(each.all for each in debts)]:
            rest.remove_all(known)
        return list(rest)


@settings(max_examples=100)
@given(st.lists(acts, max_size=60))
def test_what_has_not_arrived_is_owed_by_a_link_that_lives_or_given_back(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World()
    for act, slot, count in steps:
        getattr(world, act)(slot, count)
        debts = [each.debt for each in world.lines]
        assert world.missing(debts) == []
        trusted = [each for each in debts if not each.doubted]
        if trusted and act == "relieve":
            assert world.missing(trusted) == []
        assert world.owed.given.end <= world.sent
