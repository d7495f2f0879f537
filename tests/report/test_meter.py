"""What the numbers of the status line mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bpipe.report.meter import Meter, inward, moved, waiting_for_peer
from bpipe.status import Status, Tally
from tests.support.statuses import AWAY, CALLING, COMPARING, EMPTY, FILING, MIB, RECEIVING, SENDING


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter(None, 0.0)
    assert meter.view(replace(EMPTY, confirmed=0), 0.0).rate == 0
    for second in range(1, 10):
        view = meter.view(replace(SENDING, confirmed=second * 1000), float(second))
        assert view.rate == 1000
    for second in range(10, 19):
        view = meter.view(replace(SENDING, confirmed=9000), float(second))
    assert view.rate == 0


def test_a_size_that_was_exceeded_is_not_told_any_more() -> None:
    meter = Meter(1000, 0.0)
    for written, size in ((1000, 1000), (1001, None)):
        assert meter.view(replace(EMPTY, written=written), 0.0).size == size


@pytest.mark.parametrize("of_stdin", [False, True])
def test_the_size_of_stdin_is_not_that_of_a_longer_answer(of_stdin: bool) -> None:
    meter = Meter(1000, 0.0, of_stdin=of_stdin)
    answered = replace(EMPTY, written=100, received=300)
    assert meter.view(answered, 0.0).size == (None if of_stdin else 1000)
    assert meter.view(replace(answered, written=301), 0.0).size == 1000


def test_nothing_is_called_still_before_a_connection_was_up_for_long_enough() -> None:
    meter = Meter(None, 0.0)
    for second in range(30):
        status = [CALLING, SENDING, AWAY][second // 10]
        assert meter.view(status, float(second)).still == (second in (18, 19))
    assert not meter.view(SENDING, 30.0).still


def test_the_rate_is_that_of_one_direction_also_when_the_other_had_more_before() -> None:
    meter = Meter(None, 0.0)
    answered = replace(SENDING, written=0, confirmed=0, received=10_000, delivered=10_000)
    meter.view(answered, 0.0)
    view = meter.view(replace(answered, written=20_000, confirmed=9000), 9.0)
    assert view.rate == 1000
    assert not view.still


def test_what_is_compared_and_need_not_be_sent_moves_as_well() -> None:
    meter = Meter(100_000, 0.0)
    for second in range(20):
        tally = Tally(1000 * second, 1000 * second)
        view = meter.view(replace(COMPARING, written=0, confirmed=0, tally=tally), float(second))
        assert not view.quiet
    assert (view.rate, view.size) == (1000, 100_000)
    assert meter.view(replace(COMPARING, tally=Tally(0, 99_999, 2)), 20.0).size is None


def test_an_outage_does_not_count_for_the_rate() -> None:
    meter = Meter(None, 0.0)
    for second in range(3):
        meter.view(replace(SENDING, confirmed=second * 1000), float(second))
    for second in range(3, 6):
        meter.view(replace(AWAY, confirmed=2000), float(second))
    assert meter.view(replace(SENDING, confirmed=3000), 6.0).rate == 1000


def test_the_time_counts_from_the_first_connection() -> None:
    meter = Meter(None, 100.0)
    meter.note(CALLING, 103.0)
    assert meter.elapsed(103.0) == 3
    meter.note(SENDING, 110.0)
    meter.note(AWAY, 115.0)
    assert meter.elapsed(115.0) == 5
    assert meter.view(AWAY, 116.0).elapsed == 6


def test_a_clock_that_is_set_back_makes_no_negative_time() -> None:
    assert Meter(None, 100.0).elapsed(-3500.0) == 0.0


@pytest.mark.parametrize(
    ("status", "inwards", "safe"),
    [
        (SENDING, False, SENDING.confirmed),
        (RECEIVING, True, RECEIVING.delivered),
        (EMPTY, False, 0),
        (replace(SENDING, received=SENDING.written), False, SENDING.confirmed),
        (COMPARING, False, 10_500 * MIB),
        (FILING, True, 10_490 * MIB),
        (replace(FILING, received=0, delivered=0), True, 10_000 * MIB),
    ],
)
def test_what_is_safe_is_that_of_the_direction_with_more(
    status: Status, inwards: bool, safe: int
) -> None:
    assert inward(status) is inwards
    assert moved(status) == safe


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({"written": 5, "confirmed": 5, "finished": True}, True),
        ({"written": 5, "confirmed": 4, "finished": True}, False),
        ({"written": 5, "confirmed": 5, "finished": False}, False),
        ({"written": 5, "confirmed": 5, "finished": True, "received": 6}, False),
        ({"written": 0, "confirmed": 0, "finished": True}, False),
        ({"written": 5, "confirmed": 5, "finished": True, "tally": Tally(0, 0, 5)}, False),
    ],
)
def test_only_the_peer_is_waited_for(changes: dict[str, Any], waits: bool) -> None:
    assert waiting_for_peer(replace(EMPTY, **changes)) is waits
