from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import (
    LinkLost,
    LocalAbort,
    PeerAborted,
    PipeClosed,
    ProtocolError,
    SessionEnded,
)
from bpipe.protocol import waiting
from bpipe.protocol.ending import INTERRUPT_LINGER, LONGEST, NEXT, Ending, Phase, quoted
from bpipe.protocol.session import Session
from bpipe.protocol.wire import LARGEST_MESSAGE, Reason
from tests.support.loopback import Frame, take
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    NOW,
    STOP,
    attach,
    finish_both,
    hear,
    lose,
    said,
    up,
)

LINGER = 30.0


def aborted(reason: Reason, message: str = "why") -> Ending:
    ending = Ending()
    ending.begin_abort(reason, message, NOW, LINGER)
    return ending


def test_a_done_end_leaves_when_its_bye_is_written_and_the_peers_has_come() -> None:
    ending = Ending()
    assert not ending.due
    ending.enter(Phase.DONE)
    ending.part()
    assert not ending.due
    ending.wrote_bye()
    assert not ending.due
    ending.hear_bye()
    assert ending.due
    assert ending.verdict(done=True, cut_short=False) is None
    assert isinstance(ending.verdict(done=True, cut_short=True), PipeClosed)


def test_a_done_end_that_hears_bye_first_leaves_when_its_own_is_written() -> None:
    ending = Ending()
    ending.enter(Phase.DONE)
    ending.hear_bye()
    assert not ending.due
    ending.wrote_bye()
    assert ending.due


def test_nobody_says_bye_before_the_end() -> None:
    ending = Ending()
    with pytest.raises(ProtocolError, match="BYE before the end"):
        ending.hear_bye()
    assert not ending.peer_bye


@pytest.mark.parametrize("reason", Reason)
def test_an_abort_waits_for_the_peers_bye_and_not_for_ever(reason: Reason) -> None:
    ending = aborted(reason)
    quick = reason in (Reason.INTERRUPTED, Reason.PROTOCOL)
    assert ending.abort_until == NOW + (INTERRUPT_LINGER if quick else LINGER)
    assert ending.phase is Phase.ABORTING
    assert not ending.due
    ending.hear_bye()
    assert ending.due
    assert not ending.parting


def test_an_abort_is_reported_by_its_reason() -> None:
    assert isinstance(aborted(Reason.BROKEN_PIPE).failure, PipeClosed)
    assert isinstance(aborted(Reason.LOCAL_ERROR).failure, LocalAbort)


def test_an_abort_that_nobody_has_answered_is_reported_as_such() -> None:
    for crossed in (False, True):
        ending = aborted(Reason.BROKEN_PIPE, "grep has gone")
        if crossed:
            ending.hear_abort(Reason.LOCAL_ERROR, b"disk full")
        ending.give_up_abort()
        assert isinstance(ending.failure, PipeClosed)
        assert str(ending.failure) == (
            "grep has gone"
            if crossed
            else "grep has gone; the other end did not answer: end it, too"
        )


@pytest.mark.parametrize("message", ["", "plain", "\N{EURO SIGN}" * 600, "caf\udce9"])
def test_a_message_fits_its_frame_and_is_text(message: str) -> None:
    reason, said = aborted(Reason.LOCAL_ERROR, message).abort_message()
    assert reason is Reason.LOCAL_ERROR
    assert len(said) <= LARGEST_MESSAGE
    assert said.decode() == message or message not in ("", "plain")


def test_an_abort_that_is_heard_is_answered_before_this_end_leaves() -> None:
    ending = Ending()
    ending.hear_abort(Reason.LOCAL_ERROR, b"disk full")
    assert ending.phase is Phase.ANSWERING
    assert ending.parting
    assert not ending.due
    ending.wrote_bye()
    assert ending.due
    failure = ending.verdict(done=False, cut_short=False)
    assert isinstance(failure, PeerAborted)
    assert str(failure) == 'the other end: "disk full"'


def test_an_abort_does_not_take_back_what_a_done_end_has() -> None:
    ending = Ending()
    ending.enter(Phase.DONE)
    ending.hear_abort(Reason.INTERRUPTED, b"")
    assert ending.phase is Phase.ANSWERING
    assert ending.failure is None
    assert ending.verdict(done=True, cut_short=False) is None


def test_of_two_aborts_that_cross_the_own_is_reported() -> None:
    ending = aborted(Reason.LOCAL_ERROR, "mine")
    ending.hear_abort(Reason.LOCAL_ERROR, b"yours")
    assert str(ending.failure) == "mine"


def test_of_two_aborts_that_are_heard_the_first_is_reported() -> None:
    ending = Ending()
    for message in (b"first", b"second"):
        ending.hear_abort(Reason.LOCAL_ERROR, message)
    assert str(ending.failure) == 'the other end: "first"'


def test_an_end_that_has_left_reports_what_it_has_left_with() -> None:
    ending = Ending()
    ending.leave(SessionEnded("a bug"))
    ending.hear_abort(Reason.LOCAL_ERROR, b"disk full")
    assert ending.phase is Phase.OVER
    assert str(ending.failure) == "a bug"


