from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.errors import (
    Busy,
    LinkLost,
    LocalAbort,
    NobodyListens,
    NotConnected,
    PeerAborted,
    PipeClosed,
    ProtocolError,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.frames import Frames
from bpipe.protocol.patience import QUESTION, Limits
from bpipe.protocol.session import FRUITLESS_LINKS, Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    LARGEST_MESSAGE,
    Ended,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    Status,
    Stop,
)
from tests.support.loopback import EVERYTHING, Frame, decode, drain, feed, take, write

NOW = 100.0
LIMITS = Limits(heartbeat=2, connect_timeout=30, give_up_after=1000, linger=20)
CUT = LinkLost("cut")

DATA, FIN, ACK, STOP = (partial(Frame, kind) for kind in list(Kind)[:4])
PING, PONG, BYE, ABORT = (partial(Frame, kind) for kind in list(Kind)[4:8])

Failure = type[SessionEnded] | None


def make(written: bytes = b"", *, buffer_size: int = 100, limits: Limits = LIMITS) -> Session:
    """A session that has no link yet."""
    session = Session(buffer_size, limits)
    write(session, written)
    return session


def attach(session: Session, received: int = 0, *, now: float = NOW, caller: bool = True) -> None:
    """A link on which the peer has received so much, and taken what it has acknowledged."""
    position = Position(session.writer.acked, received, 100)
    session.attach(position, Frames(), now, caller=caller)


def up(written: bytes = b"", *, buffer_size: int = 100, limits: Limits = LIMITS) -> Session:
    """A session with a link, on which everything was said that was due."""
    session = make(written, buffer_size=buffer_size, limits=limits)
    attach(session)
    said(session)
    return session


def said(session: Session, now: float = NOW) -> list[Frame]:
    """What the session says now."""
    return decode(drain(session, now))


def hear(session: Session, *frames: Frame, now: float = NOW) -> None:
    """The peer says this."""
    feed(session, b"".join(frame.encode() for frame in frames), now)


def deliver_mark(session: Session, now: float = NOW) -> None:
    """The consumer was closed."""
    session.deliver_mark()
    session.settle(now)


def finish_both(session: Session) -> None:
    """Both streams end and are delivered; the session is done, and has not said BYE."""
    session.writer.finish()
    said(session)
    hear(session, FIN(session.reader.received))
    if session.reader.stopped is None:
        take(session)
        deliver_mark(session)
    hear(session, ACK(session.writer.end))
    assert session.done


def next_link(session: Session, received: int = 0, *, now: float = NOW) -> None:
    """The link is cut, and the next one is attached."""
    session.detach(CUT, now)
    attach(session, received, now=now)


def assert_over(session: Session, failure: Failure, text: str = "") -> None:
    assert session.over
    assert type(session.failure) is (failure or type(None))
    assert text in str(session.failure)
    assert session.deadline() is None


# --- a link begins and ends ---


def test_the_first_frame_on_each_link_is_an_ack_although_nothing_has_moved() -> None:
    session = make()
    for _ in range(3):
        attach(session)
        assert said(session) == [ACK(0)]
        assert said(session) == []
        session.detach(CUT, NOW)


def test_a_stop_is_said_first_on_each_link_before_the_ack() -> None:
    session = up()
    hear(session, DATA(0, b"abc"))
    take(session, 2)
    session.stop()
    assert said(session)[0] == STOP(2)
    for _ in range(2):
        next_link(session)
        assert said(session) == [STOP(2), ACK(3)]
        assert said(session) == []


def test_a_stop_is_not_said_any_more_after_the_peers_bye() -> None:
    session = up()
    session.stop()
    finish_both(session)
    next_link(session, received=1)
    assert said(session) == [STOP(0), ACK(1), BYE(0)]
    session = up()
    session.stop()
    finish_both(session)
    hear(session, BYE(0))
    next_link(session, received=1)
    assert said(session) == [ACK(1), BYE(0)]


def test_the_stream_comes_after_what_else_is_due() -> None:
    session = make(b"abc")
    session.stop()
    attach(session)
    hear(session, PING(7))
    session.tick(NOW + 2)
    frames = [STOP(0), ACK(0), PONG(7), PING(1), DATA(0, b"abc")]
    assert said(session, NOW + 2) == frames


def test_a_link_carries_on_from_what_the_peer_has_received() -> None:
    session = up(b"abcdef")
    next_link(session, received=4)
    assert said(session) == [ACK(0), DATA(4, b"ef")]
    assert (session.links, session.replayed) == (2, 2)


def test_the_end_mark_is_replayed_and_acknowledged_like_a_byte() -> None:
    session = up(b"abc")
    session.writer.finish()
    assert said(session) == [FIN(3)]
    next_link(session, received=3)
    assert said(session) == [ACK(0), FIN(3)]
    hear(session, ACK(3))
    assert not session.writer.done
    hear(session, ACK(4))
    assert session.writer.done


@pytest.mark.parametrize("size", range(1, HEADER_SIZE))
def test_half_a_header_on_one_link_does_not_leak_into_the_next(size: int) -> None:
    session = up()
    feed(session, b"\xff" * size, NOW)
    next_link(session)
    hear(session, DATA(0, b"abc"))
    assert take(session) == b"abc"


