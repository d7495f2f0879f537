from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.errors import Busy, LinkLost, NotConnected, ProtocolError, SessionEnded
from bpipe.protocol.greeting import Answerer, AnswererGreeting, CallerGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    VERDICT_SIZE,
    Hello,
    Kind,
    Opening,
    Position,
    Status,
    Verdict,
    pack_frame,
    pack_hello,
    pack_verdict,
    unpack_hello,
    unpack_verdict,
)
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SIDES,
    Frame,
    Link,
    Pair,
    Stranger,
    decode,
    drain,
    feed,
    plain_and_sealed,
    state,
    take,
    write,
)

NOW = 100.0
ID, OTHER = b"a" * 16, b"b" * 16
START = Position(0, 0, 100)
CONFIRM = pack_frame(Kind.CONFIRM, 0)
CUT = LinkLost("cut")
OK, UNKNOWN, STALE, RANGE, BUSY = Status


def opening(session: bytes = ID, position: Position = START) -> Hello:
    return Hello(Opening.OPEN, session, 1, position)


def resuming(epoch: int, position: Position = START, session: bytes = ID) -> Hello:
    return Hello(Opening.RESUME, session, epoch, position)


class Listener:
    """A listener's session and what it decides; it drops its link when it is told to."""

    def __init__(self, written: bytes = b"", secret: Secret | None = None) -> None:
        self.session = Session(100, secret=secret)
        write(self.session, written)
        self.drops = 0
        self.answerer = Answerer(self.session, self._drop_link)

    def _drop_link(self) -> None:
        self.drops += 1
        self.session.detach(LinkLost("the peer has come back"), NOW)

    def greet(self, hello: Hello) -> tuple[AnswererGreeting, Stranger]:
        """A fresh link, and who calls; the first message has come."""
        resume_secret = self.session.resume_secret if hello.opening is Opening.RESUME else b""
        caller = Stranger(hello, self.session.secret, resume_secret)
        greeting = AnswererGreeting(self.answerer)
        feed(greeting, caller.hello, NOW)
        return greeting, caller

    def admit(self, hello: Hello) -> Stranger:
        """A greeting that succeeds."""
        greeting, caller = self.greet(hello)
        assert caller.read(drain(greeting, NOW)).status is OK
        feed(greeting, caller.confirm, NOW)
        drain(greeting, NOW)
        assert greeting.done
        return caller

    def serve(self, epoch: int = 1) -> None:
        """Be in a session whose caller was heard, and which has lost its link."""
        caller = self.admit(opening()._replace(epoch=epoch))
        feed(self.session, caller.frames.pack(Kind.ACK, 0), NOW)
        self.session.detach(CUT, NOW)


# --- the answerer judges ---


def fresh(_: Listener) -> None:
    """Nobody has called."""


def attached_unheard(listener: Listener) -> None:
    listener.admit(opening())


def lost_unheard(listener: Listener) -> None:
    listener.admit(opening())
    listener.session.detach(CUT, NOW)


def serving(listener: Listener) -> None:
    listener.serve(epoch=5)


def attached(listener: Listener) -> None:
    listener.serve(epoch=4)
    listener.admit(resuming(5))


def ended(listener: Listener) -> None:
    listener.serve(epoch=5)
    listener.session.fail(SessionEnded("a bug"))


def ended_unheard(listener: Listener) -> None:
    listener.session.fail(SessionEnded("a bug"))


