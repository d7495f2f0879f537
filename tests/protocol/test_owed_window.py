"""How fast a link is, and what that means to the others."""

from __future__ import annotations

import pytest

from bpipe.protocol.owed import ASK_EVERY, FADES, Debt, Owed

NOW = 100.0


def two() -> tuple[Owed, Debt, Debt]:
    owed = Owed()
    return owed, owed.join(0), owed.join(1)


def brings(owed: Owed, debt: Debt, count: int, seconds: float, now: float = NOW) -> None:
    """It has answered before, and brings so much in so long, as its next answer tells."""
    for at, size in (now - seconds, 0), (now, count):
        start = owed.below + debt.sent
        owed.begin(debt, start, start + size + 1, NOW)
        debt.ask(at)
        owed.answered(debt, at)
        debt.timed(seconds)


def test_how_fast_a_link_is_two_answers_tell() -> None:
    owed, one, _ = two()
    owed.begin(one, 0, 100, NOW)
    one.ask(NOW)
    owed.answered(one, NOW + 0.1)
    assert one.rate == 0
    owed.begin(one, 100, 400, NOW)
    one.ask(NOW + 0.5)
    owed.answered(one, NOW + 0.6)
    assert one.rate == pytest.approx(300 / 0.5)


def test_nothing_arrives_faster_than_it_was_sent() -> None:
    owed, one, _ = two()
    owed.begin(one, 0, 100, NOW)
    one.ask(NOW)
    owed.answered(one, NOW + 1)
    owed.begin(one, 100, 200, NOW)
    one.ask(NOW + 1)
    owed.answered(one, NOW + 1)
    assert one.rate == pytest.approx(100 / 1)
    owed.begin(one, 200, 300, NOW)
    one.ask(NOW + 1)
    owed.answered(one, NOW + 1)
    assert one.rate == pytest.approx(100 / ASK_EVERY)


def test_the_most_that_was_seen_fades() -> None:
    owed, one, _ = two()
    brings(owed, one, 999, 0.1)
    assert one.rate == pytest.approx(1000 / 0.1)
    owed.begin(one, 2000, 2001, NOW)
    one.ask(NOW + 1)
    owed.answered(one, NOW + 1)
    assert one.rate == pytest.approx(FADES * 1000 / 0.1)


def test_a_slow_link_holds_up_those_that_could_fill_the_window_meanwhile() -> None:
    owed, quick_one, slow = two()
    third = owed.join(2)
    brings(owed, quick_one, 999, 0.1)  # 10,000 bytes a second
    brings(owed, third, 499, 0.1)
    slow.timed(0.3)
    assert owed.holds_up(slow, 2999, NOW)  # (10,000 + 5,000) x (0.3 - 0.1)
    assert not owed.holds_up(slow, 3001, NOW)
    assert not owed.holds_up(quick_one, 1, NOW)
    owed.doubt(third)
    assert owed.holds_up(slow, 1999, NOW)
    assert not owed.holds_up(slow, 2001, NOW)
    owed.doubt(quick_one)
    assert not owed.holds_up(slow, 0, NOW)


def test_a_link_is_as_slow_as_the_answer_that_it_owes() -> None:
    owed, quick_one, slow = two()
    brings(owed, quick_one, 999, 0.1)
    slow.timed(0.1)
    owed.begin(slow, 5000, 6000, NOW)
    slow.ask(NOW)
    assert not owed.holds_up(slow, 1999, NOW + 0.29)
    assert owed.holds_up(slow, 1999, NOW + 0.31)