def test_half_a_payload_is_kept_and_the_next_link_brings_the_rest() -> None:
    session = up()
    feed(session, DATA(0, b"abcdef").encode()[:-2], NOW)
    assert session.position == (0, 4, 100)
    next_link(session)
    hear(session, DATA(4, b"ef"))
    assert take(session) == b"abcdef"


def test_half_a_message_on_one_link_does_not_leak_into_the_next() -> None:
    session = up()
    feed(session, ABORT(1, b"broken").encode()[:-2], NOW)
    next_link(session)
    hear(session, DATA(0, b"ab"))
    assert not session.aborting
    assert take(session) == b"ab"


@pytest.mark.parametrize("size", [1, HEADER_SIZE, HEADER_SIZE + 3])
def test_a_frame_that_was_half_said_is_said_anew_on_the_next_link(size: int) -> None:
    session = make(b"abcdef")
    attach(session)
    drain(session, NOW, limit=HEADER_SIZE + size)
    next_link(session)
    assert said(session) == [ACK(0), DATA(0, b"abcdef")]


def test_a_frame_that_has_begun_is_finished_whatever_is_heard_meanwhile() -> None:
    session = make(b"abcdef")
    attach(session)
    begun = drain(session, NOW, limit=2 * HEADER_SIZE + 1)
    hear(session, STOP(0), PING(7), ABORT(1))
    assert decode(begun + drain(session, NOW)) == [
        ACK(0),
        DATA(0, b"abcdef"),
        PONG(7),
        BYE(0),
    ]


def test_without_a_link_nothing_goes_out_and_losing_it_again_means_nothing() -> None:
    session = up(b"abc")
    session.detach(CUT, NOW)
    session.detach(LinkLost("again"), NOW + 5)
    assert session.outgoing(NOW) == []
    assert (session.attached, str(session.last_cause), session.outage_since) == (False, "cut", NOW)


def test_what_happens_is_told_to_the_trace() -> None:
    events = []
    session = make(b"abc")
    session.trace = lambda prefix, text: events.append((prefix, text))
    attach(session)
    said(session)
    hear(session, DATA(0, b"hello"), ACK(1))
    session.detach(CUT, NOW)
    attach(session)
    session.detach(ProtocolError("nonsense"), NOW)
    assert [event for event in events if "attached" not in event[1]] == [
        (">", "ACK 0"),
        (">", "DATA 0 +3"),
        ("<", "DATA 0 +5"),
        ("<", "ACK 1"),
        ("=", "detached: cut"),
        ("!", "detached: nonsense"),
    ]


# --- acknowledgements and windows ---


def test_what_is_received_and_not_delivered_is_not_acknowledged() -> None:
    session = up()
    hear(session, DATA(0, bytes(100)))
    assert said(session, NOW + 0.9) == []


def test_a_delivery_is_acknowledged_after_10_ms() -> None:
    session = up()
    hear(session, DATA(0, b"abc"))
    take(session)
    assert said(session) == []
    assert session.deadline() == NOW + 0.010
    session.tick(NOW + 0.010)
    assert said(session, NOW + 0.010) == [ACK(3)]


@pytest.mark.parametrize(("taken", "expected"), [(24, []), (25, [ACK(25)])])
def test_a_quarter_of_the_window_is_acknowledged_at_once(taken: int, expected: list[Frame]) -> None:
    session = up(buffer_size=100)
    hear(session, DATA(0, bytes(50)))
    take(session, taken)
    assert said(session) == expected


def test_the_end_mark_is_acknowledged_at_once() -> None:
    session = up()
    hear(session, DATA(0, b"a"), FIN(1))
    take(session)
    assert said(session) == []
    deliver_mark(session)
    assert said(session) == [ACK(2)]


def test_an_ack_is_a_sign_of_life_after_a_second_of_hearing() -> None:
    session = up()
    hear(session, DATA(0, b"abc"))
    session.tick(NOW + 1)
    assert said(session, NOW + 1) == [ACK(0)]


def test_the_peers_window_is_used_to_its_last_byte_and_not_beyond() -> None:
    session = make(bytes(range(200)), buffer_size=200)
    attach(session)
    assert b"".join(frame.payload for frame in said(session)) == bytes(range(100))
    hear(session, ACK(1))
    assert said(session) == [DATA(100, bytes([100]))]


@pytest.mark.parametrize(
    ("position", "fits"),
    [
        (Position(1, 3, 100), True),
        (Position(0, 3, 100), False),
        (Position(1, 7, 100), False),
        (Position(1, 3, 99), False),
        (Position(1, 3, 101), False),
    ],
)
def test_a_peer_fits_within_what_was_sent_and_with_the_window_it_had(
    position: Position, fits: bool
) -> None:
    session = up(b"abcdef")
    hear(session, ACK(1))
    assert session.fits(position) is fits


@pytest.mark.parametrize(("window", "fits"), [(0, False), (1, True), (2**64 - 1, True)])
def test_a_first_peer_has_any_window_but_none(window: int, fits: bool) -> None:
    assert make().fits(Position(0, 0, window)) is fits


# --- the heartbeat ---


def test_a_ping_is_said_after_one_heartbeat_and_its_answer_tells_the_round_trip() -> None:
    session = up()
    assert session.deadline() == NOW + 2
    session.tick(NOW + 2)
    assert said(session, NOW + 2) == [PING(1)]
    hear(session, PONG(1), now=NOW + 2.5)
    assert session.round_trip == 0.5
    session.detach(CUT, NOW + 3)
    assert session.round_trip is None


