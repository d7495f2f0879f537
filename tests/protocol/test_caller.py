from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from bpipe.errors import (
    Busy,
    LinkLost,
    LocalAbort,
    NobodyListens,
    NotConnected,
    PipeClosed,
    SessionLost,
)
from bpipe.protocol.caller import Caller
from bpipe.protocol.patience import UNKNOWN_FOR, UNKNOWN_LINGER
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    FILE,
    NOWHERE,
    RECORDS,
    Admission,
    Hello,
    Opening,
    Position,
    Reason,
    Verdict,
)
from tests.support.loopback import take
from tests.support.peer import (
    ACK,
    DATA,
    FIN,
    LIMITS,
    NOW,
    Failure,
    aborted,
    all_done,
    assert_over,
    attach,
    cut_short,
    deadline,
    deliver_mark,
    finish_both,
    hear,
    interrupted,
    lacking_the_ack_of_the_mark,
    lose,
    make,
    said,
    up,
)


def numbered() -> Caller:
    """Who calls for a session, whose ids are counted."""
    numbers = itertools.count(1)
    return Caller(make(), lambda: bytes([next(numbers)]) * 16)


def refuse(caller: Caller, admission: Admission, now: float = NOW) -> None:
    """The answerer says no."""
    caller.refused(Verdict(admission, NOWHERE), now)


def test_two_receivers_are_told_that_nobody_sends() -> None:
    caller = Caller(Session(1 << 20, needs=FILE | RECORDS), lambda: bytes(16))
    caller.hello()
    refuse(caller, Admission.RANGE)
    assert str(caller.session.failure).startswith("the listener has --output, too")


def test_a_listener_that_has_anything_else_than_we_need_stands_elsewhere() -> None:
    caller = Caller(Session(1 << 20), lambda: bytes(16))
    caller.hello()
    refuse(caller, Admission.RANGE)
    assert str(caller.session.failure) == "the peer stands elsewhere in the stream"


def test_a_caller_opens_until_it_has_confirmed_and_resumes_from_then_on() -> None:
    caller = numbered()
    nowhere, first = Position(0, 0, 100), bytes([1]) * 16
    assert caller.hello() == Hello(Opening.OPEN, first, 1, nowhere)
    assert caller.hello() == Hello(Opening.OPEN, first, 2, nowhere)
    caller.confirming(b"")
    assert caller.hello() == Hello(Opening.RESUME, first, 3, nowhere)


def test_the_resume_secret_is_that_of_the_first_confirm() -> None:
    caller = numbered()
    caller.hello()
    for resume_secret in (b"first", b"second"):
        caller.confirming(resume_secret)
        assert caller.session.resume_secret == b"first"


def test_a_session_has_an_id_of_16_bytes_that_nobody_else_has() -> None:
    ids = {Caller(Session(1)).hello().session for _ in range(10)}
    assert len(ids) == 10
    assert {len(each) for each in ids} == {16}


def test_a_hello_tells_what_was_delivered_and_what_was_received() -> None:
    caller = numbered()
    attach(caller.session)
    hear(caller.session, DATA(0, b"abc"))
    take(caller.session, 2)
    assert caller.hello().position == Position(2, 3, 100)


def test_a_caller_that_is_unknown_before_its_first_ready_opens_anew() -> None:
    caller = numbered()
    caller.hello()
    caller.confirming(b"a secret")
    caller.hello()
    refuse(caller, Admission.UNKNOWN)
    assert caller.hello() == Hello(Opening.OPEN, bytes([2]) * 16, 1, Position(0, 0, 100))
    assert caller.session.resume_secret == b""


def never_up(_: Session) -> None:
    """The first greeting is under way."""


UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = list(Admission)[1:]


@pytest.mark.parametrize(
    ("admission", "before", "failure", "text"),
    [
        (VERSION, never_up, NotConnected, "speaks another version"),
        (RANGE, never_up, NotConnected, "--buffer of at least 1K"),  # so small is ours
        (RANGE, interrupted, SessionLost, "stands elsewhere"),
        (RANGE, all_done, None, ""),
        (RANGE, cut_short, PipeClosed, "stopped reading"),
        (RANGE, aborted, LocalAbort, "disk full"),
        (BUSY, never_up, Busy, "serving another session, heard 0 s ago"),
    ],
)
def test_a_refusal_that_ends_the_session(
    admission: Admission, before: Callable[[Session], None], failure: Failure, text: str
) -> None:
    session = make(b"abc")
    before(session)
    refuse(Caller(session), admission)
    assert_over(session, failure, text)


@pytest.mark.parametrize("silence", [4, 5])
def test_only_of_who_may_be_dead_it_is_said_what_to_do_then(silence: int) -> None:
    session = make(b"abc")
    verdict = Verdict(BUSY, NOWHERE._replace(received=silence))
    Caller(session).refused(verdict, NOW)
    assert_over(session, Busy, f"heard {silence} s ago{'; if that one is dead' * (silence > 4)}")
    assert ("--give-up-after" in str(session.failure)) is (silence > 4)


