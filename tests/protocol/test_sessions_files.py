"""Who may send next, where what comes is written to a file."""

from __future__ import annotations

import pytest

from bpipe.errors import LinkLost, SessionLost
from bpipe.protocol.ending import Phase
from bpipe.protocol.patience import DESERTED
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import SUPERSEDED, Sessions
from bpipe.protocol.sessions import deserted as gone
from bpipe.protocol.terms import SMALLEST_WINDOW
from bpipe.protocol.wire import FILE, RECORDS, Admission, Kind, Reason, Verdict
from tests.support.answering import OTHER, START, Listener, opening, resuming
from tests.support.loopback import drain, feed, plain_and_sealed, state, take
from tests.support.peer import ACK, DATA, FIN, NOW, attach, deliver_mark, hear, lose, said

OK, UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = Admission
NEEDS = RECORDS | FILE
LATER = NOW + DESERTED
FIRST = START._replace(window=SMALLEST_WINDOW)


def receiver(secret: Secret | None = None) -> Listener:
    """One whose sender was heard; there is a link."""
    listener = Listener(b"what lies there", secret, NEEDS, SMALLEST_WINDOW)
    caller = listener.admit(opening(position=FIRST))
    feed(listener.channel, caller.frames.pack(Kind.ACK, 0), NOW)
    return listener


def deserted(secret: Secret | None = None) -> Listener:
    """The same, and the link was lost just now."""
    listener = receiver(secret)
    drain(listener.channel, NOW)
    lose(listener.session)
    return listener


def ask(listener: Listener, now: float) -> Verdict:
    """What another sender hears that begins."""
    greeting, caller = listener.greet(opening(OTHER, FIRST), now)
    return caller.read(drain(greeting, now))


def supersede(listener: Listener, now: float = LATER) -> None:
    """Another sender begins."""
    greeting, caller = listener.greet(opening(OTHER, FIRST), now)
    assert caller.read(drain(greeting, now)).admission is OK
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(greeting, caller.confirm, now)
    assert greeting.channel is None


@plain_and_sealed
def test_another_sender_waits_until_the_first_was_away_for_long(secret: Secret | None) -> None:
    assert ask(receiver(secret), NOW + 2).admission is BUSY
    assert ask(receiver(secret), NOW + 3).admission is FULL  # there is a link, which may be dead
    assert ask(deserted(secret), NOW).admission is FULL
    assert ask(deserted(secret), LATER - 0.1).admission is FULL
    assert ask(deserted(secret), LATER).admission is OK


@plain_and_sealed
def test_who_only_asks_changes_nothing_and_hears_nothing_of_the_other(
    secret: Secret | None,
) -> None:
    listener = deserted(secret)
    was = state(listener.session), listener.drops
    assert ask(listener, LATER) == Verdict(OK, FIRST._replace(needs=NEEDS))
    assert (state(listener.session), listener.drops) == was
    assert listener.table.judge(resuming(2, FIRST), LATER)[0] is OK


@plain_and_sealed
def test_the_session_ends_when_the_next_sender_confirms(secret: Secret | None) -> None:
    listener = deserted(secret)
    supersede(listener)
    failure = listener.session.failure
    assert isinstance(failure, SessionLost)
    assert (str(failure), failure.code) == ("another sender has begun anew", SUPERSEDED)


def test_who_has_confirmed_begins_anew_as_soon_as_there_is_a_session() -> None:
    """It may take what is left of the old one a while to end."""
    listener, heir = deserted(), Session(SMALLEST_WINDOW, needs=NEEDS)
    supersede(listener)
    for _ in range(2):
        assert listener.table.judge(resuming(2, FIRST, OTHER), LATER)[0] is UNKNOWN
        assert listener.table.judge(opening(OTHER, FIRST), LATER)[0] is FULL
        listener.table.remove(listener.session)
    listener.table.add(heir)
    assert listener.table.judge(opening(OTHER, FIRST), LATER) == (OK, heir)


def test_a_sender_that_comes_back_in_time_keeps_its_session() -> None:
    listener = deserted()
    greeting, caller = listener.greet(opening(OTHER, FIRST), LATER)
    caller.read(drain(greeting, LATER))
    listener.admit(resuming(2, FIRST))
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        feed(greeting, caller.confirm, LATER)
    assert listener.session.phase is Phase.UP
    assert listener.session.attached


def test_a_receiver_that_is_done_ends_with_its_success() -> None:
    listener = receiver()
    session = listener.session
    session.finish()
    said(session)
    hear(session, DATA(0, b"xyz"), FIN(3), ACK(session.writer.end))
    take(session)
    deliver_mark(session)
    assert session.phase is Phase.DONE
    assert ask(listener, NOW).admission is FULL  # the link is up, and the place soon free
    lose(session)
    assert ask(listener, LATER - 0.1).admission is FULL
    supersede(listener)
    assert session.over
    assert session.failure is None


def test_a_receiver_that_fails_is_waited_for() -> None:
    listener = deserted()
    listener.session.abort(Reason.LOCAL_ERROR, "the disk is full", NOW)
    assert ask(listener, LATER).admission is FULL


def test_the_time_counts_from_the_last_link() -> None:
    listener = deserted()
    attach(listener.session, now=LATER, caller=False)
    lose(listener.session, now=LATER)
    assert ask(listener, LATER + DESERTED - 0.1).admission is FULL
    assert ask(listener, LATER + DESERTED).admission is OK


@pytest.mark.parametrize("needs", [0, RECORDS])
def test_no_other_session_ends_for_a_new_caller(needs: int) -> None:
    listener = Listener(needs=needs)
    listener.serve()
    assert ask(listener, NOW + 1e6).admission is BUSY


def test_where_many_may_come_it_is_asked_who_gives_way() -> None:
    session = Session(SMALLEST_WINDOW, needs=NEEDS)
    table = Sessions(lambda _: None, None, lambda: session if gone(session, LATER) else None)
    table.add(session)
    session.establish()
    attach(session, now=LATER, caller=False)
    assert table.judge(opening(OTHER, FIRST), LATER) == (BUSY, None)
    lose(session, now=NOW + 1)
    assert table.judge(opening(OTHER, FIRST), LATER) == (FULL, None)
    attach(session, caller=False)
    lose(session)
    with pytest.raises(LinkLost, match="moved on during the greeting"):
        table.admit(opening(OTHER, FIRST), b"", LATER)
    assert isinstance(session.failure, SessionLost)
