from __future__ import annotations

import pytest

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.channel import ACK_DELAY
from bpipe.protocol.ending import Phase
from bpipe.protocol.frames import Frames
from bpipe.protocol.session import Session
from bpipe.protocol.wire import HEADER_SIZE, Kind, Position, Reason
from tests.support.loopback import decode, drain, feed, write
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
    STOP,
    attach,
    channel,
    deadline,
    deliver_mark,
    hear,
    join,
    lose,
    make,
    said,
    tick,
    up,
)

# --- out ---


def much_to_say() -> Session:
    """A session that has some of everything to say."""
    session = make(b"payload")
    session.stop()
    attach(session)
    hear(session, PING(7))
    tick(session, NOW + 2)
    return session


MUCH = [PONG(7), STOP(0), ACK(0), PING(1), DATA(0, b"payload")]


def test_what_is_lent_goes_out_in_order_and_is_gone_when_it_is_sent() -> None:
    link = channel(much_to_say())
    views = link.outgoing(NOW)
    assert decode(b"".join(views)) == MUCH
    link.sent(sum(map(len, views)), NOW)
    assert link.outgoing(NOW) == []


@pytest.mark.parametrize("step", range(1, 6 * HEADER_SIZE + 7))
def test_what_is_lent_can_go_out_in_pieces_of_any_size(step: int) -> None:
    link = channel(much_to_say())
    out = b""
    while part := drain(link, NOW, limit=step):
        assert len(part) == step or not link.outgoing(NOW)
        out += part
    assert decode(out) == MUCH


def test_what_is_lent_does_not_change_before_it_is_sent() -> None:
    session = much_to_say()
    lent = b"".join(channel(session).outgoing(NOW))
    write(session, b"more")
    hear(session, PING(8))
    assert b"".join(channel(session).outgoing(NOW)) == lent


def test_nothing_is_lent_when_there_is_nothing_to_say() -> None:
    assert channel(up()).outgoing(NOW) == []


# --- how big a frame is ---


def test_a_frame_is_no_larger_than_a_second_of_what_its_link_has_carried() -> None:
    session = make(buffer_size=1 << 26)
    join(session, Position(0, 0, 1 << 26), Frames())
    drain(channel(session), NOW)
    write(session, bytes(400_000))
    assert sizes(session) == [16 << 10] * 24 + [400_000 - 24 * (16 << 10)]
    hear(session, ACK(200_000))  # within four
    write(session, bytes(100_000))
    assert sizes(session) == [50_000, 50_000]
    lose(session)
    join(session, Position(200_000, 200_000, 1 << 26), Frames())
    assert sizes(session)[0] == 16 << 10


def sizes(session: Session) -> list[int]:
    """Of the frames of the stream that are said now."""
    frames = decode(drain(channel(session), NOW))
    return [len(frame.payload) for frame in frames if frame.kind is Kind.DATA]


# --- acknowledgements ---


def full(capacity: int = 100, *, window: int = 1000) -> Session:
    """A full reader; the first ACK was said. The peer can hold ``window`` bytes."""
    session = make(buffer_size=capacity, limits=LIMITS._replace(heartbeat=60))
    join(session, Position(0, 0, window), Frames())
    hear(session, DATA(0, bytes(capacity)))
    assert said(session) == [ACK(0)]
    return session


def test_an_ack_is_not_due_while_nothing_is_delivered() -> None:
    session = full()
    assert said(session) == []
    assert deadline(session) == NOW + 60  # the heartbeat


def test_an_ack_is_due_10_ms_after_the_first_delivery() -> None:
    session = full()
    session.reader.took(1)
    assert said(session) == []
    session.reader.took(1)
    assert said(session, NOW + 0.009) == []
    assert deadline(session) == NOW + ACK_DELAY == NOW + 0.010
    assert said(session, NOW + 0.010) == [ACK(2)]


def test_a_tick_finds_the_ack_that_is_due() -> None:
    session = full()
    session.reader.took(1)
    assert said(session) == []
    tick(session, NOW + 0.009)
    assert said(session) == []
    tick(session, NOW + 0.010)
    assert said(session) == [ACK(1)]
    due = deadline(session)
    assert due is not None
    assert due > NOW + 0.010


@pytest.mark.parametrize(
    ("taken", "window", "due"),
    [(24, 100, False), (25, 100, True), (25, 1000, True), (2, 10, False), (3, 10, True)],
)
def test_an_ack_is_due_at_once_for_a_quarter_of_the_smaller_window(
    taken: int, window: int, due: bool
) -> None:
    session = full(100, window=window)
    session.reader.took(taken)
    assert said(session) == ([ACK(taken)] if due else [])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_with_the_smallest_windows_each_byte_is_acknowledged_once(window: int) -> None:
    session = full(100, window=window)
    for taken in range(1, 4):
        session.reader.took(1)
        assert said(session) == [ACK(taken)]
        assert said(session) == []


def test_what_was_acknowledged_on_another_link_has_not_moved_on_this_one() -> None:
    session = full(100)
    session.reader.took(30)
    assert said(session) == [ACK(30)]
    lose(session)
    join(session, Position(0, 0, 1000), Frames())
    assert said(session) == [ACK(30)]
    session.reader.took(24)
    assert said(session) == []


