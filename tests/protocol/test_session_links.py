from __future__ import annotations

import pytest

from bpipe.errors import (
    LinkLost,
    ProtocolError,
)
from bpipe.protocol.ending import Phase
from bpipe.protocol.wire import (
    HEADER_SIZE,
)
from tests.support.loopback import Frame, decode, drain, feed, take
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    CUT,
    DATA,
    FIN,
    NOW,
    PING,
    PONG,
    STOP,
    attach,
    channel,
    deadline,
    finish_both,
    hear,
    lose,
    make,
    next_link,
    said,
    tick,
    up,
)

# --- a link begins and ends ---


def test_the_first_frame_on_each_link_is_an_ack_although_nothing_has_moved() -> None:
    session = make()
    for _ in range(3):
        attach(session)
        assert said(session) == [ACK(0)]
        assert said(session) == []
        lose(session)


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
    tick(session, NOW + 2)
    frames = [PONG(7), STOP(0), ACK(0), PING(1), DATA(0, b"abc")]
    assert said(session, NOW + 2) == frames


def test_a_link_carries_on_from_what_the_peer_has_received() -> None:
    session = up(b"abcdef")
    next_link(session, received=4)
    assert said(session) == [ACK(0), DATA(4, b"ef")]
    assert (session.history.links, session.history.replayed) == (2, 2)


def test_the_end_mark_is_replayed_and_acknowledged_like_a_byte() -> None:
    session = up(b"abc")
    session.finish()
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
    feed(channel(session), b"\xff" * size, NOW)
    next_link(session)
    hear(session, DATA(0, b"abc"))
    assert take(session) == b"abc"


def test_half_a_payload_is_kept_and_the_next_link_brings_the_rest() -> None:
    session = up()
    feed(channel(session), DATA(0, b"abcdef").encode()[:-2], NOW)
    assert session.position[:2] == (0, 4)
    next_link(session)
    hear(session, DATA(4, b"ef"))
    assert take(session) == b"abcdef"


def test_half_a_message_on_one_link_does_not_leak_into_the_next() -> None:
    session = up()
    feed(channel(session), ABORT(1, b"broken").encode()[:-2], NOW)
    next_link(session)
    hear(session, DATA(0, b"ab"))
    assert session.phase is Phase.UP
    assert take(session) == b"ab"


@pytest.mark.parametrize("size", [1, HEADER_SIZE, HEADER_SIZE + 3])
def test_a_frame_that_was_half_said_is_said_anew_on_the_next_link(size: int) -> None:
    session = make(b"abcdef")
    attach(session)
    drain(channel(session), NOW, limit=HEADER_SIZE + size)
    next_link(session)
    assert said(session) == [ACK(0), DATA(0, b"abcdef")]


def test_a_frame_that_has_begun_is_finished_whatever_is_heard_meanwhile() -> None:
    session = make(b"abcdef")
    attach(session)
    begun = drain(channel(session), NOW, limit=2 * HEADER_SIZE + 1)
    hear(session, STOP(0), PING(7), ABORT(1))
    assert decode(begun + drain(channel(session), NOW)) == [
        ACK(0),
        DATA(0, b"abcdef"),
        PONG(7),
        BYE(0),
    ]


def test_losing_a_link_again_means_nothing() -> None:
    session = up(b"abc")
    link = channel(session)
    link.detach(CUT, NOW)
    link.detach(LinkLost("again"), NOW + 5)
    assert not session.attached
    assert str(session.history.last_cause) == "cut"
    assert session.patience.outage_since == NOW


def test_what_happens_is_told_to_the_trace() -> None:
    events = []
    session = make(b"abc")
    session.trace_to(lambda sign, text: events.append((sign, text)))
    attach(session)
    said(session)
    hear(session, DATA(0, b"hello"), ACK(1))
    lose(session)
    attach(session)
    lose(session, ProtocolError("nonsense"))
    assert [event for event in events if "attached" not in event[1]] == [
        (">", "ACK 0"),
        (">", "DATA 0 +3"),
        ("<", "DATA 0 +5"),
        ("<", "ACK 1"),
        ("=", "detached: cut"),
        ("!", "detached: nonsense"),
    ]


# --- outages ---


def test_an_attached_link_alone_does_not_end_an_outage() -> None:
    session = up(b"abc")
    lose(session)
    attach(session, now=NOW + 500)
    lose(session, now=NOW + 501)
    assert session.patience.outage_since == NOW
    assert deadline(session) == NOW + 1000


@pytest.mark.parametrize("progress", [ACK(1), DATA(0, b"x"), FIN(0)])
def test_an_outage_ends_when_something_moves(progress: Frame) -> None:
    session = up(b"abc")
    next_link(session)
    hear(session, progress)
    assert session.patience.outage_since is None


@pytest.mark.parametrize("received", [0, 3])
def test_with_something_to_send_or_to_acknowledge_a_frame_that_moves_nothing_is_not_enough(
    received: int,
) -> None:
    session = up(b"abc")
    next_link(session, received)
    hear(session, ACK(0), PING(1))
    assert session.patience.outage_since == NOW


def test_with_nothing_to_move_the_first_frame_ends_the_outage() -> None:
    session = up(b"abc")
    hear(session, ACK(3))
    next_link(session, received=3)
    assert session.patience.outage_since == NOW
    hear(session, ACK(3))
    assert session.patience.outage_since is None


def test_an_answer_to_a_ping_ends_the_outage() -> None:
    session = up(b"abc")
    next_link(session)
    said(session)
    tick(session, NOW + 2)
    assert PING(1) in said(session, NOW + 2)
    hear(session, PONG(1), now=NOW + 2)
    assert session.patience.outage_since is None
