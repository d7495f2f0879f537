from __future__ import annotations

import pytest

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.liveness import OWED
from bpipe.protocol.owed import DOUBT_AFTER, REPEAT_AFTER
from bpipe.protocol.session import FRUITLESS_LINKS
from bpipe.protocol.wire import Kind, Reason
from tests.support.lines import READY, Lines, two
from tests.support.loopback import write
from tests.support.peer import (
    ACK,
    CUT,
    DATA,
    NOW,
    PING,
    PONG,
)

# --- a link is lost, or in doubt ---


def test_what_a_lost_link_owes_goes_out_over_another_before_what_is_new() -> None:
    both = two(b"abcdef")
    assert both.said(0)[0] == DATA(0, b"abcdef")
    write(both.session, b"ghi")
    both.hear(0, ACK(0), READY(2))
    both.lose(0)
    assert both.said(1) == [ACK(0), READY(0), DATA(2, b"cdef"), PING(2), DATA(6, b"ghi")]
    assert both.session.history.replayed == 4


def test_what_has_arrived_behind_a_gap_is_not_said_again() -> None:
    both = two(b"abc")
    both.said(0)
    write(both.session, b"def")
    both.said(1)
    both.hear(1, PONG(2))
    both.lose(1)
    both.lose(0)
    both.attach(0)
    assert DATA(0, b"abc") in both.said(0)
    assert both.said(0) == []


@pytest.mark.parametrize("token", [1, 3])
def test_an_answer_to_another_question_proves_nothing(token: int) -> None:
    both = two(b"abc")
    both.said(0)
    both.hear(0, PONG(token))
    both.lose(0)
    assert DATA(0, b"abc") in both.said(1)


def test_what_the_peer_states_in_a_greeting_is_owed_no_more() -> None:
    both = two(b"abcdef")
    both.said(0)
    both.lose(1)
    both.attach(1, received=4)
    both.lose(0)
    assert DATA(4, b"ef") in both.said(1)


def test_a_link_that_answers_nothing_is_in_doubt_until_it_is_heard() -> None:
    both = two(b"abc", patient=True)
    both.said(0)
    assert both.channels[0].deadline() == NOW + DOUBT_AFTER
    both.tick(NOW + DOUBT_AFTER - 0.001)
    assert not both.channels[0].doubted
    both.tick(NOW + DOUBT_AFTER)
    assert both.channels[0].doubted
    write(both.session, b"def")
    assert both.said(0) == []
    assert both.said(1)[:1] == [DATA(0, b"abc")]
    both.hear(0, PING(9))
    assert not both.channels[0].doubted


def test_doubt_takes_three_round_trips_and_longer_where_none_is_known() -> None:
    both = two(patient=True)
    both.lose(0)
    both.attach(0)
    write(both.session, b"abc")
    both.said(0)
    assert both.channels[0].deadline() == NOW + OWED
    both.tick(NOW + OWED - 0.001)
    assert not both.channels[0].doubted
    both.tick(NOW + OWED)
    assert both.channels[0].doubted
    both.hear(0, PONG(2), now=NOW + 2.0)
    write(both.session, b"def")
    both.lose(1)
    both.said(0, NOW + 2.0)
    both.tick(NOW + 7.9)
    assert not both.channels[0].doubted
    both.tick(NOW + 8.0)
    assert both.channels[0].doubted


def test_a_link_whose_path_is_away_is_in_doubt_at_once_and_acks_are_said_elsewhere() -> None:
    both = two(b"abc")
    both.said(0)
    both.said(1)
    both.channels[0].suspect(NOW, away=True)
    assert both.channels[0].doubted
    assert both.said(1)[:3] == [ACK(0), READY(0), DATA(0, b"abc")]
    both.hear(0, PING(9))  # which was on its way
    assert both.channels[0].doubted
    both.channels[0].suspect(NOW, away=False)
    assert both.channels[0].doubted
    assert PING(3) in both.said(0)
    both.hear(0, PONG(3))
    assert not both.channels[0].doubted


def test_links_that_are_all_in_doubt_go_on() -> None:
    both = two(b"abc", patient=True)
    both.said(0)
    write(both.session, b"def")
    both.said(1)
    both.tick(NOW + DOUBT_AFTER)
    assert both.channels[0].doubted
    assert both.channels[1].doubted
    write(both.session, b"ghi")
    assert DATA(6, b"ghi") in both.said(0) + both.said(0)


def test_what_others_owe_for_too_long_is_repeated() -> None:
    both = two(b"abc", patient=True)
    both.said(0)
    assert both.said(1) == []
    assert both.channels[1].deadline() == NOW + REPEAT_AFTER
    both.tick(NOW + REPEAT_AFTER)
    assert both.said(1, NOW + REPEAT_AFTER) == [DATA(0, b"abc"), PING(2)]
    both.hear(1, PONG(2))
    both.lose(0)
    both.lose(1)
    both.attach(1)
    assert Kind.DATA not in [frame.kind for frame in both.said(1)]


def test_a_link_that_is_replaced_is_lost_once() -> None:
    both = two(b"abc")
    old = both.channels[0]
    both.lose(0)
    both.attach(0)
    old.detach(LinkLost("late"), NOW)
    assert both.session.slots.live == 3


def test_the_outage_begins_with_the_loss_of_the_last_link() -> None:
    both = two()
    both.lose(1, NOW + 1)
    assert both.session.patience.outage_since is None
    both.lose(0, NOW + 2)
    assert both.session.patience.outage_since == NOW + 2
    history = both.session.history
    assert (history.links, history.slot(1).links, history.slot(1).cause) == (2, 1, CUT)


# --- a path that spoils what goes over it ---

WRONG = ProtocolError("a frame of an unknown kind")


def spoil(both: Lines, slot: int) -> None:
    """This link is lost to what the peer cannot have said, and there is another one."""
    both.lose(slot, cause=WRONG)
    both.attach(slot)


def test_a_path_that_spoils_what_it_carries_does_not_end_a_session_with_a_better_one() -> None:
    both = two(patient=True)
    for _ in range(2 * FRUITLESS_LINKS):
        spoil(both, 1)
    assert both.session.ending.abort is None
    both.lose(0)
    spoil(both, 1)
    spoil(both, 1)
    both.attach(0)
    spoil(both, 1)
    assert both.session.ending.abort is None


def test_a_session_ends_when_every_link_is_lost_to_protocol_errors() -> None:
    both = two(patient=True)
    for _ in range(FRUITLESS_LINKS - 1):
        spoil(both, 0)
        spoil(both, 1)
    spoil(both, 1)
    assert both.session.ending.abort is None
    both.lose(0, cause=WRONG)
    assert both.session.ending.abort == (Reason.PROTOCOL, f"protocol error: {WRONG}")


def test_what_moves_over_any_link_ends_the_row() -> None:
    both = two(patient=True)
    for _ in range(FRUITLESS_LINKS - 1):
        spoil(both, 0)
        spoil(both, 1)
    both.hear(0, DATA(0, b"abc"))
    both.lose(0, cause=WRONG)
    both.lose(1, cause=WRONG)
    assert both.session.ending.abort is None
