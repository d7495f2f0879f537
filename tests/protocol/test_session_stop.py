from __future__ import annotations

from functools import partial

import pytest

from bpipe.errors import (
    PipeClosed,
)
from bpipe.protocol.ending import Phase
from bpipe.protocol.patience import QUESTION
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    Ended,
    Reason,
    Stop,
)
from tests.support.loopback import Frame, feed, take, write
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    NOW,
    STOP,
    Failure,
    assert_over,
    attach,
    channel,
    deadline,
    deliver_mark,
    finish_both,
    hear,
    lose,
    next_link,
    said,
    tick,
    up,
)

# --- stop ---


def test_a_stop_from_the_peer_ends_the_stream_at_what_was_begun() -> None:
    session = up(b"abc")
    write(session, b"def")
    hear(session, STOP(1))
    assert said(session) == [FIN(3, how=Ended.CUT)]


@pytest.mark.parametrize(("offset", "failure"), [(2, PipeClosed), (3, None)])
def test_a_stream_that_the_peer_cut_short_is_reported_once_both_are_done(
    offset: int, failure: Failure
) -> None:
    session = up(b"abc")
    hear(session, STOP(offset))
    finish_both(session)
    said(session)
    hear(session, BYE(0))
    assert_over(session, failure)


@pytest.mark.parametrize(("more", "failure"), [(True, PipeClosed), (False, None)])
def test_a_stopped_end_waits_for_its_producer_to_say_whether_it_had_more(
    more: bool, failure: Failure
) -> None:
    session = up()
    session.writer.begin()
    hear(session, STOP(0), FIN(0))
    deliver_mark(session)
    said(session)
    hear(session, ACK(1), BYE(0))
    assert said(session) == []
    assert not session.over
    session.finish(more=more)
    session.settle(NOW)
    assert said(session) == [BYE(0)]
    assert_over(session, failure)


def test_what_comes_after_a_stop_is_acknowledged_and_its_end_mark_too() -> None:
    session = up()
    session.stop()
    hear(session, DATA(0, bytes(100)), FIN(100))
    assert said(session) == [STOP(0), ACK(101)]
    assert session.reader.done


# --- a consumer that leaves ---

GONE = partial(STOP, how=Stop.CONSUMER_GONE)
CUT_OFF = partial(FIN, how=Ended.CUT)


def left() -> Session:
    """The consumer has taken three bytes, and closed its pipe."""
    session = up(b"xy")
    hear(session, DATA(0, b"abc"))
    take(session)
    session.consumer_gone("head has gone", NOW)
    assert said(session) == [GONE(3)]
    tick(session, NOW + 0.01)
    assert said(session) == [ACK(3)]
    return session


@pytest.mark.parametrize("how", ["unread", "in its pipe", "on their way"])
def test_a_consumer_that_leaves_bytes_ends_both_directions_at_once(how: str) -> None:
    session = up()
    hear(session, DATA(0, b"abc"))
    take(session, 3 if how != "unread" else 2)
    session.consumer_gone("head has gone", NOW, untaken=how == "in its pipe")
    if how == "on their way":
        hear(session, DATA(3, b"d"))
    assert session.phase is Phase.ABORTING
    assert said(session)[-1] == ABORT(Reason.BROKEN_PIPE, b"head has gone")
    assert isinstance(session.failure, PipeClosed)


def test_a_consumer_that_has_taken_everything_may_leave_and_the_other_direction_goes_on() -> None:
    session = left()
    hear(session, FIN(3))
    assert session.reader.done
    assert said(session) == [ACK(4)]
    write(session, b"z")
    assert said(session) == [DATA(2, b"z")]
    session.finish()
    said(session)
    hear(session, ACK(4), BYE(0))
    said(session)
    assert_over(session, None)


@pytest.mark.parametrize(
    "more",
    [[CUT_OFF(3)], [DATA(3, b"d")], [DATA(3, b"d"), FIN(4)], [DATA(3, b"d"), CUT_OFF(4)]],
)
def test_a_consumer_that_has_left_too_early_ends_both_directions(more: list[Frame]) -> None:
    session = left()
    hear(session, *more)
    assert said(session) == [ABORT(Reason.BROKEN_PIPE, b"head has gone")]
    assert session.reader.delivered == 3
    hear(session, BYE(0))
    assert_over(session, PipeClosed, "head has gone")


def test_the_rest_of_a_frame_may_be_what_a_consumer_has_left() -> None:
    session = up()
    frame = DATA(0, b"abcdef").encode()
    feed(channel(session), frame[:-3], NOW)
    take(session)
    session.consumer_gone("head has gone", NOW)
    assert session.failure is None
    feed(channel(session), frame[-3:], NOW)
    assert session.phase is Phase.ABORTING
    assert ACK(3) in said(session)


def test_a_consumer_that_leaves_after_the_end_mark_came_has_everything() -> None:
    session = up()
    hear(session, DATA(0, b"abc"), FIN(3))
    take(session)
    session.consumer_gone("head has gone", NOW)
    assert session.reader.done
    assert session.phase is Phase.UP


def test_that_a_consumer_has_gone_is_said_on_each_link() -> None:
    session = left()
    next_link(session, 2)
    assert said(session) == [GONE(3), ACK(3)]
    hear(session, FIN(3))
    assert session.reader.done


def test_an_end_that_only_asks_and_is_not_answered_says_so() -> None:
    session = left()
    session.finish()
    said(session)
    hear(session, ACK(3))
    lose(session)
    assert deadline(session) == NOW + 20
    tick(session, NOW + 20)
    assert_over(session, PipeClosed, "head has gone; the other end did not answer: end it, too")


def test_a_producer_is_waited_for_two_seconds_when_the_far_consumer_has_gone() -> None:
    session = up(b"abc")
    hear(session, GONE(3))
    assert session.writer.confirmed == 3
    tick(session, NOW + 1.9)
    assert said(session) == [ACK(0)]  # a sign of life
    assert deadline(session) == NOW + QUESTION == NOW + 2
    tick(session, NOW + 2)
    assert CUT_OFF(3) in said(session)
    assert not session.writer.asked


def test_a_question_that_is_asked_again_has_the_time_of_the_first() -> None:
    session = up(b"abc")
    hear(session, GONE(3))
    lose(session, now=NOW + 1)
    assert deadline(session) == NOW + 2
    attach(session, 3, now=NOW + 1)
    hear(session, GONE(3), now=NOW + 1)
    tick(session, NOW + 2)
    assert said(session)[-1] == CUT_OFF(3)


@pytest.mark.parametrize("how", ["ends", "has more", "had more"])
def test_what_a_producer_does_after_the_far_consumer_has_gone(how: str) -> None:
    session = up(b"abc")
    if how == "had more":
        session.writer.window = 3
        write(session, b"d")
    session.writer.begin()
    hear(session, GONE(3))
    if how == "has more":
        write(session, b"d")
        session.settle(NOW)
    elif how == "ends":
        session.finish()
    assert said(session) == [FIN(3) if how == "ends" else CUT_OFF(3)]
    assert session.writer.cut_short is (how != "ends")


def test_a_question_that_says_more_is_taken_ends_an_outage() -> None:
    session = up(b"abc")
    lose(session)
    attach(session, 3, now=NOW + 1)
    assert session.patience.outage_since == NOW
    hear(session, GONE(3), now=NOW + 1)
    assert session.patience.outage_since is None
    lose(session, now=NOW + 2)
    assert session.patience.outage_since == NOW + 2
