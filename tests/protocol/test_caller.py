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
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    Admission,
    Hello,
    Opening,
    Position,
    Reason,
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
    caller.refused(Admission.UNKNOWN)
    assert caller.hello() == Hello(Opening.OPEN, bytes([2]) * 16, 1, Position(0, 0, 100))
    assert caller.session.resume_secret == b""


def never_up(_: Session) -> None:
    """The first greeting is under way."""


UNKNOWN, STALE, RANGE, BUSY = list(Admission)[1:]


@pytest.mark.parametrize(
    ("admission", "before", "failure", "text"),
    [
        (UNKNOWN, interrupted, SessionLost, "no longer knows this session; 0 bytes are confirmed"),
        (UNKNOWN, lacking_the_ack_of_the_mark, SessionLost, "all 3 bytes are, but not their end"),
        (UNKNOWN, all_done, None, ""),
        (UNKNOWN, cut_short, PipeClosed, "stopped reading"),
        (UNKNOWN, aborted, LocalAbort, "disk full"),
        (RANGE, never_up, NotConnected, "stands elsewhere"),
        (RANGE, interrupted, SessionLost, "stands elsewhere"),
        (RANGE, all_done, None, ""),
        (RANGE, cut_short, PipeClosed, "stopped reading"),
        (RANGE, aborted, LocalAbort, "disk full"),
        (BUSY, never_up, Busy, "serving another session"),
    ],
)
def test_a_refusal_that_ends_the_session(
    admission: Admission, before: Callable[[Session], None], failure: Failure, text: str
) -> None:
    session = make(b"abc")
    before(session)
    Caller(session).refused(admission)
    assert_over(session, failure, text)


@pytest.mark.parametrize("admission", [UNKNOWN, RANGE, BUSY])
def test_a_refusal_beside_a_link_means_nothing_as_long_as_there_is_one(
    admission: Admission,
) -> None:
    session = up()
    Caller(session).refused(admission)
    assert not session.over
    lose(session)
    Caller(session).refused(admission)
    assert session.over is (admission is not BUSY)


@pytest.mark.parametrize(
    ("admission", "before"),
    [
        (UNKNOWN, never_up),
        (STALE, never_up),
        (STALE, interrupted),
        (STALE, all_done),
        (STALE, aborted),
        (BUSY, interrupted),
        (BUSY, aborted),
    ],
)
def test_a_refusal_after_which_the_next_attempt_may_succeed(
    admission: Admission, before: Callable[[Session], None]
) -> None:
    session = make(b"abc")
    before(session)
    Caller(session).refused(admission)
    assert not session.over


def test_a_busy_listener_may_be_serving_an_id_that_was_given_up() -> None:
    """Its CONFIRM was overtaken by the next greeting, and may still arrive."""
    caller = numbered()
    caller.hello()
    caller.confirming(b"")
    caller.refused(UNKNOWN)
    caller.refused(BUSY)
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
