from __future__ import annotations

import math

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.channel import ACK_DELAY
from bpipe.protocol.ending import Phase
from bpipe.protocol.frames import Frames
from bpipe.protocol.owed import ASK_EVERY
from bpipe.protocol.rate import BURST, SLOWEST, Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import ACK_WITHIN, SlotChannel
from bpipe.protocol.slots import PARTING
from bpipe.protocol.wire import Position, Reason
from tests.support.lines import READY, WINDOW, Lines, two
from tests.support.loopback import Frame, drain, feed, take, write
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    LIMITS,
    NOW,
    PING,
    PONG,
    RATE,
    STOP,
    deliver_mark,
)

# --- what is said on each of them ---


def test_the_first_ack_is_followed_by_ready_and_a_question() -> None:
    both = two()
    both.lose(0)
    both.attach(0)
    assert both.said(0) == [ACK(0), READY(0), PING(1)]
    assert both.said(0) == []
    assert both.channels[0].round_trip == math.inf
    both.hear(0, PONG(7), now=NOW + 0.1)  # nobody asked that
    assert both.channels[0].round_trip == math.inf
    both.hear(0, PONG(1), now=NOW + 0.3)
    assert both.channels[0].round_trip == pytest.approx(0.3)


def test_the_last_answer_tells_which_link_is_the_quickest_now() -> None:
    both = two(b"abc")
    assert both.channels[0].rank == both.channels[1].rank
    both.said(0)
    both.hear(0, PONG(2), now=NOW + 0.3)  # it has waited for what was on its way
    assert both.channels[0].rank > both.channels[1].rank
    assert both.channels[0].round_trip == 0


def test_each_link_takes_what_is_new_and_asks_whether_it_has_arrived() -> None:
    both = two(b"abc")
    assert both.said(0) == [DATA(0, b"abc"), PING(2)]
    write(both.session, b"de")
    assert both.said(1) == [DATA(3, b"de"), PING(2)]
    write(both.session, b"f")
    assert both.said(0) == [DATA(5, b"f")]  # asked about when that is answered
    both.hear(0, PONG(2))
    assert both.said(0) == []
    assert both.channels[0].deadline() == NOW + ASK_EVERY
    both.channels[0].tick(NOW + ASK_EVERY)
    assert both.channels[0].deadline() > NOW + ASK_EVERY
    assert both.said(0, NOW + ASK_EVERY) == [PING(3)]


def test_what_comes_over_one_is_answered_there_soon() -> None:
    both = two(patient=True)
    both.hear(0, DATA(0, b"abc"))
    assert both.said(0) == both.said(1) == []
    both.tick(NOW + ACK_WITHIN - 0.001)
    assert both.said(0) == []
    both.tick(NOW + ACK_WITHIN)
    assert both.said(0) == [ACK(0), READY(3)]
    assert both.said(1) == []
    assert both.channels[0].deadline() > NOW + 10


def test_half_a_frame_is_answered_and_so_is_one_that_is_not_new() -> None:
    both = two(patient=True)
    feed(both.channels[0], DATA(0, bytes(100)).encode()[:50], NOW)
    both.tick(NOW + ACK_WITHIN)
    assert both.said(0) == [ACK(0), READY(34)]
    both.hear(1, DATA(0, bytes(34)), now=NOW + 1)
    both.tick(NOW + 1 + ACK_WITHIN)
    assert both.said(1) == [ACK(0), READY(34)]


def test_a_delivery_is_acknowledged_on_all_and_first_where_something_came() -> None:
    both = two(patient=True)
    both.hear(0, DATA(0, b"abc"))
    take(both.session)
    assert both.said(0) == both.said(1) == []
    both.tick(NOW + ACK_DELAY)
    assert (both.said(0), both.said(1)) == ([ACK(3), READY(3)], [])
    both.tick(NOW + ACK_WITHIN)
    assert (both.said(0), both.said(1)) == ([], [ACK(3), READY(3)])


def test_the_end_mark_is_acknowledged_on_all_at_once() -> None:
    both = two(patient=True)
    both.hear(0, FIN(0))
    deliver_mark(both.session)
    for slot in (0, 1):
        assert both.said(slot) == [ACK(1), READY(1)]


