from __future__ import annotations

import pytest

from bpipe.errors import (
    LinkLost,
)
from bpipe.protocol.wire import (
    Position,
)
from tests.support.loopback import Frame, take
from tests.support.peer import (
    ACK,
    DATA,
    FIN,
    NOW,
    PING,
    PONG,
    attach,
    channel,
    deadline,
    deliver_mark,
    hear,
    make,
    next_link,
    said,
    tick,
    up,
)

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
    assert deadline(session) == NOW + 0.010
    tick(session, NOW + 0.010)
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
    tick(session, NOW + 1)
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
    assert deadline(session) == NOW + 2
    tick(session, NOW + 2)
    assert said(session, NOW + 2) == [PING(1)]
    hear(session, PONG(1), now=NOW + 2.5)
    assert channel(session).liveness.round_trip == 0.5
    next_link(session, now=NOW + 3)
    assert channel(session).liveness.round_trip is None


def test_a_ping_is_answered_at_once_and_of_several_the_last() -> None:
    session = up()
    hear(session, PING(7))
    assert said(session) == [PONG(7)]
    hear(session, PING(8), PING(2**64 - 1))
    assert said(session) == [PONG(2**64 - 1)]
    assert said(session) == []


def test_a_link_is_dead_after_three_silent_heartbeats() -> None:
    session = up()
    tick(session, NOW + 5.9)
    with pytest.raises(LinkLost, match="nothing was heard"):
        tick(session, NOW + 6)
