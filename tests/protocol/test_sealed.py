"""Greetings under a secret, with everybody in the way who might want to get in.

``K`` is the shared secret, and ``RS`` the resume secret that only the two ends of a session have.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.protocol.greeting import Answerer, AnswererGreeting, CallerGreeting
from bpipe.protocol.sealed import SealedHandshake
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEAD_SIZE,
    Answer,
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Status,
    Verdict,
    pack_frame,
    pack_hello,
    pack_verdict,
)
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SECRET,
    SIDES,
    Link,
    Pair,
    State,
    Stranger,
    drain,
    feed,
    state,
    take,
    write,
)
from tests.support.oracle import Oracle

NOW = 0.0
OTHER = Secret(b"another secret")
WINDOW = 300
START = Position(0, 0, WINDOW)
M1, M2, M3, M4 = MESSAGES = range(4)
SIZES = (104, 81, 32, 32)
FROM = (CALLER, LISTENER, CALLER, LISTENER)


def session() -> Session:
    return Session(WINDOW, secret=SECRET)


# --- what there is before somebody interferes ---


def fresh() -> Pair:
    """Nobody has called yet."""
    pair = Pair(session(), session())
    write(pair.sessions[CALLER], b"from the caller")
    write(pair.sessions[LISTENER], b"from the listener")
    return pair


def lost() -> Pair:
    """A session whose link both ends have lost."""
    pair = held()
    pair.links[0].ends[LISTENER].lose(LinkLost("cut"), NOW)
    return pair


def held() -> Pair:
    """A session whose caller has lost its link; the listener does not know."""
    pair = live()
    pair.links[0].ends[CALLER].lose(LinkLost("cut"), NOW)
    return pair


def live() -> Pair:
    """A session with a link."""
    pair = fresh()
    pair.connect().run(NOW)
    assert all(each.attached for each in pair.sessions)
    return pair


def states(pair: Pair) -> tuple[State, State]:
    return state(pair.sessions[CALLER]), state(pair.sessions[LISTENER])


def check_alive(pair: Pair) -> None:
    """The listener's link, if the caller still has it too, moves bytes both ways."""
    old = pair.links[0]
    assert all(end.cause is None for end in old.ends)
    for side in SIDES:
        take(pair.sessions[side])
        write(pair.sessions[side], b"more")
    old.run(NOW)
    for side in SIDES:
        assert take(pair.sessions[side]).endswith(b"more")


def check_recovers(pair: Pair) -> None:
    """The honest caller comes back, and nothing is missing."""
    for _ in range(3):  # a CONFIRM that was lost may cost one attempt, and a READY one more
        if not pair.sessions[CALLER].attached:
            for link in pair.links[-1:]:
                link.ends[LISTENER].lose(LinkLost("cut"), NOW)
            pair.connect().run(NOW)
    assert all(each.attached and not each.over for each in pair.sessions)
    assert take(pair.sessions[LISTENER]) == b"from the caller"
    assert take(pair.sessions[CALLER]) == b"from the listener"


def exchange(link: Link, message: int, change: Callable[[bytes], bytes] = bytes) -> None:
    """One of the four messages goes over the link, and may be changed on the way."""
    near, far = FROM[message], 1 - FROM[message]
    link.send(near, NOW, SIZES[message])
    end = link.ends[far]
    assert len(end.inbox) == SIZES[message]
    end.inbox = change(end.inbox)
    link.arrive(far, NOW)


def greet_until(pair: Pair, message: int) -> Link:
    """A fresh link, over which everything before this message has gone."""
    link = pair.connect()
    for earlier in range(message):
        exchange(link, earlier)
    return link