def test_a_ping_is_answered_at_once_and_of_several_the_last() -> None:
    session = up()
    hear(session, PING(7))
    assert said(session) == [PONG(7)]
    hear(session, PING(8), PING(2**64 - 1))
    assert said(session) == [PONG(2**64 - 1)]
    assert said(session) == []


def test_a_link_is_dead_after_three_silent_heartbeats() -> None:
    session = up()
    session.tick(NOW + 5.9)
    with pytest.raises(LinkLost, match="nothing was heard"):
        session.tick(NOW + 6)


# --- protocol errors ---

JUNK = bytes(HEADER_SIZE)
WRONG = [
    pytest.param(DATA(1, b"x").encode(), "not the next", id="data too far"),
    pytest.param(DATA(0, bytes(101)).encode(), "more data than the window", id="window"),
    pytest.param(FIN(1).encode(), "end mark that is not the next", id="end mark too far"),
    pytest.param(ACK(4).encode(), "acknowledgement", id="ack of what was not sent"),
    pytest.param(BYE(0).encode(), "BYE before the end", id="early bye"),
    pytest.param(Frame(Kind.CONFIRM, 0).encode(), "CONFIRM", id="confirm"),
    pytest.param(Frame(Kind.READY, 0).encode(), "READY", id="ready"),
    pytest.param(JUNK, "unknown kind", id="unknown kind"),
    pytest.param(DATA(0).encode(), "wrong length", id="data without a payload"),
    pytest.param(ABORT(1, bytes(513)).encode(), "wrong length", id="long message"),
    *(
        pytest.param(Frame(kind, 0, b"x").encode(), "wrong length", id=f"{kind.name} payload")
        for kind in (Kind.FIN, Kind.ACK, Kind.STOP, Kind.PING, Kind.PONG, Kind.BYE)
    ),
]


@pytest.mark.parametrize(("data", "why"), WRONG)
def test_what_may_not_be_said_is_a_protocol_error_and_changes_nothing(
    data: bytes, why: str
) -> None:
    session = up(b"abc")
    with pytest.raises(ProtocolError, match=why):
        feed(session, data, NOW)
    assert session.position == (0, 0, 100)
    assert (session.reader.mark, session.writer.acked) == (None, 0)
    assert not session.over


def test_an_acknowledgement_cannot_be_taken_back() -> None:
    session = up(b"abc")
    hear(session, ACK(2))
    with pytest.raises(ProtocolError, match="taken back"):
        hear(session, ACK(1))


def test_data_after_the_end_mark_is_a_protocol_error() -> None:
    session = up()
    hear(session, FIN(0))
    with pytest.raises(ProtocolError, match="not the next"):
        hear(session, DATA(1, b"x"))


def break_protocol(session: Session, before: bytes = b"") -> None:
    """A link on which the peer says this, and then what nobody may say."""
    attach(session)
    feed(session, before, NOW)
    with pytest.raises(ProtocolError, match="unknown kind") as error:
        feed(session, JUNK, NOW)
    session.detach(error.value, NOW)


def test_a_session_survives_two_fruitless_links_and_not_the_third() -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
        assert not session.aborting
    break_protocol(session)
    assert session.aborting
    attach(session)
    assert said(session) == [ACK(0), ABORT(4, b"protocol error: a frame of an unknown kind")]
    session.tick(NOW + 2)
    assert_over(session, LocalAbort, "protocol error: a frame of an unknown kind")


@pytest.mark.parametrize("progress", [DATA(0, b"x").encode(), FIN(0).encode()])
def test_progress_on_a_link_forgives_the_fruitless_ones_before_it(progress: bytes) -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
    break_protocol(session, before=progress)
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
        assert not session.aborting
    break_protocol(session)
    assert session.aborting


def test_progress_counts_although_junk_came_in_the_same_piece() -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS):
        attach(session)
        with pytest.raises(ProtocolError) as error:
            feed(session, DATA(session.reader.received, b"x").encode() + JUNK, NOW)
        session.detach(error.value, NOW)
    assert session.reader.received == FRUITLESS_LINKS
    assert not session.aborting


def test_an_ack_that_moved_is_progress_and_one_that_did_not_is_none() -> None:
    session = make(b"abc")
    attach(session)
    said(session)
    session.detach(CUT, NOW)
    for number in (0, 1, 1):
        break_protocol(session, before=ACK(number).encode())
    break_protocol(session, before=ACK(1).encode())
    assert not session.aborting
    break_protocol(session, before=ACK(1).encode())
    assert session.aborting


def test_links_that_the_network_takes_never_end_a_session() -> None:
    session = make()
    for _ in range(10 * FRUITLESS_LINKS):
        attach(session)
        session.detach(CUT, NOW)
    assert not session.aborting


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
    session.writer.producing = True
    hear(session, STOP(0), FIN(0))
    deliver_mark(session)
    said(session)
    hear(session, ACK(1), BYE(0))
    assert said(session) == []
    assert not session.over
    session.writer.finish(more=more)
    assert said(session) == [BYE(0)]
    assert_over(session, failure)


def test_what_comes_after_a_stop_is_acknowledged_and_its_end_mark_too() -> None:
    session = up()
    session.stop()
    hear(session, DATA(0, bytes(100)), FIN(100))
    assert said(session) == [STOP(0), ACK(101)]
    assert session.reader.done


