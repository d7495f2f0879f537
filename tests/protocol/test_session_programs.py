"""Streams of programs: how they ended is told, and one that stops reading fails nothing."""

from __future__ import annotations

import pytest

from bpipe.protocol.ending import Phase
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Kind, Stop, pack_frame
from tests.support.loopback import Frame, drain, feed, take
from tests.support.peer import (
    ACK,
    BYE,
    DATA,
    FIN,
    NOW,
    STOP,
    assert_over,
    channel,
    deliver_mark,
    hear,
    next_link,
    said,
    up,
)

EXITED_3, KILLED_15 = Finish(Ended.EXITED, 3), Finish(Ended.KILLED, 15)
RUNNING, CUT = Finish(Ended.RUNNING), Finish(Ended.CUT)


@pytest.mark.parametrize("ended", [EXITED_3, KILLED_15, Finish(Ended.EXITED), UNTOLD])
def test_how_a_program_has_ended_is_said_with_its_stream_and_again(ended: Finish) -> None:
    session = up(b"abc")
    session.finish(ended=ended)
    whole = pack_frame(Kind.FIN, 3, how=ended.how, status=ended.status)
    assert drain(channel(session), NOW) == whole
    next_link(session, 3)
    assert drain(channel(session), NOW) == ACK(0).encode() + whole


@pytest.mark.parametrize(
    ("ended", "failed"),
    [
        (UNTOLD, False),
        (Finish(Ended.EXITED), False),
        (RUNNING, False),
        (EXITED_3, True),
        (KILLED_15, True),
        (CUT, True),
    ],
)
def test_the_stream_of_a_producer_that_failed_is_not_a_whole_one(
    ended: Finish, failed: bool
) -> None:
    session = up()
    feed(channel(session), pack_frame(Kind.FIN, 0, how=ended.how, status=ended.status), NOW)
    assert session.reader.ended == ended
    assert session.reader.ended.failed is failed


def test_of_a_program_that_goes_on_after_its_output_the_end_is_told_by_bye() -> None:
    session = up()
    session.writer.begin()
    session.finish(ended=RUNNING)
    assert drain(channel(session), NOW) == pack_frame(Kind.FIN, 0, how=Ended.RUNNING)
    hear(session, FIN(0), ACK(1))
    deliver_mark(session)
    assert session.phase is Phase.DONE
    assert said(session) == [ACK(1)]  # and not yet BYE
    session.writer.exited(EXITED_3)
    session.settle(NOW)
    bye = pack_frame(Kind.BYE, 0, how=Ended.EXITED, status=3)
    assert drain(channel(session), NOW) == bye
    next_link(session, 1)
    assert drain(channel(session), NOW) == ACK(1).encode() + bye
    hear(session, BYE(0))
    assert_over(session, None)


@pytest.mark.parametrize("finished", ["before", "after", "in steps"])
def test_of_a_program_whose_output_is_not_wanted_the_end_is_told_by_bye(finished: str) -> None:
    session = up(b"abc")
    session.writer.begin()
    session.writer.wrote(fill(session.writer.space(1), b"d"))
    if finished == "before":
        session.finish(ended=EXITED_3)
    hear(session, Frame(Kind.STOP, 0))
    assert said(session) == [Frame(Kind.FIN, 3, how=Ended.CUT)]
    hear(session, FIN(0), ACK(4))
    deliver_mark(session)
    if finished == "in steps":
        session.finish(ended=RUNNING)
        assert said(session) == [ACK(1)]
        session.writer.exited(EXITED_3)
        session.settle(NOW)
    elif finished == "after":
        assert said(session) == [ACK(1)]
        session.finish(ended=EXITED_3)
        session.settle(NOW)
    bye = pack_frame(Kind.BYE, 0, how=Ended.EXITED, status=3)
    assert drain(channel(session), NOW).endswith(bye)


def test_what_bye_tells_of_a_program_counts_if_nobody_has_told_that() -> None:
    exited = Finish(Ended.EXITED)
    for ended, told in ((RUNNING, EXITED_3), (CUT, EXITED_3), (exited, exited)):
        session = up()
        session.finish()
        said(session)
        feed(channel(session), pack_frame(Kind.FIN, 0, how=ended.how), NOW)
        deliver_mark(session)
        hear(session, ACK(1))
        feed(channel(session), pack_frame(Kind.BYE, 0, how=Ended.EXITED, status=3), NOW)
        assert session.reader.finish == told


def test_a_program_that_stops_reading_fails_nothing() -> None:
    """The peer is told that nothing more is taken, and the answer is carried to its end."""
    session = up(b"answer")
    hear(session, DATA(0, b"abcdef"))
    assert take(session, 2) == b"ab"
    session.program_left()
    assert said(session) == [Frame(Kind.STOP, 2, how=Stop.CONSUMER_GONE)]
    hear(session, DATA(6, b"more"), Frame(Kind.FIN, 10, how=Ended.CUT))
    assert session.phase is Phase.UP
    session.finish(ended=Finish(Ended.EXITED))
    frames = said(session)
    assert frames[0] == ACK(11)
    hear(session, ACK(7))
    assert said(session) == [BYE(0)]
    hear(session, BYE(0))
    assert_over(session, None)


def test_a_program_that_leaves_after_an_end_says_nothing_more() -> None:
    session = up()
    session.finish()
    hear(session, Frame(Kind.ABORT, 2))
    session.program_left()
    assert STOP(0) not in said(session)


@pytest.mark.parametrize(
    ("later", "early"),
    [
        ([], False),
        ([FIN(3)], False),
        ([DATA(3, b"d")], True),
        ([Frame(Kind.FIN, 3, how=Ended.CUT)], True),
    ],
)
def test_whether_a_program_has_left_early(later: list[Frame], early: bool) -> None:
    session = up()
    hear(session, DATA(0, b"abc"))
    assert take(session) == b"abc"
    assert not session.reader.left_early
    session.program_left()
    hear(session, *later)
    assert session.reader.left_early is early


def test_a_stream_that_is_not_wanted_is_not_left_early() -> None:
    session = up()
    session.stop()
    hear(session, DATA(0, b"abc"))
    assert not session.reader.left_early


def test_what_a_consumer_has_and_has_not_read_is_not_given_to_it_again() -> None:
    session = up()
    hear(session, DATA(0, b"abcdef"))
    assert b"".join(session.reader.readable(100, after=2)) == b"cdef"
    assert session.reader.readable(100, after=6) == []