def flip(bit: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        out = bytearray(data)
        out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

    return change


def test_the_messages_have_their_sizes() -> None:
    link = greet_until(fresh(), len(MESSAGES))
    assert all(end.greeting.done and end.cause is None for end in link.ends)


# --- every single bit ---


@pytest.mark.parametrize("before", [fresh, lost, held])
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_with_any_bit_flipped_is_refused_and_nothing_changes(
    before: Callable[[], Pair], message: int
) -> None:
    for bit in range(8 * SIZES[message]):
        pair = before()
        link = greet_until(pair, message)
        others = [other.ends[LISTENER].cause for other in pair.links[:-1]]
        was = states(pair)
        exchange(link, message, flip(bit))
        victim = link.ends[1 - FROM[message]]
        plain = message == M1 and bit < 8 * HEAD_SIZE
        assert type(victim.cause) is (ProtocolError if plain else Forged)
        assert not victim.greeting.attached
        assert drain(victim.greeting, NOW) == b""
        assert states(pair) == was
        assert [other.ends[LISTENER].cause for other in pair.links[:-1]] == others
        if bit % 16 == 0:
            check_recovers(pair)


# --- replay ---


def record(link: Link) -> list[bytes]:
    """A whole greeting over this link, and what went over it."""
    wire: list[bytes] = []

    def tap(data: bytes) -> bytes:
        wire.append(data)
        return data

    for message in MESSAGES:
        exchange(link, message, tap)
    return wire


def knock(pair: Pair) -> AnswererGreeting:
    """A connection to the listener, which has forgotten the greetings that it has heard."""
    pair.answerer._remembered.clear()
    return AnswererGreeting(pair.answerer)


def test_an_old_greeting_that_comes_again_gets_a_refusal_and_changes_nothing() -> None:
    pair = fresh()
    recorded = [record(pair.connect())]
    for _ in range(2):
        pair.links[-1].cut(NOW)
        recorded.append(record(pair.connect()))
    pair.links = pair.links[-1:]
    pair.links[0].run(NOW)
    was = states(pair)
    for m1, m2, _, _ in recorded:
        greeting = knock(pair)
        feed(greeting, m1, NOW)
        answer = drain(greeting, NOW)
        assert len(answer) == len(m2)
        assert answer[0] == Answer.REFUSE
        assert greeting.finished
        assert not any(greeting.incoming())
        assert states(pair) == was
    check_alive(pair)


def test_a_fresh_m1_that_comes_again_leads_nowhere() -> None:
    """The caller's last M1, which never arrived, is said by somebody else, with all he has."""
    pair = live()
    pair.links[0].ends[CALLER].lose(LinkLost("cut"), NOW)
    old = record(pair.connect())
    pair.links[-1].ends[CALLER].lose(LinkLost("cut"), NOW)
    pair.links = pair.links[-1:]
    caught = drain(CallerGreeting(pair.sessions[CALLER]), NOW)
    was = state(pair.sessions[LISTENER])
    for m3 in (old[M3], old[M4], bytes(32), pack_frame(Kind.CONFIRM, 0) + bytes(16)):
        greeting = knock(pair)
        feed(greeting, caught, NOW)
        assert drain(greeting, NOW)[0] == Answer.ACCEPT  # which he cannot use
        with pytest.raises(Forged):
            feed(greeting, m3, NOW)
        assert not greeting.attached
        assert drain(greeting, NOW) == b""
        assert state(pair.sessions[LISTENER]) == was
        assert pair.links[0].ends[LISTENER].cause is None
    check_recovers(pair)


def test_an_m1_that_comes_again_does_not_disturb_the_greeting_that_it_belongs_to() -> None:
    pair = held()
    link = pair.connect()
    link.send(CALLER, NOW)
    overheard = link.ends[LISTENER].inbox
    link.arrive(LISTENER, NOW)
    with pytest.raises(Forged, match="has come before"):
        feed(AnswererGreeting(pair.answerer), overheard, NOW)
    replayed = knock(pair)
    feed(replayed, overheard, NOW)
    link.run(NOW)
    assert all(each.attached for each in pair.sessions)
    with pytest.raises(Forged):
        feed(replayed, bytes(32), NOW)
    assert link.ends[LISTENER].cause is None


# --- reflection ---


@pytest.mark.parametrize("before", [fresh, held])
@pytest.mark.parametrize("message", MESSAGES)
def test_what_an_end_has_said_is_nothing_that_it_believes(
    before: Callable[[], Pair], message: int
) -> None:
    pair = before()
    link = greet_until(pair, message)
    near = link.ends[FROM[message]]
    driver = near.driver
    said = drain(driver, NOW, SIZES[message])
    was = states(pair)
    with pytest.raises(Forged):
        feed(near.driver, (said + bytes(SIZES[M1]))[: SIZES[M1]], NOW)
    assert states(pair) == was


# --- K without RS ---


def hellos(pair: Pair) -> list[Hello]:
    """Whatever somebody might say who has K, and has read what the caller says in its M1."""
    listener = pair.sessions[LISTENER]
    assert listener.id is not None
    epochs = (0, 1, listener.epoch, listener.epoch + 1, 2**63, 2**64 - 1)
    numbers = (0, 1, 15, 17, WINDOW, 2**64 - 1)
    position = pair.sessions[CALLER].position
    return [
        *(Hello(Opening.RESUME, listener.id, epoch, position) for epoch in epochs),
        *(Hello(Opening.OPEN, listener.id, epoch, position) for epoch in epochs),
        *(Hello(opening, b"x" * 16, 2**64 - 1, START) for opening in Opening),
        *(
            Hello(Opening.RESUME, listener.id, 2**64 - 1, Position(delivered, received, window))
            for delivered in numbers
            for received in numbers
            for window in numbers
        ),
    ]


@pytest.mark.parametrize("before", [lost, held, live])
@pytest.mark.parametrize("guess", [b"", bytes(32), b"g" * 32])
def test_who_has_only_the_secret_can_neither_join_nor_stop_a_session(
    before: Callable[[], Pair], guess: bytes
) -> None:
    pair = before()
    was = states(pair)
    accepted = 0
    for hello in hellos(pair):
        stranger = Stranger(hello, SECRET, guess)
        greeting = knock(pair)
        feed(greeting, stranger.hello, NOW)
        answer = drain(greeting, NOW)
        if answer[0] == Answer.REFUSE:
            assert stranger.read(answer).status is not Status.OK
            assert not any(greeting.incoming())
        else:
            accepted += 1
            with pytest.raises(Forged):
                stranger.read(answer)
            with pytest.raises(Forged):
                feed(greeting, stranger.confirm, NOW)
        assert drain(greeting, NOW) == b""
        assert not greeting.attached
        assert states(pair) == was
    assert accepted > 2
    if before is live:
        check_alive(pair)
    else:
        check_recovers(pair)


def test_who_has_both_secrets_is_let_in() -> None:
    """So the refusals above are for the reason that they are meant to be for."""
    pair = held()
    listener = pair.sessions[LISTENER]
    assert listener.id is not None
    hello = Hello(Opening.RESUME, listener.id, listener.epoch + 1, pair.sessions[CALLER].position)
    stranger = Stranger(hello, SECRET, listener.resume_secret)
    greeting = knock(pair)
    feed(greeting, stranger.hello, NOW)
    assert stranger.read(drain(greeting, NOW)).status is Status.OK
    assert pair.links[0].ends[LISTENER].cause is None
    feed(greeting, stranger.confirm, NOW)
    assert str(pair.links[0].ends[LISTENER].cause) == "the peer has come back"
    ready = drain(greeting, NOW)
    assert stranger.frames.unpack(ready) == Header(Kind.READY, 0, listener.reader.received)


def test_the_resume_secret_is_of_one_session_and_stays_the_same() -> None:
    found = set()
    for _ in range(10):
        pair = live()
        before = pair.sessions[CALLER].resume_secret
        pair.links[0].cut(NOW)
        pair.connect().run(NOW)
        assert {each.resume_secret for each in pair.sessions} == {before}
        assert len(before) == 32
        found.add(before)
    assert len(found) == 10


def test_a_new_session_of_the_same_ends_has_another() -> None:
    """The listener has forgotten the first, and never heard a frame of the second's beginning."""
    pair = fresh()
    link = greet_until(pair, M3)
    link.send(CALLER, NOW)
    first = pair.sessions[CALLER].resume_secret
    link.cut(NOW)
    check_recovers(pair)
    second = {each.resume_secret for each in pair.sessions}
    assert len(second) == 1
    assert first not in second


# --- who answers in the listener's place ---


class Impostor:
    """Who stands in the listener's place: he hears a caller, and answers with what he knows."""

    def __init__(self, caller: Session, secret: Secret = SECRET) -> None:
        self.greeting = CallerGreeting(caller)
        self.before = state(caller)
        self.handshake = SealedHandshake(secret)
        hello = drain(self.greeting, NOW)
        if secret is SECRET:
            self.handshake.unpack_hello(hello)
        else:
            with pytest.raises(Forged):
                self.handshake.unpack_hello(hello)

    def answer(self, status: Status, position: Position, resume_secret: bytes = b"") -> bytes:
        return self.handshake.pack_verdict(Verdict(status, position), resume_secret)

    def check_ignored(self, answer: bytes, error: type[LinkLost] = Forged) -> None:
        """The caller ends this link because of that, and is what it was."""
        with pytest.raises(error) as caught:
            feed(self.greeting, answer, NOW)
        assert type(caught.value) is error
        assert drain(self.greeting, NOW) == b""
        assert state(self.greeting.session) == self.before
        assert self.greeting.session.failure is None


@pytest.mark.parametrize("guess", [b"", bytes(32), b"g" * 32])
def test_who_has_only_the_secret_cannot_accept_a_resumption(guess: bytes) -> None:
    pair = held()
    impostor = Impostor(pair.sessions[CALLER])
    impostor.check_ignored(impostor.answer(Status.OK, pair.sessions[LISTENER].position, guess))
    check_recovers(pair)


@pytest.mark.parametrize("before", [fresh, held])
@pytest.mark.parametrize("status", Status)
def test_a_refusal_by_who_does_not_know_the_secret_is_ignored(
    before: Callable[[], Pair], status: Status
) -> None:
    pair = before()
    caller = pair.sessions[CALLER]
    position = pair.sessions[LISTENER].position
    for resume_secret in (b"", bytes(32)):
        impostor = Impostor(caller, OTHER)
        impostor.check_ignored(impostor.answer(status, position, resume_secret))
    verdict = pack_verdict(Verdict(status, position))
    Impostor(caller).check_ignored(verdict + bytes(SIZES[M2] - len(verdict)))
    recorded = Impostor(caller).answer(status, position)
    for answer in Answer:
        Impostor(caller).check_ignored(bytes([answer]) + recorded[1:])
    check_recovers(pair)


@pytest.mark.parametrize("before", [fresh, held])
@pytest.mark.parametrize("status", Status)
def test_the_first_byte_of_an_answer_has_to_agree_with_its_status(
    before: Callable[[], Pair], status: Status
) -> None:
    pair = before()
    for first in (0, 1, 2, 3, 255):
        impostor = Impostor(pair.sessions[CALLER])
        resume_secret = impostor.greeting.session.resume_secret
        answer = impostor.answer(status, pair.sessions[LISTENER].position, resume_secret)
        if first != answer[0]:
            impostor.check_ignored(bytes([first]) + answer[1:])
    check_recovers(pair)


@pytest.mark.parametrize("status", [5, 77, 255])
def test_a_status_that_there_is_not_is_ignored(status: int) -> None:
    impostor = Impostor(fresh().sessions[CALLER])
    impostor.check_ignored(impostor.answer(cast(Status, status), START))


BIGGEST = 2**64 - 1


@pytest.mark.parametrize(
    "position",
    [
        Position(0, 0, 0),
        Position(0, 0, BIGGEST),
        Position(0, 16, WINDOW),
        Position(1, 0, WINDOW),
        Position(BIGGEST, BIGGEST, WINDOW),
        Position(0, BIGGEST, WINDOW),
        Position(BIGGEST, 0, WINDOW),
    ],
)
def test_offsets_of_a_listener_that_cannot_be_are_a_protocol_error(position: Position) -> None:
    pair = held()
    impostor = Impostor(pair.sessions[CALLER])
    answer = impostor.answer(Status.OK, position, pair.sessions[LISTENER].resume_secret)
    impostor.check_ignored(answer, ProtocolError)
    check_recovers(pair)


@pytest.mark.parametrize("number", [0, 14, 16, 2**63, BIGGEST])
def test_a_ready_that_cannot_be_is_a_protocol_error(number: int) -> None:
    pair = held()
    caller, listener = pair.sessions
    take(listener)
    impostor = Impostor(caller)
    answer = impostor.answer(Status.OK, Position(15, 15, WINDOW), listener.resume_secret)
    feed(impostor.greeting, answer, NOW)
    drain(impostor.greeting, NOW)
    frames = impostor.handshake.frames(caller=False)
    impostor.check_ignored(frames.pack(Kind.READY, number), ProtocolError)


# --- numbers that cannot be, from who has every secret ---

numbers = st.sampled_from([0, 1, 15, 16, 17, 18, WINDOW, 2**63, BIGGEST]) | st.integers(0, BIGGEST)


@settings(max_examples=150)
@given(
    before=st.sampled_from([fresh, lost, held]),
    opening=st.sampled_from(Opening),
    known=st.booleans(),
    epoch=numbers,
    position=st.builds(Position, numbers, numbers, numbers | st.just(WINDOW)),
)
def test_any_greeting_is_refused_or_makes_sense(
    before: Callable[[], Pair],
    opening: Opening,
    known: bool,
    epoch: int,
    position: Position,
) -> None:
    pair = before()
    listener = pair.sessions[LISTENER]
    caller = (known and listener.id) or b"x" * 16
    resume_secret = listener.resume_secret if opening is Opening.RESUME else b""
    stranger = Stranger(Hello(opening, caller, epoch, position), SECRET, resume_secret)
    was = states(pair)
    greeting = AnswererGreeting(pair.answerer)
    feed(greeting, stranger.hello, NOW)
    verdict = stranger.read(drain(greeting, NOW))
    assert states(pair) == was
    if verdict.status is not Status.OK:
        assert verdict.position == (0, 0, 0)
        return
    writer = listener.writer
    assert writer.acked <= position.delivered <= position.received <= writer.high
    assert position.window >= 1
    feed(greeting, stranger.confirm, NOW)
    assert listener.attached
    assert listener.epoch == epoch


# --- a secret on one end only ---


@pytest.mark.parametrize(
    ("secret", "sealed", "why"),
    [
        (SECRET, False, "the peer uses no secret, and this end does"),
        (None, True, "the peer uses a secret, and this end does not"),
    ],
)
def test_a_secret_on_one_end_only_is_noticed_at_its_byte(
    secret: Secret | None, sealed: bool, why: str
) -> None:
    listener = Session(WINDOW, secret=secret)
    was = state(listener)
    hello = pack_hello(Hello(Opening.OPEN, b"i" * 16, 1, START), sealed=sealed)
    greeting = AnswererGreeting(Answerer(listener, lambda: None))
    feed(greeting, hello[:6], NOW)
    with pytest.raises(ProtocolError, match=why):
        feed(greeting, hello[6:7], NOW)
    assert drain(greeting, NOW) == b""
    assert state(listener) == was


@pytest.mark.parametrize("status", Status)
def test_a_plain_answer_is_nothing_to_who_has_a_secret(status: Status) -> None:
    caller = session()
    greeting = CallerGreeting(caller)
    drain(greeting, NOW)
    was = state(caller)
    plain = pack_verdict(Verdict(status, START)) + 4 * pack_frame(Kind.READY, 0)
    with pytest.raises(Forged):
        feed(greeting, plain, NOW)
    assert state(caller) == was
    assert drain(greeting, NOW) == b""


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_who_does_not_know_the_secret_gets_not_one_byte(step: int) -> None:
    listener = session()
    was = state(listener)
    hello = Hello(Opening.OPEN, b"i" * 16, 1, START)
    for message in (Stranger(hello, OTHER).hello, pack_hello(hello, sealed=True) + bytes(48)):
        greeting = AnswererGreeting(Answerer(listener, lambda: None))
        with pytest.raises(Forged):
            feed(greeting, message, NOW, step)
        assert drain(greeting, NOW) == b""
        assert state(listener) == was


def test_anything_sealed_but_confirm_is_a_protocol_error() -> None:
    for kind in Kind:
        for number in (0, 1):
            pair = held()
            hello = pair.sessions[CALLER].hello()
            listener = pair.sessions[LISTENER]
            stranger = Stranger(hello, SECRET, listener.resume_secret)
            greeting = AnswererGreeting(pair.answerer)
            feed(greeting, stranger.hello, NOW)
            stranger.read(drain(greeting, NOW))
            was = state(listener)
            if (kind, number) != (Kind.CONFIRM, 0):
                with pytest.raises(ProtocolError):
                    feed(greeting, stranger.frames.pack(kind, number), NOW)
                assert state(listener) == was


# --- another implementation at the other end, made of nothing that is bpipe's ---

K = HKDF(SHA256(), 32, salt=b"bpipe/1 key", info=b"").derive(bytes(range(32)))


def say(oracle: Oracle, kind: int, number: int, payload: bytes = b"") -> bytes:
    header = struct.pack(">B3xIQ", kind, len(payload), number)
    return header + bytes(oracle.sending.encrypt_with_ad(header, payload))


def hear(oracle: Oracle, data: bytes) -> tuple[int, int, bytes]:
    kind, length, number = struct.unpack(">B3xIQ", data[:16])
    payload = oracle.receiving.decrypt_with_ad(data[:16], data[16:])
    assert len(payload) == length
    return kind, number, payload


def check_frames(oracle: Oracle, here: Session, offset: int, said: bytes) -> None:
    """What both ends say on an attached link is what they hear."""
    out = drain(here, NOW)
    feed(here, say(oracle, 3, 0), NOW)  # the first frame, before which an answerer says no DATA
    out += drain(here, NOW)
    assert hear(oracle, out[:32]) == (3, offset, b"")  # ACK
    assert hear(oracle, out[32:]) == (1, 0, said)  # DATA
    feed(here, say(oracle, 1, offset, b"abc") + say(oracle, 5, 77), NOW)
    assert take(here).endswith(b"abc")
    assert hear(oracle, drain(here, NOW)[-32:]) == (6, 77, b"")  # PONG


def test_another_implementation_calls_and_resumes() -> None:
    pair = fresh()
    listener = pair.sessions[LISTENER]
    resume_secret = bytes(32)
    for opening, epoch, received in ((1, 1, 0), (2, 2, 3), (2, 9, 6)):
        head = b"bpip" + bytes([1, opening, 1, 0])
        oracle = Oracle(head, [K, resume_secret], caller=True)
        greeting = knock(pair)
        hello = struct.pack(">16sQQQQ", b"i" * 16, epoch, 0, 0, WINDOW)
        feed(greeting, head + oracle.write(hello), NOW)
        answer = drain(greeting, NOW)
        assert answer[0] == 1
        assert struct.unpack(">QQQQ", oracle.read(answer[1:])) == (0, received, received, WINDOW)
        if opening == 1:
            resume_secret = oracle.derive(b"bpipe/1 resume")
        feed(greeting, say(oracle, 9, 0), NOW)
        assert hear(oracle, drain(greeting, NOW)) == (10, received, b"")
        check_frames(oracle, listener, received, b"from the listener")
        listener.detach(LinkLost("cut"), NOW)


def test_another_implementation_answers_and_is_resumed() -> None:
    caller = fresh().sessions[CALLER]
    resume_secret = bytes(32)
    for opening, epoch, received in ((1, 1, 0), (2, 2, 3), (2, 3, 6)):
        greeting = CallerGreeting(caller)
        hello = drain(greeting, NOW)
        assert hello[:8] == b"bpip" + bytes([1, opening, 1, 0])
        oracle = Oracle(hello[:8], [K, resume_secret], caller=False)
        said = struct.unpack(">16sQQQQ", oracle.read(hello[8:]))
        assert said[1:] == (epoch, received, received, WINDOW)
        feed(greeting, b"\1" + oracle.write(struct.pack(">QQQQ", 0, 0, 0, WINDOW)), NOW)
        if opening == 1:
            resume_secret = oracle.derive(b"bpipe/1 resume")
        assert hear(oracle, drain(greeting, NOW)) == (9, 0, b"")
        feed(greeting, say(oracle, 10, 0), NOW)
        check_frames(oracle, caller, received, b"from the caller")
        caller.detach(LinkLost("cut"), NOW)


@pytest.mark.parametrize("opening", Opening)
def test_another_implementation_is_refused(opening: Opening) -> None:
    head = b"bpip" + bytes([1, opening, 1, 0])
    oracle = Oracle(head, [K, bytes(32)], caller=True)
    greeting = knock(held())
    feed(greeting, head + oracle.write(struct.pack(">16sQQQQ", b"i" * 16, 5, 0, 0, 1)), NOW)
    answer = drain(greeting, NOW)
    status = Status.BUSY if opening is Opening.OPEN else Status.UNKNOWN
    assert answer[0] == 2
    assert struct.unpack(">QQQQ", oracle.read(answer[1:])) == (status, 0, 0, 0)