@pytest.mark.parametrize("admission", [UNKNOWN, VERSION])
@pytest.mark.parametrize(
    ("before", "seconds", "failure", "text"),
    [
        (interrupted, UNKNOWN_FOR, SessionLost, "knows this session; 0 bytes are confirmed"),
        (
            lacking_the_ack_of_the_mark,
            UNKNOWN_FOR,
            SessionLost,
            "all 3 bytes are, but not their end",
        ),
        (all_done, UNKNOWN_LINGER, None, ""),
        (cut_short, UNKNOWN_LINGER, PipeClosed, "stopped reading"),
        (aborted, UNKNOWN_LINGER, LocalAbort, "disk full"),
    ],
)
def test_that_nobody_knows_the_session_is_believed_when_it_was_heard_for_long_enough(
    admission: Admission,
    before: Callable[[Session], None],
    seconds: float,
    failure: Failure,
    text: str,
) -> None:
    session = make(b"abc")
    before(session)
    caller = Caller(session)
    for when in (0, seconds / 2, seconds - 0.1):
        refuse(caller, admission, NOW + when)
        assert not session.over
    refuse(caller, admission, NOW + seconds)
    assert_over(session, failure, text)


def test_silence_and_other_refusals_neither_end_a_row_nor_make_it_longer() -> None:
    session = make()
    interrupted(session)
    caller = Caller(session)
    caller.attempt_failed(LinkLost("no answer"))
    refuse(caller, BUSY, NOW - UNKNOWN_FOR)
    refuse(caller, UNKNOWN, NOW)
    caller.attempt_failed(LinkLost("no answer"))
    refuse(caller, STALE, NOW + UNKNOWN_FOR)
    assert not session.over
    refuse(caller, UNKNOWN, NOW + UNKNOWN_FOR)
    assert session.over


def test_a_link_ends_a_row_of_refusals() -> None:
    session = make()
    interrupted(session)
    caller = Caller(session)
    refuse(caller, UNKNOWN, NOW)
    attach(session)
    lose(session)
    refuse(caller, UNKNOWN, NOW + UNKNOWN_FOR)
    assert not session.over


@pytest.mark.parametrize("admission", [UNKNOWN, RANGE, BUSY])
def test_a_refusal_beside_a_link_means_nothing_as_long_as_there_is_one(
    admission: Admission,
) -> None:
    session = up()
    refuse(Caller(session), admission)
    assert not session.over
    lose(session)
    refuse(Caller(session), admission)
    assert session.over is (admission is RANGE)


@pytest.mark.parametrize(
    ("admission", "before"),
    [
        (UNKNOWN, never_up),
        (STALE, never_up),
        (STALE, interrupted),
        (STALE, all_done),
        (STALE, aborted),
        (FULL, never_up),
        (BUSY, interrupted),
        (BUSY, aborted),
    ],
)
def test_a_refusal_after_which_the_next_attempt_may_succeed(
    admission: Admission, before: Callable[[Session], None]
) -> None:
    session = make(b"abc")
    before(session)
    refuse(Caller(session), admission)
    assert not session.over


def test_a_busy_listener_may_be_serving_an_id_that_was_given_up() -> None:
    """Its CONFIRM was overtaken by the next greeting, and may still arrive."""
    caller = numbered()
    caller.hello()
    caller.confirming(b"")
    refuse(caller, UNKNOWN)
    refuse(caller, BUSY)
    assert not caller.session.over


def done_after_its_abort(session: Session) -> None:
    """It has failed, and then its end mark was acknowledged."""
    attach(session)
    session.finish()
    said(session)
    hear(session, FIN(0))
    deliver_mark(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    hear(session, ACK(4))
    assert session.done
    lose(session)


@pytest.mark.parametrize(
    ("before", "over", "failure"),
    [
        (never_up, False, None),
        (interrupted, False, None),
        (lacking_the_ack_of_the_mark, False, None),
        (aborted, False, LocalAbort),
        (all_done, True, None),
        (cut_short, True, PipeClosed),
        (done_after_its_abort, True, LocalAbort),
    ],
)
def test_only_a_done_end_leaves_when_nobody_listens_any_more(
    before: Callable[[Session], None], over: bool, failure: Failure
) -> None:
    session = make(b"abc")
    before(session)
    Caller(session).attempt_failed(LinkLost("no answer"))
    assert not session.over
    Caller(session).attempt_failed(NobodyListens("connection refused"))
    assert session.over is over
    assert type(session.failure) is (failure or type(None))
    assert str(session.history.last_cause) == "connection refused"


def test_a_connect_timeout_of_zero_is_one_try() -> None:
    session = make(limits=LIMITS._replace(connect_timeout=0))
    session.patience.calling(NOW)
    assert deadline(session) is None
    Caller(session).attempt_failed(LinkLost("connection refused"))
    assert_over(session, NotConnected, "connection refused")


def test_a_connect_timeout_of_zero_does_not_concern_a_session_that_was_up() -> None:
    session = up(limits=LIMITS._replace(connect_timeout=0))
    lose(session)
    Caller(session).attempt_failed(LinkLost("connection refused"))
    assert not session.over


@pytest.mark.parametrize(
    ("before", "failure"),
    [(lambda session: None, NotConnected), (cut_short, PipeClosed), (all_done, type(None))],
)
def test_a_failure_that_no_attempt_mends_is_the_end(
    before: Callable[[Session], None], failure: Failure
) -> None:
    session = make(b"abc")
    before(session)
    Caller(session).hopeless(NotConnected("there is no python3"))
    assert session.over
    assert type(session.failure) is failure


def test_beside_a_link_it_means_nothing() -> None:
    session = up()
    Caller(session).hopeless(NotConnected("there is no python3"))
    assert not session.over


def test_an_attempt_that_fails_beside_a_link_is_noted_in_its_slot_and_ends_nothing() -> None:
    session = up(limits=LIMITS._replace(connect_timeout=0))
    cause = NobodyListens("connection refused")
    Caller(session).attempt_failed(cause, 2)
    assert session.history.slot(2).cause is cause
    assert session.history.slot(0).cause is None
    finish_both(session)
    Caller(session).attempt_failed(cause, 2)
    assert not session.over