def test_a_lost_link_makes_an_ack_due_on_the_others() -> None:
    both = two(patient=True)
    both.hear(0, DATA(0, b"abc"))
    both.lose(0)
    assert both.said(1) == [ACK(0), READY(3)]
    assert both.session.attached


# --- what is heard over each of them ---


def test_data_comes_in_any_order_and_twice() -> None:
    both = two()
    both.hear(0, DATA(3, b"def"))
    assert take(both.session) == b""
    both.hear(1, DATA(0, b"abcd"), DATA(2, b"cdef"))
    assert take(both.session) == b"abcdef"
    both.hear(0, FIN(6), DATA(0, b"abc"))
    both.hear(1, FIN(6))
    assert both.session.reader.drained


def test_what_is_new_is_progress_also_behind_a_gap() -> None:
    both = two()
    both.lose(1)
    both.lose(0)
    assert both.session.patience.outage_since is not None
    both.attach(0)
    both.hear(0, DATA(3, b"def"))
    assert both.session.patience.outage_since is None


def test_old_news_is_no_error() -> None:
    both = two(b"abcdef")
    both.said(0)
    both.hear(0, ACK(4), READY(5))
    both.hear(1, ACK(2), READY(3))
    assert both.session.writer.acked == 4
    both.hear(1, ACK(5))
    assert both.session.writer.acked == 5


@pytest.mark.parametrize("frame", [ACK(7), READY(7), FIN(WINDOW + 1), DATA(WINDOW, b"x")])
def test_what_cannot_be_is_one(frame: Frame) -> None:
    both = two(b"abcdef")
    both.said(0)
    with pytest.raises(ProtocolError):
        both.hear(1, frame)


def test_nothing_goes_to_the_consumer_unseen() -> None:
    both = two()
    feed(both.channels[0], DATA(0, bytes(100)).encode()[:50], NOW)
    assert both.channels[0].midway
    assert both.channels[0].passable == 0


# --- the end ---


def done(slot: int = 0) -> Lines:
    """Both streams are delivered, which came over this link; nothing is said of that yet."""
    both = two(patient=True)
    both.session.finish()
    both.said(slot)
    both.hear(slot, FIN(0))
    deliver_mark(both.session)
    both.hear(slot, ACK(1), READY(1))
    assert both.session.phase is Phase.DONE
    return both


def test_stop_goes_before_the_ack_on_each() -> None:
    both = two(patient=True)
    both.hear(0, DATA(0, b"abc"))
    both.session.stop()
    assert (both.said(0), both.said(1)) == ([STOP(0)], [STOP(0)])
    both.tick(NOW + ACK_WITHIN)
    for slot in (0, 1):
        assert both.said(slot) == [ACK(3), READY(3)]
    both.lose(0)
    both.attach(0)
    assert both.said(0)[:2] == [STOP(0), ACK(3)]


def test_bye_is_said_on_all_and_an_end_leaves_where_the_peers_came() -> None:
    both = done()
    assert both.said(0) == [ACK(1), READY(1), BYE(0)]
    both.hear(1, ACK(1), READY(1), BYE(0))
    assert not both.session.over
    assert both.said(1) == [ACK(1), READY(1), BYE(0)]
    assert both.session.over
    assert both.session.failure is None


def test_an_end_leaves_at_once_where_its_own_bye_was_written() -> None:
    both = done()
    both.said(1)
    both.hear(1, ACK(1), BYE(0))
    assert both.session.over


def test_without_a_link_an_end_leaves_that_has_said_and_heard_bye() -> None:
    both = done()
    both.said(0)
    both.hear(1, ACK(1), BYE(0))
    both.lose(1)
    assert not both.session.over
    both.lose(0)
    assert both.session.over


def test_a_bye_that_was_not_said_is_said_on_the_next_link() -> None:
    both = done()
    both.hear(1, ACK(1), BYE(0))
    both.lose(1)
    both.lose(0)
    assert not both.session.over
    both.attach(0, received=1)
    assert BYE(0) in both.said(0)
    both.hear(0, ACK(1), BYE(0))
    assert both.session.over


