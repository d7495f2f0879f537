from __future__ import annotations

import pytest

from bpipe.errors import LocalAbort, PeerAborted, PipeClosed
from bpipe.protocol.ending import INTERRUPT_LINGER, LONGEST, Ending, quoted
from bpipe.protocol.wire import LARGEST_MESSAGE, Reason

NOW = 100.0
LINGER = 30.0


def aborted(reason: Reason, message: str = "why") -> Ending:
    ending = Ending()
    ending.begin_abort(reason, message, NOW, LINGER)
    return ending


def test_a_done_end_leaves_when_its_bye_is_written_and_the_peers_has_come() -> None:
    ending = Ending()
    assert not ending.due(done=True)
    ending.bye_written = True
    assert not ending.due(done=True)
    ending.peer_bye = True
    assert ending.due(done=True)
    assert not ending.due(done=False)
    assert ending.verdict(done=True, cut_short=False) is None
    assert isinstance(ending.verdict(done=True, cut_short=True), PipeClosed)


@pytest.mark.parametrize("reason", Reason)
def test_an_abort_waits_for_the_peers_bye_and_not_for_ever(reason: Reason) -> None:
    ending = aborted(reason)
    quick = reason in (Reason.INTERRUPTED, Reason.PROTOCOL)
    assert ending.abort_until == NOW + (INTERRUPT_LINGER if quick else LINGER)
    assert ending.aborting
    assert not ending.due(done=False)
    ending.peer_bye = True
    assert ending.due(done=False)


def test_an_abort_is_reported_by_its_reason() -> None:
    assert isinstance(aborted(Reason.BROKEN_PIPE).failure, PipeClosed)
    assert isinstance(aborted(Reason.LOCAL_ERROR).failure, LocalAbort)


@pytest.mark.parametrize("message", ["", "plain", "\N{EURO SIGN}" * 600, "caf\udce9"])
def test_a_message_fits_its_frame_and_is_text(message: str) -> None:
    reason, said = aborted(Reason.LOCAL_ERROR, message).abort_message()
    assert reason is Reason.LOCAL_ERROR
    assert len(said) <= LARGEST_MESSAGE
    assert said.decode() == message or message not in ("", "plain")


def test_an_abort_that_is_heard_is_answered_before_this_end_leaves() -> None:
    ending = Ending()
    ending.hear_abort(Reason.LOCAL_ERROR, b"disk full", done=False)
    assert ending.aborting
    assert not ending.due(done=False)
    ending.bye_written = True
    assert ending.due(done=False)
    failure = ending.verdict(done=False, cut_short=False)
    assert isinstance(failure, PeerAborted)
    assert str(failure) == 'the other end: "disk full"'


def test_an_abort_does_not_take_back_what_a_done_end_has() -> None:
    ending = Ending()
    ending.hear_abort(Reason.INTERRUPTED, b"", done=True)
    assert ending.verdict(done=True, cut_short=False) is None


def test_of_two_aborts_that_cross_the_own_is_reported() -> None:
    ending = aborted(Reason.LOCAL_ERROR, "mine")
    ending.hear_abort(Reason.LOCAL_ERROR, b"yours", done=False)
    assert str(ending.failure) == "mine"


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