# --- the end ---


def test_an_end_says_bye_when_it_is_done_and_leaves_when_both_have_said_it() -> None:
    session = up(b"abc")
    finish_both(session)
    assert said(session) == [ACK(1), BYE(0)]
    assert not session.over
    hear(session, BYE(0))
    assert_over(session, None)


def test_an_end_that_hears_bye_first_leaves_when_its_own_is_written() -> None:
    session = up()
    finish_both(session)
    hear(session, BYE(0))
    bye = 2 * HEADER_SIZE
    drain(session, NOW, limit=bye - 1)
    assert not session.over
    drain(session, NOW)
    assert_over(session, None)


def test_bye_is_said_on_each_link() -> None:
    session = up()
    finish_both(session)
    for _ in range(2):
        assert said(session)[-1] == BYE(0)
        assert said(session) == []
        next_link(session, received=1)


@pytest.mark.parametrize("missing", ["ack", "mark", "delivery"])
def test_an_end_is_not_done_before_both_marks_are_delivered_and_its_own_is_acknowledged(
    missing: str,
) -> None:
    session = up(b"abc")
    session.writer.finish()
    said(session)
    hear(session, ACK(3 if missing == "ack" else 4))
    if missing != "mark":
        hear(session, FIN(0))
    if missing == "ack":
        deliver_mark(session)
    assert not session.done
    assert BYE(0) not in said(session, NOW + 0.5)


def test_the_numbers_of_a_greeting_do_not_make_an_end_done() -> None:
    session = up(b"abc")
    session.writer.finish()
    said(session)
    hear(session, FIN(0))
    deliver_mark(session)
    session.detach(CUT, NOW)
    session.attach(Position(4, 4, 100), Frames(), NOW, caller=True)
    assert not session.done
    hear(session, ACK(4))
    assert session.done


# --- abort ---


def test_an_abort_and_its_answer_come_after_an_ack_of_what_is_delivered() -> None:
    for abort, said_last in ((True, ABORT(2, b"disk full")), (False, BYE(0))):
        session = up()
        hear(session, DATA(0, b"abc"))
        take(session)
        if abort:
            session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
        else:
            hear(session, ABORT(2, b"theirs"))
        assert said(session) == [ACK(3), said_last]


def test_an_abort_is_said_on_each_link_until_it_is_answered_by_bye() -> None:
    session = up(b"abc")
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    assert said(session) == [ABORT(2, b"disk full")]
    assert said(session) == []
    next_link(session)
    assert said(session) == [ACK(0), ABORT(2, b"disk full")]
    hear(session, BYE(0))
    assert_over(session, LocalAbort, "disk full")


def test_a_stop_an_ack_and_an_abort_are_said_in_this_order() -> None:
    session = make(b"abc")
    session.stop()
    attach(session)
    session.abort(Reason.LOCAL_ERROR, "", NOW)
    assert said(session) == [STOP(0), ACK(0), ABORT(2)]


@pytest.mark.parametrize(
    ("reason", "linger"),
    [
        (Reason.BROKEN_PIPE, LIMITS.linger),
        (Reason.LOCAL_ERROR, LIMITS.linger),
        (Reason.INTERRUPTED, 2),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_an_abort_waits_for_its_answer_at_most_for_the_linger(
    reason: Reason, linger: float, linked: bool
) -> None:
    session = up(limits=LIMITS._replace(heartbeat=60))
    if not linked:
        session.detach(CUT, NOW)
    session.abort(reason, "why", NOW)
    assert session.deadline() == NOW + linger
    session.tick(NOW + linger - 0.1)
    assert not session.over
    session.tick(NOW + linger)
    assert_over(session, PipeClosed if reason is Reason.BROKEN_PIPE else LocalAbort, "why")


def test_the_heartbeat_goes_on_while_an_abort_waits_for_its_answer() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "why", NOW)
    assert session.deadline() == NOW + LIMITS.heartbeat


def test_the_aborter_reads_on_and_keeps_nothing_and_acknowledges_nothing() -> None:
    session = up()
    session.abort(Reason.BROKEN_PIPE, "why", NOW)
    said(session)
    hear(session, DATA(0, bytes(50)), FIN(50))
    deliver_mark(session)
    assert session.reader.buffered == 0
    assert said(session, NOW + 0.5) == []
    assert session.position == (0, 51, 100)


def test_an_abort_that_is_crossed_by_another_is_not_said_to_be_unanswered() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    said(session)
    hear(session, ABORT(3, b"interrupted"))
    session.tick(NOW + LIMITS.linger)
    assert_over(session, LocalAbort)
    assert str(session.failure) == "disk full"


def test_a_session_that_is_over_does_not_change_its_mind_when_its_link_is_lost() -> None:
    session = up(b"abc")
    session.writer.finish()
    hear(session, FIN(0))
    deliver_mark(session)
    said(session)
    hear(session, ABORT(Reason.LOCAL_ERROR))
    said(session)
    hear(session, ACK(4))
    session.detach(CUT, NOW)
    assert_over(session, PeerAborted)


def test_a_message_for_people_is_cut_at_a_whole_character() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "\N{EURO SIGN}" * 200, NOW)
    [(_, _, payload, _)] = said(session)
    assert payload.decode() == "\N{EURO SIGN}" * (LARGEST_MESSAGE // 3)


def test_a_message_for_people_need_not_be_unicode_text() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "cannot read caf\udce9", NOW)
    [(kind, _, payload, _)] = said(session)
    assert kind is Kind.ABORT
    assert payload.startswith(b"cannot read caf")