def test_a_bye_that_was_said_on_lost_links_only_is_said_where_the_peers_comes() -> None:
    both = done()
    both.said(0)
    both.lose(0)
    both.lose(1)
    both.attach(0, received=1)
    both.hear(0, ACK(1), BYE(0))
    assert not both.session.over
    assert BYE(0) in both.said(0)
    assert both.session.over


def test_an_abort_is_said_on_all() -> None:
    both = two(patient=True)
    both.session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    for slot in (0, 1):
        assert both.said(slot) == [ABORT(Reason.LOCAL_ERROR, b"disk full")]
    both.hear(1, BYE(0))
    assert both.session.over


def test_who_was_told_abort_says_bye_on_all_and_leaves() -> None:
    both = two(patient=True)
    both.hear(0, ABORT(2, b"theirs"))
    both.said(1)
    assert not both.session.over
    assert both.said(0) == [BYE(0)]
    assert both.session.over


def test_who_was_told_abort_waits_a_second_for_a_link_that_takes_nothing() -> None:
    both = two(patient=True)
    both.hear(0, ABORT(2, b"theirs"))
    both.said(0)
    both.tick(NOW + ACK_WITHIN)
    both.said(0)
    assert both.channels[0].deadline() == both.channels[1].deadline() == NOW + PARTING
    both.tick(NOW + PARTING - 0.001)
    assert not both.session.over
    both.tick(NOW + PARTING)
    assert both.session.over


@pytest.mark.parametrize("slots", [(1,), (0, 1)])
def test_who_was_told_abort_leaves_when_the_other_links_are_lost(slots: tuple[int, ...]) -> None:
    both = two(patient=True)
    both.hear(0, ABORT(2, b"theirs"))
    if slots == (1,):
        both.said(0)
    for slot in slots:
        assert not both.session.over
        both.lose(slot)
    assert both.session.over


# --- a rate ---


def run(both: Lines, until: float, now: float = NOW) -> int:
    """Say what may be said whenever there is something; returns the bytes of all links."""
    total = 0
    while now < until:
        total += sum(len(drain(channel, now)) for channel in both.channels)
        due = min(channel.deadline() for channel in both.channels)
        assert due > now
        now = due
        for channel in both.channels:
            channel.tick(now)
    return total


@pytest.mark.parametrize("slots", [(0,), (0, 1)])
def test_a_rate_is_for_all_links_together(slots: tuple[int, ...]) -> None:
    rate = 50 * SLOWEST
    session = Session(1 << 20, LIMITS._replace(heartbeat=1e6), links=2, bucket=Bucket(rate))
    session.establish()
    both = Lines(session, [])
    for slot in slots:
        channel = SlotChannel(session, Frames(), NOW, slot)
        session.attach(channel, Position(0, 0, 1 << 20, links=2), NOW, slot)
        both.channels.append(channel)
        assert both.said(slot)[0] == RATE(rate)
        both.hear(slot, PONG(1))
    write(session, bytes(1 << 20))
    free = 32 * 100 * len(slots)  # bytes of what is no stream
    total = run(both, NOW + 1)
    assert rate * 0.95 <= total <= rate * (1 + BURST) + free


def test_a_rate_that_is_told_over_one_link_binds_the_others() -> None:
    both = two(patient=True)
    both.hear(0, RATE(SLOWEST))
    write(both.session, bytes(WINDOW))
    sent = sum(len(drain(channel, NOW)) for channel in both.channels)
    assert sent <= SLOWEST * BURST + 2 * 300
    assert both.session.rate.holds_up == SLOWEST
    for slot in (0, 1):
        both.lose(slot)
    assert both.session.rate.holds_up is None


def test_a_lost_link_has_the_rate_said_again_on_the_others() -> None:
    bucket = Bucket(SLOWEST)
    both = two(bucket=bucket)
    bucket.change(2 * SLOWEST)
    both.lose(0)
    assert both.said(1)[0] == RATE(2 * SLOWEST)
