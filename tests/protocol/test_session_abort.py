from __future__ import annotations

import pytest

from bpipe.errors import (
    LinkLost,
    LocalAbort,
    PeerAborted,
    PipeClosed,
    ProtocolError,
    SessionEnded,
)
from bpipe.protocol.caller import Caller
from bpipe.protocol.ending import Phase
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    LARGEST_MESSAGE,
    NOWHERE,
    Admission,
    Kind,
    Reason,
    Verdict,
)
from tests.support.loopback import Frame, take, write
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    LIMITS,
    NOW,
    STOP,
    Failure,
    assert_over,
    attach,
    deadline,
    deliver_mark,
    finish_both,
    hear,
    lose,
    make,
    next_link,
    said,
    tick,
    up,
)


def test_an_abort_and_its_answer_come_after_an_ack_of_what_is_delivered() -> None:
    for abort, said_last in ((True, ABORT(2, b"disk full")), (False, BYE(0))):
        session = up()
        hear(session, DATA(0, b"abc"))
        take(session)
        if abort:
            session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
        else:
            hear(session, ABORT(2, b"theirs"))
        assert said(session) == [ACK(3), said_last]


def test_an_abort_is_said_on_each_link_until_it_is_answered_by_bye() -> None:
    session = up(b"abc")
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    assert said(session) == [ABORT(2, b"disk full")]
    assert said(session) == []
    next_link(session)
    assert said(session) == [ACK(0), ABORT(2, b"disk full")]
    hear(session, BYE(0))
    assert_over(session, LocalAbort, "disk full")


def test_a_stop_an_ack_and_an_abort_are_said_in_this_order() -> None:
    session = make(b"abc")
    session.stop()
    attach(session)
    session.abort(Reason.LOCAL_ERROR, "", NOW)
    assert said(session) == [STOP(0), ACK(0), ABORT(2)]


@pytest.mark.parametrize(
    ("reason", "linger"),
    [
        (Reason.BROKEN_PIPE, LIMITS.linger),
        (Reason.LOCAL_ERROR, LIMITS.linger),
        (Reason.INTERRUPTED, 2),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_an_abort_waits_for_its_answer_at_most_for_the_linger(
    reason: Reason, linger: float, linked: bool
) -> None:
    session = up(limits=LIMITS._replace(heartbeat=60))
    if not linked:
        lose(session)
    session.abort(reason, "why", NOW)
    assert deadline(session) == session.waits_until == NOW + linger
    tick(session, NOW + linger - 0.1)
    assert not session.over
    tick(session, NOW + linger)
    assert_over(session, PipeClosed if reason is Reason.BROKEN_PIPE else LocalAbort, "why")


def test_the_heartbeat_goes_on_while_an_abort_waits_for_its_answer() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "why", NOW)
    assert deadline(session) == NOW + LIMITS.heartbeat


def test_the_aborter_reads_on_and_keeps_nothing_and_acknowledges_nothing() -> None:
    session = up()
    session.abort(Reason.BROKEN_PIPE, "why", NOW)
    said(session)
    hear(session, DATA(0, bytes(50)), FIN(50))
    deliver_mark(session)
    assert session.reader.buffered == 0
    assert said(session, NOW + 0.5) == []
    assert session.position[:3] == (0, 51, 100)


def test_an_abort_that_is_crossed_by_another_is_not_said_to_be_unanswered() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    said(session)
    hear(session, ABORT(3, b"interrupted"))
    tick(session, NOW + LIMITS.linger)
    assert_over(session, LocalAbort)
    assert str(session.failure) == "disk full"


def test_a_session_that_is_over_does_not_change_its_mind_when_its_link_is_lost() -> None:
    session = up(b"abc")
    session.finish()
    hear(session, FIN(0))
    deliver_mark(session)
    said(session)
    hear(session, ABORT(Reason.LOCAL_ERROR))
    said(session)
    hear(session, ACK(4))
    lose(session)
    assert_over(session, PeerAborted)


def test_a_message_for_people_is_cut_at_a_whole_character() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "\N{EURO SIGN}" * 200, NOW)
    [(_, _, payload, _)] = said(session)
    assert payload.decode() == "\N{EURO SIGN}" * (LARGEST_MESSAGE // 3)


def test_a_message_for_people_need_not_be_unicode_text() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "cannot read caf\udce9", NOW)
    [(kind, _, payload, _)] = said(session)
    assert kind is Kind.ABORT
    assert payload.startswith(b"cannot read caf")