@plain_and_sealed
@pytest.mark.parametrize(
    ("before", "hello", "status"),
    [
        (fresh, opening(), OK),
        (fresh, opening(position=Position(0, 0, 1)), OK),
        (fresh, opening(position=Position(0, 0, 0)), RANGE),
        (fresh, opening(position=Position(0, 1, 100)), RANGE),
        (fresh, opening(position=Position(1, 1, 100)), RANGE),
        (fresh, resuming(2), UNKNOWN),
        (attached_unheard, opening(), STALE),
        (attached_unheard, opening(OTHER), BUSY),
        (lost_unheard, opening(), STALE),
        (lost_unheard, opening(OTHER), OK),
        (lost_unheard, opening(OTHER, Position(0, 0, 7)), OK),
        (lost_unheard, resuming(2), OK),
        (serving, opening(), STALE),
        (serving, opening(OTHER), BUSY),
        (serving, resuming(6, session=OTHER), UNKNOWN),
        (serving, resuming(4), STALE),
        (serving, resuming(5), STALE),
        (serving, resuming(6), OK),
        (serving, resuming(6, Position(1, 1, 100)), RANGE),
        (serving, resuming(6, Position(0, 0, 99)), RANGE),
        (attached, opening(OTHER), BUSY),
        (attached, resuming(5), STALE),
        (attached, resuming(6), OK),
        (ended_unheard, opening(), BUSY),
        (ended, opening(), STALE),
        (ended, opening(OTHER), BUSY),
        (ended, resuming(6), UNKNOWN),
    ],
)
def test_the_answerer_judges(
    before: Callable[[Listener], None], hello: Hello, status: Status, secret: Secret | None
) -> None:
    listener = Listener(secret=secret)
    before(listener)
    was = state(listener.session), listener.drops
    greeting, caller = listener.greet(hello)
    verdict = caller.read(drain(greeting, NOW))
    assert verdict.status is status
    assert verdict.position == (START if status is OK else (0, 0, 0))
    assert greeting.finished is (status is not OK)
    assert not greeting.attached
    assert (state(listener.session), listener.drops) == was


@pytest.mark.parametrize(
    ("position", "status"),
    [
        (Position(0, 3, 100), OK),
        (Position(0, 4, 100), RANGE),
        (Position(2, 1, 100), RANGE),
    ],
)
def test_a_caller_resumes_within_what_was_sent_to_it(position: Position, status: Status) -> None:
    listener = Listener(b"abc")
    listener.admit(opening())
    feed(listener.session, Frame(Kind.ACK, 0).encode(), NOW)
    drain(listener.session, NOW)
    listener.session.detach(CUT, NOW)
    assert listener.answerer.judge(resuming(2, position)) is status


# --- the answerer's messages ---


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

    def drop_link() -> None:
        if session.attached:
            feed(session, frame[-2:], NOW)
            session.detach(CUT, NOW)

    answerer = Answerer(session, drop_link)
    old, new = AnswererGreeting(answerer), AnswererGreeting(answerer)
    feed(old, pack_hello(opening()) + CONFIRM, NOW)
    feed(session, frame[:-2], NOW)
    feed(new, pack_hello(resuming(2)), NOW)
    assert unpack_verdict(bytearray(drain(new, NOW))).position.received == 4
    feed(new, CONFIRM, NOW)
    assert decode(drain(new, NOW)) == [Frame(Kind.READY, 6)]


@plain_and_sealed
def test_the_greeting_is_done_when_ready_is_written(secret: Secret | None) -> None:
    greeting, caller = Listener(secret=secret).greet(opening())
    caller.read(drain(greeting, NOW))
    feed(greeting, caller.confirm, NOW)
    assert (greeting.attached, greeting.done) == (True, False)
    drain(greeting, NOW, limit=HEADER_SIZE - 1)
    assert not greeting.done
    drain(greeting, NOW)
    assert greeting.done


@plain_and_sealed
def test_of_two_greetings_the_first_to_confirm_makes_the_other_stale(
    secret: Secret | None,
) -> None:
    listener = Listener(secret=secret)
    listener.serve()
    (first, ahead), (second, behind) = (listener.greet(resuming(epoch)) for epoch in (3, 2))
    for greeting, caller in ((first, ahead), (second, behind)):
        assert caller.read(drain(greeting, NOW)).status is OK
    feed(first, ahead.confirm, NOW)
    drops = listener.drops
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(second, behind.confirm, NOW)
    assert not second.attached
    assert (listener.session.epoch, listener.session.attached) == (3, True)
    assert listener.drops == drops


