"""Greetings under a secret: damaged, repeated, reflected, and without the secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    Admission,
    Answer,
    Hello,
    Kind,
    Opening,
    Verdict,
    pack_frame,
    pack_hello,
    pack_verdict,
)
from tests.support.greetings import (
    FROM,
    M1,
    M3,
    M4,
    MESSAGES,
    NOW,
    OTHER,
    SIZES,
    START,
    WINDOW,
    check_alive,
    check_recovers,
    exchange,
    flip,
    fresh,
    greet_until,
    held,
    knock,
    live,
    lost,
    session,
    states,
)
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SECRET,
    Link,
    Pair,
    Stranger,
    drain,
    feed,
    state,
)


def test_the_messages_have_their_sizes() -> None:
    link = greet_until(fresh(), len(MESSAGES))
    assert all(end.greeting.done and end.cause is None for end in link.ends)


# --- every single bit ---


@pytest.mark.slow
@pytest.mark.parametrize("before", [fresh, lost, held])
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_with_any_bit_flipped_is_refused_and_nothing_changes(
    before: Callable[[], Pair], message: int
) -> None:
    # What a bit means does not depend on what was before: there, one of each byte is enough.
    step = 1 if before is fresh else 9
    for bit in range(0, 8 * SIZES[message], step):
        pair = before()
        link = greet_until(pair, message)
        others = [other.ends[LISTENER].cause for other in pair.links[:-1]]
        was = states(pair)
        exchange(link, message, flip(bit))
        victim = link.ends[1 - FROM[message]]
        plain = message == M1 and bit < 8 * 8  # before the session
        assert type(victim.cause) is (ProtocolError if plain else Forged)
        assert victim.greeting.channel is None
        assert drain(victim.greeting, NOW) == b""
        assert states(pair) == was
        assert [other.ends[LISTENER].cause for other in pair.links[:-1]] == others
        if bit % (16 * step) == 0:
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
    caught = drain(CallerGreeting(pair.caller, NOW), NOW)
    was = state(pair.sessions[LISTENER])
    for m3 in (old[M3], old[M4], bytes(32), pack_frame(Kind.CONFIRM, 0) + bytes(16)):
        greeting = knock(pair)
        feed(greeting, caught, NOW)
        assert drain(greeting, NOW)[0] == Answer.ACCEPT  # which he cannot use
        with pytest.raises(Forged):
            feed(greeting, m3, NOW)
        assert greeting.channel is None
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
        feed(AnswererGreeting(pair.table, NOW), overheard, NOW)
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
    pair = Pair(session(), Session(WINDOW, secret=secret))
    was = states(pair)
    hello = pack_hello(Hello(Opening.OPEN, b"i" * 16, 1, START), sealed=sealed)
    greeting = AnswererGreeting(pair.table, NOW)
    feed(greeting, hello[:6], NOW)
    with pytest.raises(ProtocolError, match=why):
        feed(greeting, hello[6:7], NOW)
    assert drain(greeting, NOW) == b""
    assert states(pair) == was


@pytest.mark.parametrize("admission", Admission)
def test_a_plain_answer_is_nothing_to_who_has_a_secret(admission: Admission) -> None:
    pair = fresh()
    greeting = CallerGreeting(pair.caller, NOW)
    drain(greeting, NOW)
    was = states(pair)
    plain = pack_verdict(Verdict(admission, START)) + 4 * pack_frame(Kind.READY, 0)
    with pytest.raises(Forged):
        feed(greeting, plain, NOW)
    assert states(pair) == was
    assert drain(greeting, NOW) == b""


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_who_does_not_know_the_secret_gets_not_one_byte(step: int) -> None:
    pair = fresh()
    was = states(pair)
    hello = Hello(Opening.OPEN, b"i" * 16, 1, START)
    junk = pack_hello(hello, sealed=True) + bytes(SIZES[M1])
    for message in (Stranger(hello, OTHER).hello, junk[: SIZES[M1]]):
        greeting = AnswererGreeting(pair.table, NOW)
        with pytest.raises(Forged):
            feed(greeting, message, NOW, step)
        assert drain(greeting, NOW) == b""
        assert states(pair) == was


def test_anything_sealed_but_confirm_is_a_protocol_error() -> None:
    for kind in Kind:
        for number in (0, 1):
            pair = held()
            hello = pair.caller.hello()
            listener = pair.sessions[LISTENER]
            stranger = Stranger(hello, SECRET, listener.resume_secret)
            greeting = AnswererGreeting(pair.table, NOW)
            feed(greeting, stranger.hello, NOW)
            stranger.read(drain(greeting, NOW))
            was = state(listener)
            if (kind, number) != (Kind.CONFIRM, 0):
                with pytest.raises(ProtocolError):
                    feed(greeting, stranger.frames.pack(kind, number), NOW)
                assert state(listener) == was
