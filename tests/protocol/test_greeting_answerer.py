from __future__ import annotations

import pytest

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.greeting import GREETING_TIMEOUT, AnswererGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import (
    HEADER_SIZE,
    NOWHERE,
    Admission,
    Kind,
    Verdict,
    pack_frame,
    pack_hello,
    pack_verdict,
    unpack_verdict,
)
from tests.support.answering import ID, OTHER, Listener, opening, resuming
from tests.support.loopback import (
    SECRET,
    Frame,
    decode,
    drain,
    feed,
    plain_and_sealed,
    state,
)
from tests.support.peer import NOW, channel, lose, said

CONFIRM = pack_frame(Kind.CONFIRM, 0)
OK, UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = Admission


@plain_and_sealed
def test_nothing_changes_before_the_caller_has_confirmed(secret: Secret | None) -> None:
    listener = Listener(secret=secret)
    was = state(listener.session)
    greeting, caller = listener.greet(opening())
    caller.read(drain(greeting, NOW))
    feed(greeting, caller.confirm[:-1], NOW)
    assert state(listener.session) == was
    feed(greeting, caller.confirm[-1:], NOW)
    assert listener.session.id == ID
    assert listener.session.attached


def test_ready_states_what_the_old_link_has_brought_until_it_was_closed() -> None:
    session = Session(100)
    frame = Frame(Kind.DATA, 0, b"abcdef").encode()

    def drop_link(_: Session) -> None:
        if session.attached:
            feed(channel(session), frame[-2:], NOW)
            lose(session)

    table = Sessions(drop_link)
    table.add(session)
    old, new = AnswererGreeting(table, NOW), AnswererGreeting(table, NOW)
    feed(old, pack_hello(opening()) + CONFIRM, NOW)
    feed(channel(session), frame[:-2], NOW)
    feed(new, pack_hello(resuming(2)), NOW)
    assert unpack_verdict(bytearray(drain(new, NOW))).position.received == 4
    feed(new, CONFIRM, NOW)
    assert decode(drain(new, NOW)) == [Frame(Kind.READY, 6)]


@plain_and_sealed
def test_the_greeting_is_done_when_ready_is_written(secret: Secret | None) -> None:
    greeting, caller = Listener(secret=secret).greet(opening())
    caller.read(drain(greeting, NOW))
    feed(greeting, caller.confirm, NOW)
    assert (greeting.channel is not None, greeting.done) == (True, False)
    drain(greeting, NOW, limit=HEADER_SIZE - 1)
    assert not greeting.done
    drain(greeting, NOW)
    assert greeting.done


def test_a_session_that_ends_with_its_old_link_is_not_attached_to_the_new_one() -> None:
    listener = Listener()
    listener.admit(opening())
    greeting, _ = listener.greet(resuming(2))
    drain(greeting, NOW)
    feed(listener.channel, Frame(Kind.ABORT, 2).encode(), NOW)
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(greeting, CONFIRM, NOW)
    assert listener.session.over
    assert not listener.session.attached


def test_an_answerer_says_nothing_of_its_stream_before_it_has_heard_a_frame() -> None:
    """Links may lose one direction alone: who has taken bytes of it must not be given up."""
    listener = Listener(b"abc")
    listener.session.finish()
    listener.admit(opening())
    assert said(listener.session) == [Frame(Kind.ACK, 0)]
    with pytest.raises(ProtocolError):
        feed(listener.channel, Frame(Kind.ACK, 1).encode(), NOW)
    assert drain(listener.channel, NOW) == b""
    assert listener.session.writer.high == 0
    feed(listener.channel, Frame(Kind.ACK, 0).encode(), NOW)
    kinds = [frame.kind for frame in said(listener.session)]
    assert kinds == [Kind.DATA, Kind.FIN]


def test_a_caller_that_opens_without_confirming_takes_nothing_from_the_next() -> None:
    listener = Listener(b"abc")
    drain(listener.greet(opening(OTHER))[0], NOW)
    listener.admit(opening())
    assert listener.session.id == ID


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"G", "does not speak bpipe"),
        (b"bpip\2\1\1\0", "does not speak version 1"),
        (b"bpip\1\1\1", "uses a secret"),
        (b"bpip\1\3", "malformed"),
        (pack_hello(opening()).replace(b"\1\1\0\0", b"\1\1\0\1"), "malformed"),
    ],
)
def test_junk_is_noticed_at_its_first_wrong_byte(data: bytes, why: str) -> None:
    greeting = Listener().knock()
    with pytest.raises(ProtocolError, match=why):
        feed(greeting, data, NOW)
    assert drain(greeting, NOW) == b""


@pytest.mark.parametrize(
    "message",
    [pack_frame(Kind.CONFIRM, 1), pack_frame(Kind.READY, 0), pack_frame(Kind.ACK, 0), bytes(16)],
)
def test_anything_but_confirm_is_a_protocol_error(message: bytes) -> None:
    listener = Listener()
    greeting, _ = listener.greet(opening())
    drain(greeting, NOW)
    with pytest.raises(ProtocolError):
        feed(greeting, message, NOW)
    assert not listener.session.attached


def test_whoever_calls_and_says_nothing_is_given_up() -> None:
    greeting = Listener().knock()
    assert greeting.deadline() == NOW + GREETING_TIMEOUT
    greeting.tick(NOW + GREETING_TIMEOUT - 0.1)
    with pytest.raises(LinkLost, match="no answer to the greeting") as caught:
        greeting.tick(NOW + GREETING_TIMEOUT)
    assert caught.value.code == "silent"


def test_a_caller_that_is_refused_is_told_so_and_nothing_of_the_session() -> None:
    listener = Listener()
    listener.serve()
    greeting, caller = listener.greet(opening(OTHER))
    assert greeting.session is None
    assert caller.read(drain(greeting, NOW)) == Verdict(BUSY, NOWHERE)
    assert greeting.finished
    assert not any(greeting.incoming())


@plain_and_sealed
def test_who_finds_another_there_is_told_how_long_that_one_was_not_heard(
    secret: Secret | None,
) -> None:
    listener = Listener(secret=secret)
    listener.serve()
    greeting, caller = listener.greet(opening(OTHER), NOW + 7.9)
    assert caller.read(drain(greeting, NOW)) == Verdict(BUSY, NOWHERE._replace(received=7))


@pytest.mark.parametrize("rest", [b"", bytes(56), bytes(200)])
def test_another_version_is_told_that_this_end_does_not_speak_it(rest: bytes) -> None:
    greeting = Listener().knock()
    room = sum(map(len, greeting.incoming()))
    feed(greeting, (b"bpip\2\7\0\0" + rest)[:room], NOW)
    assert greeting.finished
    assert drain(greeting, NOW) == pack_verdict(Verdict(VERSION, NOWHERE))
    assert not any(greeting.incoming())


def test_another_version_is_told_nothing_by_who_has_a_secret() -> None:
    greeting = Listener(secret=SECRET).knock()
    with pytest.raises(ProtocolError, match="does not speak version 1"):
        feed(greeting, b"bpip\2\7\0\0", NOW)
    assert drain(greeting, NOW) == b""