@pytest.mark.parametrize(
    ("frame", "failure", "text"),
    [
        (ABORT(1), PipeClosed, ""),
        (ABORT(1, b"grep has gone"), PipeClosed, '"grep has gone"'),
        (ABORT(2, b"disk full"), PeerAborted, '"disk full"'),
        (ABORT(3), PeerAborted, ""),
        (ABORT(99), PeerAborted, ""),
        (ABORT(2, b"\x1b[2J\n\xff"), PeerAborted, '"\\x1b[2J\\x0a\N{REPLACEMENT CHARACTER}"'),
        (ABORT(2, bytes(512)), PeerAborted, '"' + "\\x00" * 50 + '..."'),
    ],
)
def test_an_abort_is_answered_by_bye_and_ends_the_session_with_its_reason(
    frame: Frame, failure: Failure, text: str
) -> None:
    session = up(b"abc")
    write(session, b"def")
    hear(session, frame)
    assert session.aborting
    assert not session.over
    assert said(session) == [BYE(0)]
    assert_over(session, failure)
    assert str(session.failure).startswith("the other end: ")
    assert str(session.failure).endswith(text)
    assert str(session.failure).isprintable()


def test_nothing_is_delivered_that_comes_after_an_abort() -> None:
    session = up()
    hear(session, ABORT(2), DATA(0, b"abc"))
    assert session.reader.buffered == 0


def test_an_abort_ends_the_session_although_its_answer_cannot_be_said() -> None:
    session = up()
    hear(session, ABORT(2, b"disk full"))
    session.detach(CUT, NOW)
    assert_over(session, PeerAborted, "disk full")


def test_an_end_that_has_aborted_reports_it_although_it_is_done_meanwhile() -> None:
    session = up()
    session.writer.finish()
    said(session)
    hear(session, FIN(0))
    deliver_mark(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    hear(session, ACK(1))
    assert session.done
    hear(session, BYE(0))
    assert_over(session, LocalAbort, "disk full")


def test_two_aborts_that_cross_end_both_each_with_its_own_reason() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "mine", NOW)
    said(session)
    hear(session, ABORT(2, b"theirs"))
    assert said(session) == [BYE(0)]
    assert_over(session, LocalAbort, "mine")


def test_only_the_first_reason_counts() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "first", NOW)
    session.abort(Reason.INTERRUPTED, "second", NOW)
    assert said(session) == [ABORT(2, b"first")]


@pytest.mark.parametrize("linked", [False, True])
def test_an_abort_without_anybody_who_could_know_of_the_session_ends_it_at_once(
    linked: bool,
) -> None:
    session = make()
    if linked:
        attach(session, caller=False)
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    assert session.over is not linked
    assert isinstance(session.failure, LocalAbort)


CUT_SHORT = pytest.mark.parametrize(("cut_short", "failure"), [(False, None), (True, PipeClosed)])


def done(cut_short: bool) -> Session:
    """A done end; the peer has discarded some of its stream, or nothing."""
    session = up(b"abc")
    if cut_short:
        hear(session, STOP(0))  # before any of it was begun
    finish_both(session)
    return session


@CUT_SHORT
def test_a_done_end_that_is_told_to_abort_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    assert_over(session, failure)


@CUT_SHORT
def test_a_done_end_that_meets_an_abort_answers_it_and_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    hear(session, ABORT(3, b"interrupted"))
    assert session.failure is None
    assert said(session) == [ACK(1), BYE(0)]
    assert_over(session, failure)


@CUT_SHORT
def test_a_done_end_that_meets_an_abort_and_loses_the_link_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    hear(session, ABORT(3, b"interrupted"))
    session.detach(CUT, NOW)
    assert_over(session, failure)


def test_an_end_that_is_over_ignores_what_comes_later() -> None:
    session = done(cut_short=False)
    said(session)
    hear(session, BYE(0))
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    session.refused(Status.RANGE)
    session.attempt_failed(LinkLost("no answer"), NOW)
    session.fail(SessionEnded("a bug"))
    session.tick(NOW + 10_000)
    session.settle(NOW)
    assert_over(session, None)


def test_an_end_that_has_given_up_is_not_done_by_what_its_consumer_does_later() -> None:
    session = up()
    hear(session, FIN(0))
    session.fail(SessionEnded("gave up"))
    deliver_mark(session)
    assert not session.reader.done


def test_a_session_can_be_ended_by_what_nobody_foresaw() -> None:
    session = up()
    session.fail(SessionEnded("a bug"))
    assert_over(session, SessionEnded, "a bug")


# --- a caller's attempts ---


def numbered_session() -> Session:
    numbers = itertools.count(1)
    return Session(100, LIMITS, lambda: bytes([next(numbers)]) * 16)


def test_a_caller_opens_until_it_has_confirmed_and_resumes_from_then_on() -> None:
    session = numbered_session()
    nowhere, first = Position(0, 0, 100), bytes([1]) * 16
    assert session.hello() == Hello(Opening.OPEN, first, 1, nowhere)
    assert session.hello() == Hello(Opening.OPEN, first, 2, nowhere)
    session.confirming(b"")
    assert session.hello() == Hello(Opening.RESUME, first, 3, nowhere)