# --- the table of phases ---

UP, DONE, ABORTING, ANSWERING, OVER = Phase
ALLOWED = [(before, after) for before in Phase for after in NEXT[before]]


def done(session: Session) -> None:
    finish_both(session)


def done_as_far_as_possible(session: Session) -> None:
    """The producer has ended, and the consumer has taken what has come."""
    if session.writer.mark is None:
        session.finish()
    take(session)
    if session.reader.drained and not session.reader.done:
        session.deliver_mark()


def speak(frame: Frame, session: Session) -> None:
    """The peer says this, and hears what there is; over a new link if that may not be said."""
    if session.attached:
        said(session)
        try:
            hear(session, frame)
        except LinkLost as error:
            lose(session, error)
    if not session.attached and not session.over:
        attach(session, received=session.writer.acked)


def aborting(session: Session) -> None:
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)


def hear_abort(session: Session) -> None:
    hear(session, ABORT(Reason.LOCAL_ERROR, b"theirs"))


def fail(session: Session) -> None:
    session.leave(SessionEnded("a bug"))


def exchange_byes(session: Session) -> None:
    said(session)
    hear(session, BYE(0))


def answer(session: Session) -> None:
    assert BYE(0) in said(session)


def nothing(_: Session) -> None:
    """It is up already."""


REACH: dict[Phase, Callable[[Session], None]] = {
    UP: nothing,
    DONE: done,
    ABORTING: aborting,
    ANSWERING: hear_abort,
    OVER: fail,
}
STEPS: dict[tuple[Phase, Phase], Callable[[Session], None]] = {
    (UP, DONE): done,
    (UP, ABORTING): aborting,
    (UP, ANSWERING): hear_abort,
    (UP, OVER): fail,
    (DONE, ANSWERING): hear_abort,
    (DONE, OVER): exchange_byes,
    (ABORTING, ANSWERING): hear_abort,
    (ABORTING, OVER): exchange_byes,
    (ANSWERING, OVER): answer,
}


ORDER = [UP, DONE, ABORTING, ANSWERING, OVER]


def in_phase(phase: Phase) -> Session:
    """A session that has come so far, as sessions do."""
    session = up(b"abc")
    REACH[phase](session)
    assert session.phase is phase
    return session


def test_every_transition_of_the_table_is_driven_below() -> None:
    assert set(ALLOWED) == set(STEPS)


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_session_takes_every_step_of_the_table(before: Phase, after: Phase) -> None:
    session = in_phase(before)
    change = session.change
    STEPS[before, after](session)
    assert session.phase is after
    assert session.change > change


@pytest.mark.parametrize("before", Phase)
@pytest.mark.parametrize("after", Phase)
def test_a_step_that_is_not_in_the_table_is_refused(before: Phase, after: Phase) -> None:
    ending = in_phase(before).ending
    if after in NEXT[before]:
        ending.enter(after)
        assert ending.phase is after
        return
    with pytest.raises(AssertionError):
        ending.enter(after)
    assert ending.phase is before


EVENTS: list[Callable[[Session], None]] = [
    done_as_far_as_possible,
    aborting,
    lambda session: session.abort(Reason.INTERRUPTED, "interrupted", NOW),
    lambda session: session.consumer_gone("head has gone", NOW),
    lambda session: session.stop(),
    lambda session: session.settle(NOW),
    lambda session: waiting.tick(session, NOW + 10_000),
    lambda session: lose(session) if session.attached else None,
    fail,
    *(
        partial(speak, frame)
        for frame in (ACK(0), ACK(3), ACK(4), FIN(0), FIN(1), DATA(0, b"x"), STOP(3), BYE(0))
    ),
    partial(speak, ABORT(Reason.LOCAL_ERROR, b"theirs")),
]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_whatever_happens_only_steps_of_the_table_are_taken(
    events: list[Callable[[Session], None]],
) -> None:
    """A step that is not in it would be an AssertionError."""
    session = up(b"abc")
    for event in events:
        before = session.phase
        event(session)
        assert ORDER.index(before) <= ORDER.index(session.phase)


# --- what failures say ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("disk full", '"disk full"'),
        ("\x1b[2J\nx", r'"\x1b[2J\x0ax"'),
        ("a" + 200 * " " + "b", '"a b"'),
        ("a\u3164\u2800b", r'"a\x3164\x2800b"'),
        ('x"; all delivered', '"x\'; all delivered"'),
        ("gone bpipe: all delivered", '"gone bpipe all delivered"'),
    ],
)
def test_what_the_other_end_says_cannot_be_taken_for_what_this_end_says(
    text: str, said: str
) -> None:
    assert quoted(text) == said


@pytest.mark.parametrize("letter", ["a", "\N{CJK UNIFIED IDEOGRAPH-7BA1}", "\0", "  x", "\u3164"])
def test_what_the_other_end_says_is_cut(letter: str) -> None:
    assert LONGEST / 2 <= len(quoted(letter * 500)) <= LONGEST + 10