def test_a_session_that_ends_with_its_old_link_is_not_attached_to_the_new_one() -> None:
    listener = Listener()
    listener.admit(opening())
    greeting, _ = listener.greet(resuming(2))
    drain(greeting, NOW)
    feed(listener.session, Frame(Kind.ABORT, 2).encode(), NOW)
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(greeting, CONFIRM, NOW)
    assert listener.session.over
    assert not listener.session.attached


def test_a_caller_that_was_never_heard_gives_way_and_the_stream_begins_anew() -> None:
    listener = Listener(b"abc")
    listener.admit(opening())
    drain(listener.session, NOW)
    listener.session.detach(CUT, NOW)
    listener.admit(opening(OTHER, Position(0, 0, 2)))
    assert listener.session.id == OTHER
    assert decode(drain(listener.session, NOW)) == [Frame(Kind.ACK, 0)]
    feed(listener.session, Frame(Kind.ACK, 0).encode(), NOW)
    assert decode(drain(listener.session, NOW)) == [Frame(Kind.DATA, 0, b"ab")]
    assert listener.session.fits(Position(0, 2, 2))
    assert not listener.session.fits(Position(0, 3, 2))


def test_an_answerer_says_nothing_of_its_stream_before_it_has_heard_a_frame() -> None:
    """Links may lose one direction alone: who has taken bytes of it must not be given up."""
    listener = Listener(b"abc")
    listener.session.writer.finish()
    listener.admit(opening())
    assert decode(drain(listener.session, NOW)) == [Frame(Kind.ACK, 0)]
    with pytest.raises(ProtocolError):
        feed(listener.session, Frame(Kind.ACK, 1).encode(), NOW)
    assert drain(listener.session, NOW) == b""
    assert listener.session.writer.high == 0
    feed(listener.session, Frame(Kind.ACK, 0).encode(), NOW)
    kinds = [frame.kind for frame in decode(drain(listener.session, NOW))]
    assert kinds == [Kind.DATA, Kind.FIN]


def test_a_session_that_gave_way_leaves_nothing_to_the_next_caller() -> None:
    listener = Listener()
    listener.admit(opening())
    listener.session.detach(ProtocolError("junk"), NOW)
    assert listener.session.fruitless == 1
    assert listener.session.outage_since == NOW
    later = NOW + 25 * 3600
    listener.admit(opening(OTHER, Position(0, 0, 7)))
    session = listener.session
    assert (session.links, session.fruitless, session.replayed) == (1, 0, 0)
    assert (session.outage_since, session.last_cause, session.writer.window) == (None, None, 7)
    feed(session, Frame(Kind.ACK, 0).encode(), later)
    session.detach(CUT, later)
    session.tick(later + 1)
    assert not session.over


def test_a_caller_that_opens_without_confirming_takes_nothing_from_the_next() -> None:
    listener = Listener(b"abc")
    drain(listener.greet(opening(OTHER))[0], NOW)
    listener.admit(opening())
    assert listener.session.id == ID


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"G", "does not speak bpipe"),
        (b"bpip\2", "does not speak bpipe"),
        (b"bpip\1\1\1", "uses a secret"),
        (b"bpip\1\3", "malformed"),
        (pack_hello(opening()).replace(b"\1\1\0\0", b"\1\1\0\1"), "malformed"),
    ],
)
def test_junk_is_noticed_at_its_first_wrong_byte(data: bytes, why: str) -> None:
    greeting = AnswererGreeting(Listener().answerer)
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


# --- the caller ---


def caller(written: bytes = b"", secret: Secret | None = None) -> Session:
    session = Session(100, new_id=lambda: ID, secret=secret)
    write(session, written)
    return session


def verdict(status: Status = OK, position: Position = START) -> bytes:
    return pack_verdict(Verdict(status, position))


def ready(received: int) -> bytes:
    return pack_frame(Kind.READY, received)


def call(session: Session) -> CallerGreeting:
    """A fresh link, on which the caller has said its first message."""
    greeting = CallerGreeting(session)
    drain(greeting, NOW)
    return greeting