def test_a_session_has_an_id_of_16_bytes_that_nobody_else_has() -> None:
    ids = {Session(1).hello().session for _ in range(10)}
    assert len(ids) == 10
    assert {len(each) for each in ids} == {16}


def test_a_hello_tells_what_was_delivered_and_what_was_received() -> None:
    session = numbered_session()
    attach(session)
    hear(session, DATA(0, b"abc"))
    take(session, 2)
    assert session.hello().position == Position(2, 3, 100)


def test_a_caller_that_is_unknown_before_its_first_ready_opens_anew() -> None:
    session = numbered_session()
    session.hello()
    session.confirming(b"")
    session.hello()
    session.refused(Status.UNKNOWN)
    assert session.hello() == Hello(Opening.OPEN, bytes([2]) * 16, 1, Position(0, 0, 100))


def never_up(_: Session) -> None:
    """The first greeting is under way."""


def renewed(session: Session) -> None:
    """A CONFIRM was overtaken by the next greeting, and may arrive yet."""
    session.hello()
    session.confirming(b"")
    session.refused(Status.UNKNOWN)


def interrupted(session: Session) -> None:
    attach(session)
    said(session)
    session.detach(CUT, NOW)


def lacking_the_ack_of_the_mark(session: Session) -> None:
    attach(session)
    session.writer.finish()
    said(session)
    hear(session, ACK(3), FIN(0))
    deliver_mark(session)
    session.detach(CUT, NOW)


def all_done(session: Session) -> None:
    attach(session)
    finish_both(session)
    said(session)
    hear(session, PING(1), now=NOW + 0.001)
    session.detach(CUT, NOW)


def done_without_a_link(session: Session) -> None:
    """Its consumer was slow, and nobody knows yet that it has taken the last byte."""
    attach(session)
    session.writer.finish()
    said(session)
    hear(session, DATA(0, b"xyz"), FIN(3), ACK(session.writer.end))
    said(session)
    session.detach(CUT, NOW)
    take(session)
    deliver_mark(session)


def done_over_a_dead_link(session: Session) -> None:
    """What it said of that went into a path that was dead already."""
    attach(session)
    finish_both(session)
    said(session)
    session.detach(CUT, NOW)


def cut_short(session: Session) -> None:
    attach(session)
    hear(session, STOP(0))
    finish_both(session)
    said(session)
    hear(session, PING(1), now=NOW + 0.001)
    session.detach(CUT, NOW)


def aborted(session: Session) -> None:
    interrupted(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)


UNKNOWN, STALE, RANGE, BUSY = list(Status)[1:]


@pytest.mark.parametrize(
    ("status", "before", "failure", "text"),
    [
        (UNKNOWN, interrupted, SessionLost, "no longer knows this session; 0 bytes are confirmed"),
        (UNKNOWN, lacking_the_ack_of_the_mark, SessionLost, "all 3 bytes are, but not their end"),
        (UNKNOWN, all_done, None, ""),
        (UNKNOWN, cut_short, PipeClosed, "stopped reading"),
        (UNKNOWN, aborted, LocalAbort, "disk full"),
        (RANGE, never_up, NotConnected, "stands elsewhere"),
        (RANGE, interrupted, SessionLost, "stands elsewhere"),
        (RANGE, all_done, None, ""),
        (RANGE, cut_short, PipeClosed, "stopped reading"),
        (RANGE, aborted, LocalAbort, "disk full"),
        (BUSY, never_up, Busy, "serving another session"),
    ],
)
def test_a_refusal_that_ends_the_session(
    status: Status, before: Callable[[Session], None], failure: Failure, text: str
) -> None:
    session = make(b"abc")
    before(session)
    session.refused(status)
    assert_over(session, failure, text)


@pytest.mark.parametrize("status", [UNKNOWN, RANGE, BUSY])
def test_a_refusal_beside_a_link_means_nothing_as_long_as_there_is_one(status: Status) -> None:
    session = up()
    session.refused(status)
    assert not session.over
    session.detach(CUT, NOW)
    session.refused(status)
    assert session.over is (status is not BUSY)


@pytest.mark.parametrize(
    ("status", "before"),
    [
        (UNKNOWN, never_up),
        (STALE, never_up),
        (STALE, interrupted),
        (STALE, all_done),
        (STALE, aborted),
        (BUSY, renewed),
        (BUSY, interrupted),
        (BUSY, aborted),
    ],
)
def test_a_refusal_after_which_the_next_attempt_may_succeed(
    status: Status, before: Callable[[Session], None]
) -> None:
    session = make(b"abc")
    before(session)
    session.refused(status)
    assert not session.over


@pytest.mark.parametrize(
    ("before", "over", "failure"),
    [
        (never_up, False, None),
        (interrupted, False, None),
        (lacking_the_ack_of_the_mark, False, None),
        (aborted, False, LocalAbort),
        (all_done, True, None),
        (cut_short, True, PipeClosed),
    ],
)
def test_only_a_done_end_leaves_when_nobody_listens_any_more(
    before: Callable[[Session], None], over: bool, failure: Failure
) -> None:
    session = make(b"abc")
    before(session)
    session.attempt_failed(LinkLost("no answer"), NOW)
    assert not session.over
    session.attempt_failed(NobodyListens("connection refused"), NOW)
    assert session.over is over
    assert type(session.failure) is (failure or type(None))
    assert str(session.last_cause) == "connection refused"