def test_the_quarter_is_counted_from_the_last_ack() -> None:
    session = full(100)
    session.reader.took(25)
    assert said(session) == [ACK(25)]
    session.reader.took(24)
    assert said(session) == []
    session.reader.took(1)
    assert said(session) == [ACK(50)]


def test_an_ack_is_due_at_once_for_the_end_mark() -> None:
    session = full(100)
    hear(session, FIN(100))
    session.reader.took(100)
    assert said(session) == [ACK(100)]
    session.deliver_mark()
    assert said(session) == [ACK(101)]


@pytest.mark.parametrize("mine", [True, False])
def test_the_last_ack_before_the_end_tells_exactly_how_far_it_got(mine: bool) -> None:
    session = full(100)
    session.reader.took(1)
    if mine:
        session.abort(Reason.LOCAL_ERROR, "", NOW)
    else:
        hear(session, ABORT(2))
    assert said(session) == [ACK(1), ABORT(2) if mine else BYE(0)]


def test_saying_the_ack_stops_its_timer() -> None:
    session = full(100)
    session.reader.took(1)
    assert said(session) == []
    session.reader.took(30)
    assert said(session) == [ACK(31)]
    tick(session, NOW + 0.5)
    assert said(session) == []


def test_an_ack_is_due_as_a_sign_of_life_after_a_second_of_hearing() -> None:
    session = full(100)
    hear(session, PONG(0))
    tick(session, NOW + 0.99)
    assert said(session) == []
    tick(session, NOW + 1)
    assert said(session) == [ACK(0)]


def test_silence_loses_the_link() -> None:
    link = channel(up())
    link.tick(NOW + 5.9)
    with pytest.raises(LinkLost, match="nothing was heard"):
        link.tick(NOW + 6)


# --- nothing more of the streams, once the session has ended ---


def test_an_end_that_has_left_says_nothing_more_of_its_stream() -> None:
    session = up(b"abc")
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    write(session, b"def")
    hear(session, BYE(0))
    assert session.over
    assert said(session) == [ABORT(2, b"disk full")]


def test_a_done_end_that_is_told_to_abort_says_bye_before_it_leaves() -> None:
    session = up(b"abc")
    session.writer.begin()
    hear(session, STOP(3), FIN(0))
    deliver_mark(session)
    said(session)
    hear(session, ACK(4))  # and the producer has not said yet whether there was more
    assert session.phase is Phase.DONE
    assert said(session) == []
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    assert session.over
    assert said(session) == [BYE(0)]


# --- past the memory of this process ---


def begun(*, waiting: bytes = b"", size: int = 10) -> Session:
    """A session to which a DATA frame is coming, whose header is there."""
    session = up()
    if waiting:
        hear(session, DATA(0, waiting))
    frame = DATA(len(waiting), bytes(size)).encode()
    feed(channel(session), frame[:HEADER_SIZE], NOW)
    return session


def test_payload_may_pass_by_when_nothing_waits_before_it() -> None:
    assert channel(up()).passable == 0
    assert channel(begun()).passable == 10
    session = begun(waiting=b"abc")
    assert channel(session).passable == 0
    session.reader.took(3)
    assert channel(session).passable == 10


def test_a_message_for_people_does_not_pass_by() -> None:
    session = up()
    feed(channel(session), ABORT(2, b"disk full").encode()[:HEADER_SIZE], NOW)
    assert channel(session).passable == 0


@pytest.mark.parametrize("discard", ["stop", "abort"])
def test_what_is_discarded_does_not_pass_by(discard: str) -> None:
    session = begun()
    if discard == "stop":
        session.stop()
    else:
        session.abort(Reason.LOCAL_ERROR, "", NOW)
    assert channel(session).passable == 0


def test_what_has_passed_by_is_received_and_delivered() -> None:
    session = begun()
    lose(session)  # an outage
    attach(session)
    feed(channel(session), DATA(0, bytes(10)).encode()[:HEADER_SIZE], NOW)
    link = channel(session)
    link.passed(4, NOW + 1)
    assert (session.reader.received, session.reader.delivered, link.passable) == (4, 4, 6)
    assert session.patience.outage_since is None
    assert link.liveness.heard_at == NOW + 1
    feed(link, b"five.", NOW)
    assert (session.reader.received, session.reader.delivered, link.passable) == (9, 4, 0)
    session.reader.took(5)
    link.passed(1, NOW)
    assert (session.reader.received, session.reader.delivered, link.passable) == (10, 10, 0)
    hear(session, DATA(10, b"next"), FIN(14))
    assert session.reader.mark == 14


def test_a_protocol_error_after_something_has_passed_by_is_not_counted() -> None:
    for passed in (0, 1):
        session = begun()
        link = channel(session)
        if passed:
            link.passed(passed, NOW)
        link.detach(ProtocolError("junk"), NOW)
        assert session.fruitless == 1 - passed


# --- what a link asks before it reads on ---


def test_between_two_frames_nothing_more_need_be_on_its_way() -> None:
    frame = DATA(0, b"abc").encode()
    for count in range(len(frame) + 1):
        link = channel(up())
        feed(link, frame[:count], NOW)
        assert link.midway is (HEADER_SIZE <= count < len(frame))