def test_a_caller_says_hello_and_then_waits() -> None:
    greeting = CallerGreeting(caller(b"abc"))
    assert unpack_hello(bytearray(drain(greeting, NOW))) == opening()
    assert greeting.outgoing(NOW) == []
    assert sum(map(len, greeting.incoming())) == VERDICT_SIZE


def test_a_caller_confirms_and_says_nothing_more_until_ready() -> None:
    session = caller(b"abc")
    greeting = call(session)
    feed(greeting, verdict(), NOW)
    assert drain(greeting, NOW) == CONFIRM
    assert not greeting.done
    assert not session.attached
    feed(greeting, ready(0), NOW)
    assert greeting.done
    assert greeting.attached
    assert session.attached
    assert decode(drain(session, NOW)) == [Frame(Kind.ACK, 0), Frame(Kind.DATA, 0, b"abc")]


def test_a_caller_carries_on_from_the_number_in_ready_and_not_from_that_in_the_verdict() -> None:
    session = caller(b"abcdef")
    for received in (0, 4):
        greeting = call(session)
        feed(greeting, verdict(position=Position(0, 0, 100)) + ready(received), NOW)
        frames = decode(drain(session, NOW))
        session.detach(CUT, NOW)
    assert frames == [Frame(Kind.ACK, 0), Frame(Kind.DATA, 4, b"ef")]


def test_a_caller_resumes_when_its_confirm_may_have_arrived() -> None:
    session = caller()
    feed(call(session), verdict(), NOW)
    hello = unpack_hello(bytearray(drain(CallerGreeting(session), NOW)))
    assert hello == resuming(2)


def test_a_caller_opens_again_when_it_has_not_confirmed() -> None:
    session = caller()
    feed(call(session), verdict()[:-1], NOW)
    hello = unpack_hello(bytearray(drain(CallerGreeting(session), NOW)))
    assert hello == opening()._replace(epoch=2)


@pytest.mark.parametrize(
    ("status", "why", "failure"),
    [
        (UNKNOWN, "does not know this session", None),
        (STALE, "has seen a later greeting", None),
        (RANGE, "stands at another place", NotConnected),
        (BUSY, "is busy", Busy),
    ],
)
def test_a_refusal_ends_the_link_and_the_session_decides(
    status: Status, why: str, failure: type[SessionEnded] | None
) -> None:
    session = caller()
    greeting = call(session)
    with pytest.raises(LinkLost, match=why):
        feed(greeting, verdict(status), NOW)
    assert type(session.failure) is (failure or type(None))
    assert drain(greeting, NOW) == b""


@pytest.mark.parametrize(
    "message",
    [
        verdict(position=Position(0, 1, 100)),
        verdict(position=Position(0, 0, 0)),
        verdict() + ready(1),
        verdict() + pack_frame(Kind.CONFIRM, 0),
        verdict() + pack_frame(Kind.ACK, 0),
        b"\0" + verdict()[1:],
    ],
)
def test_an_answer_that_cannot_be_is_a_protocol_error(message: bytes) -> None:
    session = caller(b"abc")
    with pytest.raises(ProtocolError):
        feed(call(session), message, NOW)
    assert not session.attached


@pytest.mark.parametrize("heard", [0, VERDICT_SIZE, VERDICT_SIZE + HEADER_SIZE - 1])
def test_a_session_that_ends_during_its_greeting_is_not_attached(heard: int) -> None:
    session = caller(b"abc")
    greeting = call(session)
    answer = verdict() + ready(0)
    feed(greeting, answer[:heard], NOW)
    session.fail(NotConnected("nobody answered"))
    with pytest.raises(LinkLost, match="the session is over"):
        feed(greeting, answer[heard:], NOW)
    assert session.links == 0


def test_a_caller_asks_before_it_makes_anything_of_a_verdict() -> None:
    session, asked = caller(), list[bool]()

    def forbid(accepted: bool) -> None:
        asked.append(accepted)
        raise LinkLost("another was answered")

    greeting = CallerGreeting(session, forbid)
    drain(greeting, NOW)
    was = state(session)
    with pytest.raises(LinkLost, match="another was answered"):
        feed(greeting, verdict(), NOW)
    assert asked == [True]
    assert drain(greeting, NOW) == b""
    assert state(session) == was