def test_a_connect_timeout_of_zero_is_one_try() -> None:
    session = make(limits=LIMITS._replace(connect_timeout=0))
    session.calling(NOW)
    assert session.deadline() is None
    session.attempt_failed(LinkLost("connection refused"), NOW)
    assert_over(session, NotConnected, "connection refused")


def test_a_connect_timeout_of_zero_does_not_concern_a_session_that_was_up() -> None:
    session = up(limits=LIMITS._replace(connect_timeout=0))
    session.detach(CUT, NOW)
    session.attempt_failed(LinkLost("connection refused"), NOW)
    assert not session.over


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
    session.tick(NOW + 0.01)
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
    assert session.aborting
    assert said(session)[-1] == ABORT(Reason.BROKEN_PIPE, b"head has gone")
    assert isinstance(session.failure, PipeClosed)


def test_a_consumer_that_has_taken_everything_may_leave_and_the_other_direction_goes_on() -> None:
    session = left()
    hear(session, FIN(3))
    assert session.reader.done
    assert said(session) == [ACK(4)]
    write(session, b"z")
    assert said(session) == [DATA(2, b"z")]
    session.writer.finish()
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
    feed(session, frame[:-3], NOW)
    take(session)
    session.consumer_gone("head has gone", NOW)
    assert not session.aborting
    feed(session, frame[-3:], NOW)
    assert session.aborting
    assert ACK(3) in said(session)


def test_a_consumer_that_leaves_after_the_end_mark_came_has_everything() -> None:
    session = up()
    hear(session, DATA(0, b"abc"), FIN(3))
    take(session)
    session.consumer_gone("head has gone", NOW)
    assert session.reader.done
    assert not session.aborting


def test_that_a_consumer_has_gone_is_said_on_each_link() -> None:
    session = left()
    next_link(session, 2)
    assert said(session) == [GONE(3), ACK(3)]
    hear(session, FIN(3))
    assert session.reader.done


def test_an_end_that_only_asks_and_is_not_answered_says_so() -> None:
    session = left()
    session.writer.finish()
    said(session)
    hear(session, ACK(3))
    session.detach(CUT, NOW)
    assert session.deadline() == NOW + 20
    session.tick(NOW + 20)
    assert_over(session, PipeClosed, "head has gone; the other end did not answer: end it, too")


def test_a_producer_is_waited_for_two_seconds_when_the_far_consumer_has_gone() -> None:
    session = up(b"abc")
    hear(session, GONE(3))
    assert session.writer.confirmed == 3
    session.tick(NOW + 1.9)
    assert said(session) == [ACK(0)]  # a sign of life
    assert session.deadline() == NOW + QUESTION == NOW + 2
    session.tick(NOW + 2)
    assert CUT_OFF(3) in said(session)
    assert not session.writer.asked


def test_a_question_that_is_asked_again_has_the_time_of_the_first() -> None:
    session = up(b"abc")
    hear(session, GONE(3))
    session.detach(CUT, NOW + 1)
    assert session.deadline() == NOW + 2
    attach(session, 3, now=NOW + 1)
    hear(session, GONE(3), now=NOW + 1)
    session.tick(NOW + 2)
    assert said(session)[-1] == CUT_OFF(3)


@pytest.mark.parametrize("how", ["ends", "has more", "had more"])
def test_what_a_producer_does_after_the_far_consumer_has_gone(how: str) -> None:
    session = up(b"abc")
    if how == "had more":
        session.writer.window = 3
        write(session, b"d")
    session.writer.producing = True
    hear(session, GONE(3))
    if how == "has more":
        write(session, b"d")
        session.settle(NOW)
    elif how == "ends":
        session.writer.finish()
    assert said(session) == [FIN(3) if how == "ends" else CUT_OFF(3)]
    assert session.writer.cut_short is (how != "ends")


# --- how long an end waits ---


@pytest.mark.parametrize("cause", ["", "connection refused"])
def test_a_caller_gives_up_when_nobody_answers_in_time(cause: str) -> None:
    session = make()
    session.calling(NOW)
    session.calling(NOW + 20)
    if cause:
        session.attempt_failed(LinkLost(cause, "refused"), NOW)
    assert session.deadline() == NOW + 30
    session.tick(NOW + 29.9)
    assert not session.over
    session.tick(NOW + 30)
    assert_over(session, NotConnected, cause or "nobody answered")
    assert session.failure is not None
    assert session.failure.code == ("refused" if cause else "not-connected")


def test_an_answerer_waits_for_ever_for_a_caller_that_was_never_heard() -> None:
    session = make()
    attach(session, caller=False)
    session.detach(CUT, NOW)
    assert session.deadline() is None
    session.tick(NOW + 1e9)
    assert not session.over


@pytest.mark.parametrize(
    ("before", "seconds", "failure", "text"),
    [
        (
            interrupted,
            1000,
            SessionLost,
            "without a connection: cut; 0 bytes are confirmed, 3 more",
        ),
        (lacking_the_ack_of_the_mark, 200, SessionLost, "delivery not confirmed: all 3 bytes are"),
        (all_done, 20, None, ""),
        (done_without_a_link, 200, None, ""),
        (done_over_a_dead_link, 200, None, ""),
        (cut_short, 20, PipeClosed, "stopped reading"),
        (aborted, 20, LocalAbort, "disk full; the other end did not answer: end it, too"),
    ],
)
def test_an_end_without_a_link_leaves_after(
    before: Callable[[Session], None], seconds: float, failure: Failure, text: str
) -> None:
    session = make(b"abc")
    before(session)
    assert session.deadline() == NOW + seconds
    session.tick(NOW + seconds - 0.1)
    assert not session.over
    session.tick(NOW + seconds)
    assert_over(session, failure, text)


