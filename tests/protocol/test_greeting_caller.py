from __future__ import annotations

import math

import pytest

from bpipe.errors import Busy, LinkLost, NotConnected, ProtocolError, SessionEnded
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import GREETING_TIMEOUT, CallerGreeting
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    VERDICT_SIZE,
    Admission,
    Kind,
    Position,
    Verdict,
    pack_frame,
    pack_verdict,
    unpack_hello,
)
from tests.support.answering import ID, START, opening, resuming
from tests.support.loopback import (
    Frame,
    drain,
    feed,
    state,
    take,
    write,
)
from tests.support.peer import NOW, hear, lose, said

CONFIRM = pack_frame(Kind.CONFIRM, 0)
OK, UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = Admission


def calling(written: bytes = b"") -> Caller:
    """Who calls for a session in which so much is written."""
    session = Session(100)
    write(session, written)
    return Caller(session, lambda: ID)


def verdict(admission: Admission = OK, position: Position = START) -> bytes:
    return pack_verdict(Verdict(admission, position))


def ready(received: int) -> bytes:
    return pack_frame(Kind.READY, received)


def call(caller: Caller) -> CallerGreeting:
    """A fresh link, on which the caller has said its first message."""
    greeting = CallerGreeting(caller, NOW)
    drain(greeting, NOW)
    return greeting


def test_a_caller_says_hello_and_then_waits() -> None:
    greeting = CallerGreeting(calling(b"abc"), NOW)
    assert unpack_hello(bytearray(drain(greeting, NOW))) == opening()
    assert greeting.outgoing(NOW) == []
    assert sum(map(len, greeting.incoming())) == VERDICT_SIZE


def test_a_caller_confirms_and_says_nothing_more_until_ready() -> None:
    caller = calling(b"abc")
    greeting = call(caller)
    feed(greeting, verdict(), NOW)
    assert drain(greeting, NOW) == CONFIRM
    assert not greeting.done
    assert not greeting.finished
    assert not caller.session.attached
    feed(greeting, ready(0), NOW)
    assert greeting.done
    assert greeting.channel is not None
    assert caller.session.attached
    assert said(caller.session) == [Frame(Kind.ACK, 0), Frame(Kind.DATA, 0, b"abc")]


def test_a_caller_carries_on_from_the_number_in_ready_and_not_from_that_in_the_verdict() -> None:
    caller = calling(b"abcdef")
    for received in (0, 4):
        greeting = call(caller)
        feed(greeting, verdict(position=Position(0, 0, 100)) + ready(received), NOW)
        frames = said(caller.session)
        lose(caller.session)
    assert frames == [Frame(Kind.ACK, 0), Frame(Kind.DATA, 4, b"ef")]


def test_a_caller_resumes_when_its_confirm_may_have_arrived() -> None:
    caller = calling()
    feed(call(caller), verdict(), NOW)
    hello = unpack_hello(bytearray(drain(CallerGreeting(caller, NOW), NOW)))
    assert hello == resuming(2)


def test_a_caller_opens_again_when_it_has_not_confirmed() -> None:
    caller = calling()
    feed(call(caller), verdict()[:-1], NOW)
    hello = unpack_hello(bytearray(drain(CallerGreeting(caller, NOW), NOW)))
    assert hello == opening()._replace(epoch=2)


@pytest.mark.parametrize(
    ("admission", "why", "failure"),
    [
        (UNKNOWN, "does not know this session", None),
        (STALE, "has seen a later greeting", None),
        (RANGE, "stands at another place", NotConnected),
        (BUSY, "is busy", Busy),
        (VERSION, "speaks another version", NotConnected),
        (FULL, "no more callers for now", None),
    ],
)
def test_a_refusal_ends_the_link_and_the_session_decides(
    admission: Admission, why: str, failure: type[SessionEnded] | None
) -> None:
    caller = calling()
    greeting = call(caller)
    with pytest.raises(LinkLost, match=why):
        feed(greeting, verdict(admission), NOW)
    assert type(caller.session.failure) is (failure or type(None))
    assert drain(greeting, NOW) == b""


