from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.errors import (
    LinkLost,
    LocalAbort,
    NotConnected,
    PipeClosed,
    SessionLost,
)
from bpipe.protocol.caller import Caller
from bpipe.protocol.session import Session
from tests.support.peer import (
    ACK,
    DATA,
    NOW,
    Failure,
    aborted,
    all_done,
    assert_over,
    attach,
    cut_short,
    deadline,
    done_over_a_dead_link,
    done_without_a_link,
    hear,
    interrupted,
    lacking_the_ack_of_the_mark,
    lose,
    make,
    said,
    tick,
    up,
)


@pytest.mark.parametrize("cause", ["", "connection refused"])
def test_a_caller_gives_up_when_nobody_answers_in_time(cause: str) -> None:
    session = make()
    session.patience.calling(NOW)
    session.patience.calling(NOW + 20)
    if cause:
        Caller(session).attempt_failed(LinkLost(cause, "refused"))
    assert deadline(session) == NOW + 30
    tick(session, NOW + 29.9)
    assert not session.over
    tick(session, NOW + 30)
    assert_over(session, NotConnected, cause or "nobody answered")
    assert session.failure is not None
    assert session.failure.code == ("refused" if cause else "not-connected")


def test_an_answerer_waits_for_ever_for_a_caller_that_was_never_heard() -> None:
    session = make()
    attach(session, caller=False)
    lose(session)
    assert deadline(session) is None
    tick(session, NOW + 1e9)
    assert not session.over


@pytest.mark.parametrize(
    ("before", "seconds", "failure", "text"),
    [
        (
            interrupted,
            1000,
            SessionLost,
            "without a connection: cut; 0 bytes are confirmed, 3 more",
        ),
        (lacking_the_ack_of_the_mark, 200, SessionLost, "delivery not confirmed: all 3 bytes are"),
        (all_done, 20, None, ""),
        (done_without_a_link, 200, None, ""),
        (done_over_a_dead_link, 200, None, ""),
        (cut_short, 20, PipeClosed, "stopped reading"),
        (aborted, 20, LocalAbort, "disk full; the other end did not answer: end it, too"),
    ],
)
def test_an_end_without_a_link_leaves_after(
    before: Callable[[Session], None], seconds: float, failure: Failure, text: str
) -> None:
    session = make(b"abc")
    before(session)
    assert deadline(session) == NOW + seconds
    tick(session, NOW + seconds - 0.1)
    assert not session.over
    tick(session, NOW + seconds)
    assert_over(session, failure, text)


def test_an_end_that_lacks_more_than_the_ack_of_its_mark_waits_like_any_other() -> None:
    session = make(b"abc")
    attach(session)
    session.finish()
    said(session)
    hear(session, ACK(3))
    lose(session)
    assert deadline(session) == NOW + 1000


def test_the_bytes_that_are_confirmed_and_those_that_are_not_are_told() -> None:
    session = up(b"abcdef")
    hear(session, ACK(4))
    lose(session)
    tick(session, NOW + 1000)
    assert_over(session, SessionLost, "4 bytes are confirmed, 2 more are not")


def test_a_limit_that_expired_during_sleep_allows_ten_seconds_more() -> None:
    session = up()
    lose(session)
    tick(session, NOW + 5000)
    assert not session.over
    assert deadline(session) == NOW + 5010
    tick(session, NOW + 5010)
    assert_over(session, SessionLost, "gave up after 5010 s")


def test_a_sleep_before_the_first_link_does_not_take_the_ten_seconds_of_an_outage() -> None:
    session = make()
    session.patience.calling(NOW)
    tick(session, NOW + 500)
    assert not session.over
    attach(session, now=NOW + 505)
    hear(session, DATA(0, b"x"), now=NOW + 505)
    lose(session, now=NOW + 600)
    tick(session, NOW + 5000)
    assert not session.over
    assert deadline(session) == NOW + 5010