def test_what_a_caller_has_stated_has_to_be_so_when_it_confirms() -> None:
    session = caller()
    feed(call(session), verdict() + ready(0), NOW)
    greeting = call(session)  # beside a link that is in doubt
    feed(session, Frame(Kind.DATA, 0, b"x").encode(), NOW)
    session.detach(CUT, NOW)
    with pytest.raises(LinkLost, match="moved on"):
        feed(greeting, verdict(), NOW)
    assert drain(greeting, NOW) == b""


# --- both ---


def pair(secret: Secret | None, *written: bytes) -> Pair:
    """A caller and a listener who have each written something."""
    both = Pair(caller(secret=secret), Session(100, secret=secret))
    for session, data in zip(both.sessions, written, strict=False):
        write(session, data)
    return both


@plain_and_sealed
@pytest.mark.parametrize("step", [1, 7, HELLO_SIZE, 1000])
def test_a_greeting_attaches_both_ends_whatever_the_pieces(
    step: int, secret: Secret | None
) -> None:
    both = pair(secret, b"from the caller", b"from the listener")
    link = both.connect()
    while sum(link.send(side, NOW, step) + link.arrive(side, NOW, step) for side in SIDES):
        pass
    assert all(session.attached and session.links == 1 for session in both.sessions)
    assert take(both.sessions[CALLER]) == b"from the listener"
    assert take(both.sessions[LISTENER]) == b"from the caller"


@plain_and_sealed
@given(cuts=st.lists(st.integers(0, 600), max_size=6))
def test_wherever_a_link_is_cut_the_next_ones_bring_the_rest_and_nothing_twice(
    secret: Secret | None,
    cuts: list[int],
) -> None:
    streams = bytes(range(70)), bytes(range(100, 190))
    both = pair(secret, *streams)
    for cut in cuts:
        link = both.connect()
        moved = 1
        while cut and moved:
            moved = 0
            for side in SIDES:
                link.send(side, NOW)
                count = link.arrive(side, NOW, min(cut, 13))
                moved, cut = moved + count, cut - count
        link.cut(NOW)
    both.connect().run(NOW)
    assert take(both.sessions[LISTENER]) == streams[CALLER]
    assert take(both.sessions[CALLER]) == streams[LISTENER]


def exchange(link: Link, *sides: int) -> None:
    """One message after the other, each from such a side."""
    for side in sides:
        link.send(side, NOW)
        link.arrive(1 - side, NOW)


@plain_and_sealed
def test_a_lost_confirm_is_followed_by_a_new_session(secret: Secret | None) -> None:
    both = pair(secret, b"abc")
    link = both.connect()
    exchange(link, CALLER, LISTENER)
    link.send(CALLER, NOW)
    link.cut(NOW)
    refused = both.connect()
    refused.run(NOW)
    assert "does not know this session" in str(refused.ends[CALLER].cause)
    both.connect().run(NOW)
    assert take(both.sessions[LISTENER]) == b"abc"


@plain_and_sealed
def test_a_lost_ready_is_followed_by_a_resumption(secret: Secret | None) -> None:
    both = pair(secret, b"abc")
    link = both.connect()
    exchange(link, CALLER, LISTENER, CALLER)
    link.send(LISTENER, NOW)
    link.cut(NOW)
    assert not both.sessions[CALLER].established
    both.connect().run(NOW)
    assert both.sessions[LISTENER].epoch == 2
    assert take(both.sessions[LISTENER]) == b"abc"


@plain_and_sealed
def test_a_caller_that_comes_back_replaces_the_link_that_the_listener_still_holds(
    secret: Secret | None,
) -> None:
    both = pair(secret)
    old = both.connect()
    old.run(NOW)
    old.ends[CALLER].lose(CUT, NOW)
    assert both.sessions[LISTENER].attached
    write(both.sessions[LISTENER], b"abc")
    both.connect().run(NOW)
    assert str(old.ends[LISTENER].cause) == "the peer has come back"
    assert take(both.sessions[CALLER]) == b"abc"
