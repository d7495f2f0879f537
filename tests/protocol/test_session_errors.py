from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.errors import (
    LocalAbort,
    ProtocolError,
)
from bpipe.protocol.ending import Phase
from bpipe.protocol.session import FRUITLESS_LINKS, Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    Kind,
)
from tests.support.loopback import EVERYTHING, Frame, feed, take
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    NOW,
    assert_over,
    attach,
    channel,
    hear,
    lose,
    make,
    said,
    tick,
    up,
)

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
        feed(channel(session), data, NOW)
    assert session.position[:2] == (0, 0)
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
    feed(channel(session), before, NOW)
    with pytest.raises(ProtocolError, match="unknown kind") as error:
        feed(channel(session), JUNK, NOW)
    lose(session, error.value)


def test_a_session_survives_two_fruitless_links_and_not_the_third() -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
        assert session.failure is None
    break_protocol(session)
    assert session.phase is Phase.ABORTING
    attach(session)
    assert said(session) == [ACK(0), ABORT(4, b"protocol error: a frame of an unknown kind")]
    tick(session, NOW + 2)
    assert_over(session, LocalAbort, "protocol error: a frame of an unknown kind")


@pytest.mark.parametrize("progress", [DATA(0, b"x").encode(), FIN(0).encode()])
def test_progress_on_a_link_forgives_the_fruitless_ones_before_it(progress: bytes) -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
    break_protocol(session, before=progress)
    for _ in range(FRUITLESS_LINKS - 1):
        break_protocol(session)
        assert session.failure is None
    break_protocol(session)
    assert session.phase is Phase.ABORTING


def test_progress_counts_although_junk_came_in_the_same_piece() -> None:
    session = make()
    for _ in range(FRUITLESS_LINKS):
        attach(session)
        with pytest.raises(ProtocolError) as error:
            feed(channel(session), DATA(session.reader.received, b"x").encode() + JUNK, NOW)
        lose(session, error.value)
    assert session.reader.received == FRUITLESS_LINKS
    assert session.phase is Phase.UP


def test_an_ack_that_moved_is_progress_and_one_that_did_not_is_none() -> None:
    session = make(b"abc")
    attach(session)
    said(session)
    lose(session)
    for number in (0, 1, 1):
        break_protocol(session, before=ACK(number).encode())
    break_protocol(session, before=ACK(1).encode())
    assert session.failure is None
    break_protocol(session, before=ACK(1).encode())
    assert session.phase is Phase.ABORTING


def test_links_that_the_network_takes_never_end_a_session() -> None:
    session = make()
    for _ in range(10 * FRUITLESS_LINKS):
        attach(session)
        lose(session)
    assert session.phase is Phase.UP


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
    session.finish()
    said(session)
    error = None
    try:
        for step in itertools.cycle(steps):
            if not data:
                break
            feed(channel(session), data[:step], NOW)
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
        feed(channel(session), data, NOW)
    except ProtocolError:
        pass
    assert channel(session).incoming()
