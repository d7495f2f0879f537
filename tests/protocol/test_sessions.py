from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.errors import Forged, LinkLost, ProtocolError, SessionEnded
from bpipe.protocol import waiting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import REMEMBERED, Sessions
from bpipe.protocol.wire import (
    NOWHERE,
    Admission,
    Hello,
    Kind,
    Position,
    pack_frame,
)
from tests.support.answering import ID, OTHER, START, Listener, opening, resuming
from tests.support.loopback import (
    Frame,
    drain,
    feed,
    plain_and_sealed,
    state,
)
from tests.support.peer import NOW, attach, hear, lose, said

CONFIRM = pack_frame(Kind.CONFIRM, 0)
OK, UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = Admission


def fresh(_: Listener) -> None:
    """Nobody has called."""


def attached_unheard(listener: Listener) -> None:
    listener.admit(opening())


def lost_unheard(listener: Listener) -> None:
    listener.admit(opening())
    lose(listener.session)


def serving(listener: Listener) -> None:
    listener.serve(epoch=5)


def attached(listener: Listener) -> None:
    listener.serve(epoch=4)
    listener.admit(resuming(5))


def ended(listener: Listener) -> None:
    listener.serve(epoch=5)
    listener.session.leave(SessionEnded("a bug"))


def ended_unheard(listener: Listener) -> None:
    listener.session.leave(SessionEnded("a bug"))