def test_an_end_that_lacks_more_than_the_ack_of_its_mark_waits_like_any_other() -> None:
    session = make(b"abc")
    attach(session)
    session.writer.finish()
    said(session)
    hear(session, ACK(3))
    session.detach(CUT, NOW)
    assert session.deadline() == NOW + 1000


def test_the_bytes_that_are_confirmed_and_those_that_are_not_are_told() -> None:
    session = up(b"abcdef")
    hear(session, ACK(4))
    session.detach(CUT, NOW)
    session.tick(NOW + 1000)
    assert_over(session, SessionLost, "4 bytes are confirmed, 2 more are not")


def test_a_limit_that_expired_during_sleep_allows_ten_seconds_more() -> None:
    session = up()
    session.detach(CUT, NOW)
    session.tick(NOW + 5000)
    assert not session.over
    assert session.deadline() == NOW + 5010
    session.tick(NOW + 5010)
    assert_over(session, SessionLost, "gave up after 5010 s")


# --- outages ---


def test_an_attached_link_alone_does_not_end_an_outage() -> None:
    session = up(b"abc")
    session.detach(CUT, NOW)
    attach(session, now=NOW + 500)
    session.detach(CUT, NOW + 501)
    assert session.outage_since == NOW
    assert session.deadline() == NOW + 1000


def test_the_time_away_counts_from_the_last_byte_that_was_heard() -> None:
    session = up(b"abc")
    assert session.away(NOW) is None
    hear(session, PING(1), now=NOW + 1)
    assert session.away(NOW + 1) is None
    session.detach(CUT, NOW + 7)
    assert session.away(NOW + 8) == 7
    attach(session, now=NOW + 9)
    assert session.away(NOW + 100) == 8
    session.detach(CUT, NOW + 101)  # the greeting was heard, too
    assert session.away(NOW + 102) == 93


@pytest.mark.parametrize("progress", [ACK(1), DATA(0, b"x"), FIN(0)])
def test_an_outage_ends_when_something_moves(progress: Frame) -> None:
    session = up(b"abc")
    next_link(session)
    hear(session, progress)
    assert session.outage_since is None


@pytest.mark.parametrize("received", [0, 3])
def test_with_something_to_send_or_to_acknowledge_a_frame_that_moves_nothing_is_not_enough(
    received: int,
) -> None:
    session = up(b"abc")
    next_link(session, received)
    hear(session, ACK(0), PING(1))
    assert session.outage_since == NOW


def test_with_nothing_to_move_the_first_frame_ends_the_outage() -> None:
    session = up(b"abc")
    hear(session, ACK(3))
    next_link(session, received=3)
    assert session.outage_since == NOW
    hear(session, ACK(3))
    assert session.outage_since is None


def test_an_answer_to_a_ping_ends_the_outage() -> None:
    session = up(b"abc")
    next_link(session)
    said(session)
    session.tick(NOW + 2)
    assert PING(1) in said(session, NOW + 2)
    hear(session, PONG(1), now=NOW + 2)
    assert session.outage_since is None


# --- chunks ---


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """What a peer may say, and some of what it may not."""
    said, offset = b"", 0
    for kind in draw(st.lists(st.sampled_from([*[Kind.DATA] * 4, *list(Kind)[:8]]), max_size=8)):
        payload = b""
        number = draw(st.sampled_from([offset, offset, offset, 0, 3, 7, 2**64 - 1]))
        if kind is Kind.DATA:
            payload = draw(st.binary(min_size=1, max_size=20))
            offset += len(payload)
        elif kind is Kind.ABORT:
            payload = draw(st.binary(max_size=20))
        said += Frame(kind, number, payload).encode()
    return said + draw(st.sampled_from([b"", JUNK, b"x"]))


def outcome(data: bytes, steps: list[int]) -> list[object]:
    """What a session that hears this in such pieces has become, and what it says then."""
    session = up(b"abcdef", buffer_size=60)
    session.writer.finish()
    said(session)
    error = None
    try:
        for step in itertools.cycle(steps):
            if not data:
                break
            feed(session, data[:step], NOW)
            data = data[step:]
    except ProtocolError as problem:
        error = str(problem)
    reader, writer = session.reader, session.writer
    return [
        error,
        (reader.received, reader.delivered, reader.mark, take(session)),
        (writer.acked, writer.sent, writer.mark, writer.stopped),
        (session.over, str(session.failure), session.established),
        said(session),
    ]


@given(conversations(), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_the_pieces_in_which_bytes_arrive_do_not_change_what_comes_of_them(
    data: bytes, steps: list[int]
) -> None:
    assert outcome(data, steps) == outcome(data, [EVERYTHING])


@given(st.binary(max_size=200))
def test_any_bytes_are_progress_or_a_protocol_error(data: bytes) -> None:
    session = up()
    try:
        feed(session, data, NOW)
    except ProtocolError:
        pass
    assert session.incoming()
