from __future__ import annotations

import pytest

from bpipe.protocol.patience import GRACE, LATE, QUESTION, UNCONFIRMED_LINGERS, Limits, Patience

LIMITS = Limits(connect_timeout=30, give_up_after=1000, linger=20)
START = 100.0


def make(limits: Limits = LIMITS, *, calling: bool = False, outage: bool = False) -> Patience:
    patience = Patience(limits)
    if calling:
        patience.calling(START)
    if outage:
        patience.outage_began(START)
    return patience


def until(
    patience: Patience,
    *,
    established: bool = True,
    done: bool = False,
    told: bool = True,
    only_asks: bool = False,
    only_mark: bool = False,
) -> float | None:
    return patience.until(
        established=established,
        done=done,
        told=told,
        only_asks=only_asks,
        only_mark=only_mark,
    )


def test_the_limits_are_those_of_the_manual() -> None:
    assert Limits() == Limits(2, 30, 24 * 3600, 30, None)


def test_a_caller_waits_for_its_first_link_as_long_as_the_connect_timeout() -> None:
    assert until(make(calling=True), established=False) == START + 30


def test_an_answerer_waits_for_its_first_link_for_ever() -> None:
    assert until(make(), established=False) is None
    assert until(make(outage=True), established=False) is None


def test_a_caller_with_one_try_has_no_time_limit() -> None:
    patience = make(LIMITS._replace(connect_timeout=0), calling=True)
    assert until(patience, established=False) is None


def test_without_an_outage_there_is_nothing_to_wait_for() -> None:
    assert until(make(calling=True)) is None


def test_an_outage_lasts_until_it_is_given_up() -> None:
    assert until(make(outage=True)) == START + 1000


def test_a_link_without_progress_prolongs_the_outage() -> None:
    patience = make(outage=True)
    patience.outage_began(START + 500)
    assert until(patience) == START + 1000


def test_progress_ends_the_outage_and_the_next_is_a_new_one() -> None:
    patience = make(outage=True)
    patience.outage_ended()
    assert until(patience) is None
    patience.outage_began(START + 500)
    assert until(patience) == START + 1500


@pytest.mark.parametrize("done_at", [START - 50, START, START + 50])
def test_a_done_end_lingers_from_when_it_was_done_and_without_a_link(done_at: float) -> None:
    patience = make(outage=True)
    patience.done(done_at)
    assert until(patience, done=True) == max(START, done_at) + 20


@pytest.mark.parametrize(("give_up_after", "seconds"), [(1000, 200), (50, 50), (5, 20), (0, 20)])
def test_a_done_end_that_has_not_told_it_waits_as_long_as_its_peer(
    give_up_after: float, seconds: float
) -> None:
    patience = make(LIMITS._replace(give_up_after=give_up_after), outage=True)
    patience.done(START + 5)
    assert until(patience, done=True, told=False) == START + 5 + seconds


def test_an_end_that_only_asks_for_a_consumer_that_has_gone_lingers() -> None:
    assert until(make(outage=True), only_asks=True) == START + 20


def test_an_end_that_lacks_only_the_ack_of_its_mark_waits_for_ten_lingers() -> None:
    assert UNCONFIRMED_LINGERS == 10
    assert until(make(outage=True), only_mark=True) == START + 200


def test_an_end_that_lacks_only_the_ack_of_its_mark_gives_up_with_the_others() -> None:
    patience = make(LIMITS._replace(give_up_after=50), outage=True)
    assert until(patience, only_mark=True) == START + 50


def test_a_limit_that_is_noticed_in_time_is_not_extended() -> None:
    patience = make(outage=True)
    assert not patience.extend(START + 1000, START + 1000 + LATE)
    assert until(patience) == START + 1000


def test_a_limit_that_ran_out_during_sleep_is_extended_once() -> None:
    patience = make(outage=True)
    woken = START + 5000
    assert patience.extend(START + 1000, woken)
    assert until(patience) == woken + GRACE == woken + 10
    assert not patience.extend(woken + GRACE, woken + 5000)


def test_the_extension_serves_the_first_link_as_well() -> None:
    patience = make(calling=True)
    assert patience.extend(START + 30, START + 500)
    assert until(patience, established=False) == START + 500 + GRACE


def test_the_extension_never_shortens_a_wait() -> None:
    patience = make(outage=True)
    patience.extend(START, START + 2)
    assert until(patience) == START + 1000


def test_the_extension_of_the_first_link_is_not_that_of_the_first_outage() -> None:
    patience = make(calling=True)
    assert patience.extend(START + 30, START + 500)
    patience.outage_began(START + 600)
    assert patience.extend(START + 1600, START + 5000)


def test_of_several_times_that_a_question_was_heard_the_first_counts() -> None:
    patience = make()
    for seconds in (5, 6):
        patience.asked(START + seconds)
    assert patience.answer_until == START + 5 + QUESTION


def test_of_several_attempts_to_call_the_first_counts() -> None:
    patience = make(calling=True)
    patience.calling(START + 5)
    assert until(patience, established=False) == START + 30


@pytest.mark.parametrize(("connect_timeout", "one"), [(0, True), (0.1, False), (30, False)])
def test_a_connect_timeout_of_zero_is_one_try(connect_timeout: float, one: bool) -> None:
    assert make(LIMITS._replace(connect_timeout=connect_timeout)).one_try is one


def test_an_outage_that_ended_takes_its_extension_with_it() -> None:
    patience = make(outage=True)
    patience.extend(START + 1000, START + 5000)
    patience.outage_ended()
    patience.outage_began(START + 6000)
    assert until(patience) == START + 7000
    assert patience.extend(START + 7000, START + 9000)


def test_no_limit_ends_an_attempt_that_may_be_asking_somebody() -> None:
    patience = make(calling=True)
    patience.asking(START + 1, True)
    assert until(patience, established=False) is None
    patience.asking(START + 2, False)
    assert until(patience, established=False) == START + 30
    patience.asking(START + 3, True)
    patience.asking(START + 500, False)
    patience.asking(START + 501, False)
    assert until(patience, established=False) == START + 500  # it was long enough


def test_who_is_asked_does_not_prolong_an_outage() -> None:
    patience = make(calling=True, outage=True)
    patience.asking(START + 1, True)
    assert until(patience) == START + 1000