@plain_and_sealed
@pytest.mark.parametrize(
    ("before", "hello", "admission"),
    [
        (fresh, opening(), OK),
        (fresh, opening(position=Position(0, 0, 1)), OK),
        (fresh, opening(position=Position(0, 0, 0)), RANGE),
        (fresh, opening(position=Position(0, 0, 1, links=0)), RANGE),
        (fresh, opening(position=Position(0, 0, 1, links=8)), OK),
        (fresh, opening(position=Position(0, 0, 1, links=9)), RANGE),
        (fresh, opening(position=Position(0, 0, 1, needs=1)), OK),
        (fresh, opening(position=Position(0, 0, 1 << 20, needs=2)), RANGE),
        (fresh, opening(position=Position(0, 0, 1 << 20, needs=3)), RANGE),  # its own is small
        (fresh, opening(position=Position(0, 0, 1, needs=4)), VERSION),
        (fresh, opening(position=Position(0, 0, 1, needs=128)), VERSION),
        (fresh, opening()._replace(slot=1), STALE),
        (fresh, opening()._replace(live=3), OK),
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
        (serving, resuming(6, START._replace(links=2)), RANGE),
        (lost_unheard, opening(OTHER, Position(0, 0, 1, needs=1)), RANGE),
        (serving, resuming(6, START._replace(needs=1)), RANGE),
        (serving, resuming(6, START._replace(needs=4)), VERSION),
        (serving, resuming(6)._replace(slot=1), STALE),
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
    before: Callable[[Listener], None], hello: Hello, admission: Admission, secret: Secret | None
) -> None:
    listener = Listener(secret=secret)
    before(listener)
    was = state(listener.session), listener.drops
    greeting, caller = listener.greet(hello)
    verdict = caller.read(drain(greeting, NOW))
    assert verdict.admission is admission
    assert verdict.position == (START if admission is OK else NOWHERE)
    assert greeting.finished is (admission is not OK)
    assert greeting.channel is None
    assert (state(listener.session), listener.drops) == was


@pytest.mark.parametrize(
    ("position", "admission"),
    [
        (Position(0, 3, 100), OK),
        (Position(0, 4, 100), RANGE),
        (Position(2, 1, 100), RANGE),
    ],
)
def test_a_caller_resumes_within_what_was_sent_to_it(
    position: Position, admission: Admission
) -> None:
    listener = Listener(b"abc")
    listener.admit(opening())
    feed(listener.channel, Frame(Kind.ACK, 0).encode(), NOW)
    drain(listener.channel, NOW)
    lose(listener.session)
    found = listener.session if admission is OK else None
    assert listener.table.judge(resuming(2, position), NOW) == (admission, found)


# --- who was never heard gives way ---


def test_a_caller_that_was_never_heard_gives_way_and_the_stream_begins_anew() -> None:
    listener = Listener(b"abc")
    listener.admit(opening())
    drain(listener.channel, NOW)
    lose(listener.session)
    listener.admit(opening(OTHER, Position(0, 0, 2)))
    assert listener.session.id == OTHER
    assert said(listener.session) == [Frame(Kind.ACK, 0)]
    feed(listener.channel, Frame(Kind.ACK, 0).encode(), NOW)
    assert said(listener.session) == [Frame(Kind.DATA, 0, b"ab")]
    assert listener.session.fits(Position(0, 2, 2))
    assert not listener.session.fits(Position(0, 3, 2))


def test_a_session_that_gave_way_leaves_nothing_to_the_next_caller() -> None:
    listener = Listener()
    listener.admit(opening())
    lose(listener.session, ProtocolError("junk"))
    assert listener.session.fruitless == 1
    assert listener.session.patience.outage_since == NOW
    later = NOW + 25 * 3600
    listener.admit(opening(OTHER, Position(0, 0, 7)))
    session = listener.session
    assert (session.history.links, session.fruitless, session.history.replayed) == (1, 0, 0)
    assert (session.patience.outage_since, session.history.last_cause) == (None, None)
    assert session.writer.window == 7
    hear(session, Frame(Kind.ACK, 0), now=later)
    lose(session, now=later)
    waiting.tick(session, later + 1)
    assert not session.over


# --- at CONFIRM it is judged again ---


@plain_and_sealed
def test_of_two_greetings_the_first_to_confirm_makes_the_other_stale(
    secret: Secret | None,
) -> None:
    listener = Listener(secret=secret)
    listener.serve()
    (first, ahead), (second, behind) = (listener.greet(resuming(epoch)) for epoch in (3, 2))
    for greeting, caller in ((first, ahead), (second, behind)):
        assert caller.read(drain(greeting, NOW)).admission is OK
    feed(first, ahead.confirm, NOW)
    drops = listener.drops
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(second, behind.confirm, NOW)
    assert second.channel is None
    assert (listener.session.epoch, listener.session.attached) == (3, True)
    assert listener.drops == drops


def test_who_is_admitted_has_the_session_and_its_old_link_is_dropped() -> None:
    listener = Listener()
    listener.serve()
    drops = listener.drops
    assert listener.table.admit(resuming(2), b"", NOW) is listener.session
    assert listener.session.epoch == 2
    assert listener.drops == drops + 1


def test_the_resume_secret_is_that_of_the_opening() -> None:
    listener = Listener()
    listener.table.admit(opening(), b"of the opening", NOW)
    listener.session.establish()
    listener.table.admit(resuming(2), b"of the resumption", NOW)
    assert listener.session.resume_secret == b"of the opening"


@pytest.mark.parametrize("hello", [opening(OTHER), resuming(2, session=OTHER), resuming(1)])
def test_who_is_not_admitted_drops_nobody(hello: Hello) -> None:
    listener = Listener()
    listener.serve()
    was, drops = state(listener.session), listener.drops
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        listener.table.admit(hello, b"", NOW)
    assert (state(listener.session), listener.drops) == (was, drops)


# --- several sessions ---


def several(count: int) -> tuple[Sessions, list[Session], list[Session]]:
    """A table, the sessions in it, and those whose link it has dropped."""
    dropped: list[Session] = []
    table, sessions = Sessions(dropped.append), [Session(100) for _ in range(count)]
    for session in sessions:
        table.add(session)
    return table, sessions, dropped


def test_each_opening_gets_a_session_of_its_own_as_long_as_one_is_free() -> None:
    table, sessions, _ = several(2)
    for session, id in zip(sessions, (ID, OTHER), strict=True):
        assert table.admit(opening(id), b"", NOW) is session
        attach(session, caller=False)
    assert table.judge(opening(b"c" * 16), NOW) == (BUSY, None)
    assert [session.id for session in sessions] == [ID, OTHER]


def test_who_comes_back_gets_its_own_session_and_only_that_ones_link_is_dropped() -> None:
    table, sessions, dropped = several(2)
    for session, id in zip(sessions, (ID, OTHER), strict=True):
        table.admit(opening(id), b"", NOW)
        attach(session)
        lose(session)
    dropped.clear()
    assert table.admit(resuming(2, session=OTHER), b"", NOW) is sessions[1]
    assert dropped == [sessions[1]]
    assert [session.epoch for session in sessions] == [1, 2]


def test_a_session_that_is_removed_is_unknown() -> None:
    table, (first, second), _ = several(2)
    table.admit(opening(), b"", NOW)
    first.establish()
    table.remove(first)
    assert table.judge(resuming(2), NOW) == (UNKNOWN, None)
    assert table.judge(opening(), NOW) == (OK, second)
    table.remove(second)
    table.remove(second)
    assert table.judge(opening(), NOW) == (FULL, None)  # there may be another one soon


# --- greetings that come again ---


def test_of_the_greetings_that_were_right_the_last_are_remembered() -> None:
    table = Sessions(lambda session: None)
    for number in range(REMEMBERED + 1):
        message = number.to_bytes(4, "big")
        table.recognize(message)
        table.remember(message)
    for number in (1, 2, REMEMBERED):
        with pytest.raises(Forged, match="has come before"):
            table.recognize(number.to_bytes(4, "big"))
    table.recognize(bytes(4))


class Supplied(Listener):
    """A listener whose table makes sessions, at most so many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.made: list[Session] = []
        self.given_up: Session | None = None
        self.most = most
        self.table = Sessions(lambda _: None, None, self.more)

    def more(self) -> Session | None:
        if len(self.made) == self.most:
            return self.given_up
        self.made.append(Session(100))
        self.table.add(self.made[-1])
        return self.made[-1]


def id_of(number: int) -> bytes:
    return bytes([number]) * 16


def test_each_caller_gets_a_session_that_is_made_for_it() -> None:
    listener = Supplied(2)
    for number in range(2):
        assert listener.table.judge(opening(id_of(number)), NOW)[0] is OK
        assert (
            listener.table.judge(opening(id_of(9)), NOW)[1] is listener.made[-1]
        )  # who asks takes none
        assert len(listener.made) == number + 1
        session = listener.table.admit(opening(id_of(number)), b"", NOW)
        attach(session, caller=False)
        assert session is listener.made[number]
    assert listener.table.judge(opening(id_of(9)), NOW) == (FULL, None)
    for number, session in enumerate(listener.made):
        assert listener.table.judge(resuming(2, session=id_of(number)), NOW)[1] is session
        assert listener.table.judge(opening(id_of(number)), NOW) == (STALE, None)


def test_who_was_never_heard_keeps_the_place_until_that_is_taken_away() -> None:
    listener = Supplied(2)
    for number in range(2):
        session = listener.table.admit(opening(id_of(number)), b"", NOW)
        attach(session, caller=False)
        lose(session)
    assert listener.table.judge(opening(id_of(9)), NOW) == (FULL, None)
    for number in range(2):
        assert listener.table.judge(resuming(2, session=id_of(number)), NOW)[0] is OK
    listener.given_up = listener.made[0]
    assert listener.table.admit(opening(id_of(9)), b"", NOW) is listener.made[0]
    assert listener.table.judge(resuming(2, session=id_of(0)), NOW) == (UNKNOWN, None)
    assert listener.table.judge(resuming(2, session=id_of(1)), NOW)[1] is listener.made[1]


def test_a_session_that_is_over_makes_room() -> None:
    listener = Supplied(1)
    session = listener.table.admit(opening(id_of(0)), b"", NOW)
    attach(session, caller=False)
    assert listener.table.judge(opening(id_of(1)), NOW) == (FULL, None)
    session.leave(SessionEnded("it is over"))
    listener.table.remove(session)
    listener.most += 1
    assert listener.table.judge(opening(id_of(1)), NOW)[0] is OK