@pytest.mark.parametrize(
    "message",
    [
        verdict(position=Position(0, 1, 100)),
        verdict(position=Position(0, 0, 0)),
        verdict(position=Position(0, 0, 1, links=0)),
        verdict(position=Position(0, 0, 1, links=9)),
        verdict() + ready(1),
        verdict() + pack_frame(Kind.CONFIRM, 0),
        verdict() + pack_frame(Kind.ACK, 0),
        b"\0" + verdict()[1:],
    ],
)
def test_an_answer_that_cannot_be_is_a_protocol_error(message: bytes) -> None:
    caller = calling(b"abc")
    with pytest.raises(ProtocolError):
        feed(call(caller), message, NOW)
    assert not caller.session.attached


@pytest.mark.parametrize("heard", [0, VERDICT_SIZE, VERDICT_SIZE + HEADER_SIZE - 1])
def test_a_session_that_ends_during_its_greeting_is_not_attached(heard: int) -> None:
    caller = calling(b"abc")
    greeting = call(caller)
    answer = verdict() + ready(0)
    feed(greeting, answer[:heard], NOW)
    caller.session.leave(NotConnected("nobody answered"))
    with pytest.raises(LinkLost, match="the session is over"):
        feed(greeting, answer[heard:], NOW)
    assert caller.session.history.links == 0


def test_a_caller_asks_before_it_makes_anything_of_a_verdict() -> None:
    caller, asked = calling(), list[bool]()

    def forbid(accepted: bool) -> None:
        asked.append(accepted)
        raise LinkLost("another was answered")

    greeting = CallerGreeting(caller, NOW, forbid)
    drain(greeting, NOW)
    was = state(caller.session)
    with pytest.raises(LinkLost, match="another was answered"):
        feed(greeting, verdict(), NOW)
    assert asked == [True]
    assert drain(greeting, NOW) == b""
    assert state(caller.session) == was


def test_what_a_caller_has_stated_has_to_be_so_when_it_confirms() -> None:
    caller = calling()
    feed(call(caller), verdict() + ready(0), NOW)
    greeting = call(caller)  # beside a link that is in doubt
    hear(caller.session, Frame(Kind.DATA, 0, b"x"))
    lose(caller.session)
    with pytest.raises(LinkLost, match="moved on"):
        feed(greeting, verdict(), NOW)
    assert drain(greeting, NOW) == b""


def test_a_refusal_of_what_was_stated_before_an_ack_means_nothing() -> None:
    """The old link was heard again, and went on: to the listener that M1 has become wrong."""
    caller = calling()
    feed(call(caller), verdict() + ready(0), NOW)
    hear(caller.session, Frame(Kind.DATA, 0, b"abc"))
    greeting = call(caller)  # beside a link that is in doubt
    take(caller.session)
    assert said(caller.session, NOW + 1)[0] == Frame(Kind.ACK, 3)
    lose(caller.session)
    with pytest.raises(LinkLost, match="moved on"):
        feed(greeting, verdict(RANGE), NOW)
    assert not caller.session.over


def test_a_caller_gives_up_a_greeting_that_is_not_answered() -> None:
    greeting = call(calling())
    assert greeting.deadline() == NOW + GREETING_TIMEOUT
    greeting.tick(NOW + GREETING_TIMEOUT - 0.1)
    with pytest.raises(LinkLost, match="no answer to the greeting"):
        greeting.tick(NOW + GREETING_TIMEOUT)


def test_a_verdict_does_not_prolong_a_greeting() -> None:
    greeting = call(calling())
    feed(greeting, verdict(), NOW + 4)
    assert greeting.answered
    with pytest.raises(LinkLost, match="no answer to the greeting"):
        greeting.tick(NOW + GREETING_TIMEOUT)


def test_who_may_be_asked_for_a_password_first_has_another_limit() -> None:
    for patience in (10.0, math.inf):
        greeting = CallerGreeting(calling(), NOW, patience=patience)
        greeting.tick(NOW + GREETING_TIMEOUT)
        assert greeting.deadline() == NOW + patience
