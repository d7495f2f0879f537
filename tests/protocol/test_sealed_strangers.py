"""Who has the secret, and does not belong to the session that he wants.

``K`` is the shared secret, and ``RS`` the resume secret that only the two ends of a session have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.sealed import SealedHandshake
from bpipe.protocol.secret import Secret
from bpipe.protocol.wire import (
    Admission,
    Answer,
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Verdict,
    pack_verdict,
)
from tests.support.greetings import (
    M2,
    M3,
    NOW,
    OTHER,
    SIZES,
    START,
    WINDOW,
    check_alive,
    check_recovers,
    fresh,
    greet_until,
    held,
    knock,
    live,
    lost,
    states,
)
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SECRET,
    Pair,
    Stranger,
    drain,
    feed,
    state,
    take,
)

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


@pytest.mark.slow
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
            assert stranger.read(answer).admission is not Admission.OK
            assert not any(greeting.incoming())
        else:
            accepted += 1
            with pytest.raises(Forged):
                stranger.read(answer)
            with pytest.raises(Forged):
                feed(greeting, stranger.confirm, NOW)
        assert drain(greeting, NOW) == b""
        assert greeting.channel is None
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
    assert stranger.read(drain(greeting, NOW)).admission is Admission.OK
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

    def __init__(self, caller: Caller, secret: Secret = SECRET) -> None:
        self.greeting = CallerGreeting(caller, NOW)
        self.before = state(caller.session)
        self.handshake = SealedHandshake(secret)
        hello = drain(self.greeting, NOW)
        if secret is SECRET:
            self.handshake.unpack_hello(hello)
        else:
            with pytest.raises(Forged):
                self.handshake.unpack_hello(hello)
            another = Stranger(Hello(Opening.OPEN, bytes(16), 1, START), secret)
            self.handshake.unpack_hello(another.hello)

    def answer(self, admission: Admission, position: Position, resume_secret: bytes = b"") -> bytes:
        return self.handshake.pack_verdict(Verdict(admission, position), resume_secret)

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
    impostor = Impostor(pair.caller)
    impostor.check_ignored(impostor.answer(Admission.OK, pair.sessions[LISTENER].position, guess))
    check_recovers(pair)


@pytest.mark.parametrize("before", [fresh, held])
@pytest.mark.parametrize("admission", Admission)
def test_a_refusal_by_who_does_not_know_the_secret_is_ignored(
    before: Callable[[], Pair], admission: Admission
) -> None:
    pair = before()
    position = pair.sessions[LISTENER].position
    for resume_secret in (b"", bytes(32)):
        impostor = Impostor(pair.caller, OTHER)
        impostor.check_ignored(impostor.answer(admission, position, resume_secret))
    verdict = pack_verdict(Verdict(admission, position))
    Impostor(pair.caller).check_ignored(verdict + bytes(SIZES[M2] - len(verdict)))
    recorded = Impostor(pair.caller).answer(admission, position)
    for answer in Answer:
        Impostor(pair.caller).check_ignored(bytes([answer]) + recorded[1:])
    check_recovers(pair)


@pytest.mark.parametrize("before", [fresh, held])
@pytest.mark.parametrize("admission", Admission)
def test_the_first_byte_of_an_answer_has_to_agree_with_its_admission(
    before: Callable[[], Pair], admission: Admission
) -> None:
    pair = before()
    for first in (0, 1, 2, 3, 255):
        impostor = Impostor(pair.caller)
        resume_secret = impostor.greeting.session.resume_secret
        answer = impostor.answer(admission, pair.sessions[LISTENER].position, resume_secret)
        if first != answer[0]:
            impostor.check_ignored(bytes([first]) + answer[1:])
    check_recovers(pair)


@pytest.mark.parametrize("admission", [7, 77, 255])
def test_an_admission_that_there_is_not_is_ignored(admission: int) -> None:
    impostor = Impostor(fresh().caller)
    impostor.check_ignored(impostor.answer(cast(Admission, admission), START))


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
    impostor = Impostor(pair.caller)
    answer = impostor.answer(Admission.OK, position, pair.sessions[LISTENER].resume_secret)
    impostor.check_ignored(answer, ProtocolError)
    check_recovers(pair)


@pytest.mark.parametrize("number", [0, 14, 16, 2**63, BIGGEST])
def test_a_ready_that_cannot_be_is_a_protocol_error(number: int) -> None:
    pair = held()
    listener = pair.sessions[LISTENER]
    take(listener)
    impostor = Impostor(pair.caller)
    answer = impostor.answer(Admission.OK, Position(15, 15, WINDOW), listener.resume_secret)
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
    position=st.builds(
        Position,
        numbers,
        numbers,
        numbers | st.just(WINDOW),
        st.just(1) | st.integers(0, 255),
        st.just(0) | st.integers(0, 255),
    ),
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
    greeting = AnswererGreeting(pair.table, NOW)
    feed(greeting, stranger.hello, NOW)
    verdict = stranger.read(drain(greeting, NOW))
    assert states(pair) == was
    if verdict.admission is not Admission.OK:
        assert verdict.position[:2] == (0, 0)
        return
    writer = listener.writer
    assert writer.acked <= position.delivered <= position.received <= writer.high
    assert position.window >= 1
    assert position[3:] in [(links, 0) for links in range(1, 9)]
    feed(greeting, stranger.confirm, NOW)
    assert listener.attached
    assert listener.epoch == epoch
