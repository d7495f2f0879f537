from __future__ import annotations

import pytest

from bpipe.errors import LinkLost
from bpipe.protocol.liveness import KEPT, OWED, UNVERIFIED_FOR, Liveness

START = 100.0


def make(heartbeat: float = 2.0) -> Liveness:
    return Liveness(heartbeat, START)


def test_a_ping_is_due_after_one_heartbeat_of_silence_and_not_before() -> None:
    liveness = make()
    assert liveness.deadline() == START + 2
    liveness.tick(START + 1.99)
    assert not liveness.ping_due
    liveness.tick(START + 2)
    assert liveness.ping_due


@pytest.mark.parametrize("active", ["sent", "heard"])
def test_a_ping_is_due_when_only_one_of_the_two_ends_speaks(active: str) -> None:
    liveness = make()
    getattr(liveness, active)(START + 1.5)
    liveness.tick(START + 2)
    assert liveness.ping_due


def test_no_ping_is_due_while_both_ends_speak() -> None:
    liveness = make()
    liveness.heard(START + 1)
    liveness.sent(START + 1.5)
    liveness.tick(START + 2.9)
    assert not liveness.ping_due
    assert liveness.deadline() == START + 3


def test_pings_come_one_heartbeat_apart_and_each_has_its_own_token() -> None:
    liveness = make()
    liveness.tick(START + 2)
    first = liveness.ping(START + 2)
    assert not liveness.ping_due
    liveness.tick(START + 3.9)
    assert not liveness.ping_due
    liveness.tick(START + 4)
    assert liveness.ping_due
    assert liveness.ping(START + 4) != first


def test_a_peer_that_is_silent_for_three_heartbeats_is_dead_and_not_before() -> None:
    liveness = make()
    liveness.heard(START + 1)
    liveness.sent(START + 6)
    liveness.tick(START + 6.99)
    with pytest.raises(LinkLost, match=r"nothing was heard for 6\.0 s") as caught:
        liveness.tick(START + 7)
    assert caught.value.code == "silent"


@pytest.mark.parametrize(("heartbeat", "seconds"), [(2, UNVERIFIED_FOR), (5, 50)])
def test_bytes_that_never_make_a_frame_do_not_keep_a_link_for_ever(
    heartbeat: float, seconds: float
) -> None:
    liveness = make(heartbeat)
    for verified in (False, True, False):
        began = liveness.heard_at
        if verified:
            liveness.verified(began)
        now = began
        while now < began + seconds - heartbeat:
            now += heartbeat
            liveness.heard(now)
            if not verified or now < began + seconds - heartbeat:
                liveness.tick(now)
        if verified:
            liveness.verified(now)
    liveness.heard(now + heartbeat)
    with pytest.raises(LinkLost, match="nothing whole was heard") as caught:
        liveness.tick(now + heartbeat)
    assert caught.value.code == "silent"


def test_it_is_the_heartbeat_of_this_end_that_counts() -> None:
    liveness = make(heartbeat=0.5)
    assert liveness.deadline() == START + 0.5
    with pytest.raises(LinkLost):
        liveness.tick(START + 1.5)


def test_the_answer_to_a_ping_tells_the_round_trip() -> None:
    liveness = make()
    token = liveness.ping(START + 2)
    assert liveness.round_trip is None
    liveness.pong(token, START + 2.25)
    assert liveness.round_trip == 0.25


def test_each_ping_is_timed_by_its_own_answer() -> None:
    liveness = make()
    tokens = [liveness.ping(START + second) for second in (2, 4, 5)]
    liveness.pong(tokens[1], START + 4.5)
    assert liveness.round_trip == 0.5
    liveness.pong(tokens[0], START + 4.75)  # was passed over
    assert liveness.round_trip == 0.5
    liveness.pong(tokens[2], START + 8)
    assert liveness.round_trip == 3


def test_a_ping_that_nobody_answers_is_forgotten() -> None:
    liveness = make()
    first, *_ = [liveness.ping(START + 2) for _ in range(KEPT + 1)]
    liveness.pong(first, START + 3)
    assert liveness.round_trip is None


def test_an_ack_is_due_after_a_second_of_hearing_without_having_sent() -> None:
    liveness = make(heartbeat=60)
    liveness.heard(START + 5)
    liveness.heard(START + 5.5)
    assert liveness.deadline() == START + 6
    assert not liveness.tick(START + 5.99)
    assert liveness.tick(START + 6)


def test_an_ack_is_not_due_again_before_something_more_is_heard() -> None:
    liveness = make(heartbeat=60)
    liveness.heard(START)
    assert liveness.tick(START + 1)
    assert not liveness.tick(START + 10)
    liveness.heard(START + 10)
    assert not liveness.tick(START + 10.9)
    assert liveness.tick(START + 11)


def test_whatever_is_sent_is_a_sign_of_life() -> None:
    liveness = make(heartbeat=60)
    liveness.heard(START)
    liveness.sent(START + 0.5)
    assert not liveness.tick(START + 1)
    assert liveness.deadline() == START + 60


def test_a_link_is_in_doubt_when_the_peer_owes_an_answer() -> None:
    liveness = make(heartbeat=60)
    assert liveness.doubted_at(START + 0.5) == START + 0.5 + OWED  # if it is asked now
    liveness.sent(START + 1)
    liveness.sent(START + 2)
    assert liveness.doubted_at(START + 2) == START + 1 + OWED
    liveness.heard(START + 2)
    liveness.sent(START + 3)
    assert liveness.doubted_at(START + 3) == START + 3 + OWED


def test_a_peer_that_is_hearing_a_long_frame_answers_before_it_is_doubted() -> None:
    peer = make(heartbeat=60)
    peer.heard(START)
    assert peer.deadline() < make().doubted_at(START)


def test_after_a_tick_the_next_deadline_lies_ahead() -> None:
    liveness = make()
    now = START
    for _ in range(20):
        liveness.heard(now)
        now = liveness.deadline()
        liveness.tick(now)
        assert liveness.deadline() > now


def test_a_link_is_in_doubt_while_there_is_no_way_and_then_until_something_is_heard() -> None:
    liveness = make(heartbeat=60)
    liveness.sent(START)
    liveness.heard(START + 1)
    liveness.suspect(START + 2, away=True)
    assert liveness.away
    assert not liveness.ping_due  # nobody would hear it
    assert liveness.doubted_at(START + 2) == START + 2
    liveness.heard(START + 3)
    assert liveness.doubted_at(START + 3) == START + 2
    liveness.suspect(START + 4, away=False)
    assert liveness.ping_due
    assert liveness.doubted_at(START + 5) == START + 4
    liveness.heard(START + 5)
    assert liveness.doubted_at(START + 5) == START + 5 + OWED


def test_why_it_is_in_doubt() -> None:
    liveness = Liveness(2.0, 10.0)
    assert liveness.why(11.5) == "nothing was heard for 1.5 s"
    liveness.suspect(11.5, away=True)
    assert liveness.why(11.5) == "the path was gone for a while"