@pytest.mark.parametrize(
    ("frame", "failure", "text"),
    [
        (ABORT(1), PipeClosed, ""),
        (ABORT(1, b"grep has gone"), PipeClosed, '"grep has gone"'),
        (ABORT(2, b"disk full"), PeerAborted, '"disk full"'),
        (ABORT(3), PeerAborted, ""),
        (ABORT(99), PeerAborted, ""),
        (ABORT(2, b"\x1b[2J\n\xff"), PeerAborted, '"\\x1b[2J\\x0a\N{REPLACEMENT CHARACTER}"'),
        (ABORT(2, bytes(512)), PeerAborted, '"' + "\\x00" * 50 + '..."'),
    ],
)
def test_an_abort_is_answered_by_bye_and_ends_the_session_with_its_reason(
    frame: Frame, failure: Failure, text: str
) -> None:
    session = up(b"abc")
    write(session, b"def")
    hear(session, frame)
    assert session.phase is Phase.ANSWERING
    assert not session.over
    assert said(session) == [BYE(0)]
    assert_over(session, failure)
    assert str(session.failure).startswith("the other end: ")
    assert str(session.failure).endswith(text)
    assert str(session.failure).isprintable()


def test_nothing_is_delivered_that_comes_after_an_abort() -> None:
    session = up()
    hear(session, ABORT(2), DATA(0, b"abc"))
    assert session.reader.buffered == 0


def test_an_abort_ends_the_session_although_its_answer_cannot_be_said() -> None:
    session = up()
    hear(session, ABORT(2, b"disk full"))
    lose(session)
    assert_over(session, PeerAborted, "disk full")


def test_an_end_that_has_aborted_reports_it_although_it_is_done_meanwhile() -> None:
    session = up()
    session.finish()
    said(session)
    hear(session, FIN(0))
    deliver_mark(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    hear(session, ACK(1))
    assert session.done
    hear(session, BYE(0))
    assert_over(session, LocalAbort, "disk full")


def test_two_aborts_that_cross_end_both_each_with_its_own_reason() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "mine", NOW)
    said(session)
    hear(session, ABORT(2, b"theirs"))
    assert said(session) == [BYE(0)]
    assert_over(session, LocalAbort, "mine")


def test_only_the_first_reason_counts() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "first", NOW)
    session.abort(Reason.INTERRUPTED, "second", NOW)
    assert said(session) == [ABORT(2, b"first")]


@pytest.mark.parametrize("linked", [False, True])
def test_an_abort_without_anybody_who_could_know_of_the_session_ends_it_at_once(
    linked: bool,
) -> None:
    session = make()
    if linked:
        attach(session, caller=False)
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    assert session.over is not linked
    assert isinstance(session.failure, LocalAbort)


def test_an_answerer_that_has_heard_no_frame_says_its_abort_when_its_caller_is_back() -> None:
    """The caller has had READY: it would call for a day."""
    session = make()
    attach(session, caller=False)
    lose(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    assert (session.over, session.replaceable) == (False, False)
    attach(session, caller=False)
    assert said(session) == [ACK(0), ABORT(2, b"disk full")]
    hear(session, BYE(0))
    assert_over(session, LocalAbort, "disk full")


def test_a_bye_has_no_number() -> None:
    session = up()
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    with pytest.raises(ProtocolError):
        hear(session, BYE(5))
    assert not session.over


CUT_SHORT = pytest.mark.parametrize(("cut_short", "failure"), [(False, None), (True, PipeClosed)])


def done(cut_short: bool) -> Session:
    """A done end; the peer has discarded some of its stream, or nothing."""
    session = up(b"abc")
    if cut_short:
        hear(session, STOP(0))  # before any of it was begun
    finish_both(session)
    return session


@CUT_SHORT
def test_a_done_end_that_is_told_to_abort_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    assert_over(session, failure)


@CUT_SHORT
def test_a_done_end_that_meets_an_abort_answers_it_and_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    hear(session, ABORT(3, b"interrupted"))
    assert session.failure is None
    assert said(session) == [ACK(1), BYE(0)]
    assert_over(session, failure)


@CUT_SHORT
def test_a_done_end_that_meets_an_abort_and_loses_the_link_leaves_with_its_status(
    cut_short: bool, failure: Failure
) -> None:
    session = done(cut_short)
    hear(session, ABORT(3, b"interrupted"))
    lose(session)
    assert_over(session, failure)


def test_an_end_that_is_over_ignores_what_comes_later() -> None:
    session = done(cut_short=False)
    said(session)
    hear(session, BYE(0))
    session.abort(Reason.INTERRUPTED, "interrupted", NOW)
    Caller(session).refused(Verdict(Admission.RANGE, NOWHERE), NOW)
    Caller(session).attempt_failed(LinkLost("no answer"))
    session.leave(SessionEnded("a bug"))
    tick(session, NOW + 10_000)
    session.settle(NOW)
    assert_over(session, None)


def test_an_end_that_has_given_up_is_not_done_by_what_its_consumer_does_later() -> None:
    session = up()
    hear(session, FIN(0))
    session.leave(SessionEnded("gave up"))
    deliver_mark(session)
    assert not session.reader.done


def test_a_session_can_be_ended_by_what_nobody_foresaw() -> None:
    session = up()
    session.leave(SessionEnded("a bug"))
    assert_over(session, SessionEnded, "a bug")
