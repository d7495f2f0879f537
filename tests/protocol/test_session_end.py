from __future__ import annotations

import pytest

from bpipe.protocol.frames import Frames
from bpipe.protocol.wire import (
    HEADER_SIZE,
    Position,
)
from tests.support.loopback import drain
from tests.support.peer import (
    ACK,
    BYE,
    FIN,
    NOW,
    assert_over,
    channel,
    deliver_mark,
    finish_both,
    hear,
    join,
    lose,
    next_link,
    said,
    up,
)


def test_an_end_says_bye_when_it_is_done_and_leaves_when_both_have_said_it() -> None:
    session = up(b"abc")
    finish_both(session)
    assert said(session) == [ACK(1), BYE(0)]
    assert not session.over
    hear(session, BYE(0))
    assert_over(session, None)


def test_an_end_that_hears_bye_first_leaves_when_its_own_is_written() -> None:
    session = up()
    finish_both(session)
    hear(session, BYE(0))
    bye = 2 * HEADER_SIZE
    drain(channel(session), NOW, limit=bye - 1)
    assert not session.over
    drain(channel(session), NOW)
    assert_over(session, None)


def test_bye_is_said_on_each_link() -> None:
    session = up()
    finish_both(session)
    for _ in range(2):
        assert said(session)[-1] == BYE(0)
        assert said(session) == []
        next_link(session, received=1)


@pytest.mark.parametrize("missing", ["ack", "mark", "delivery"])
def test_an_end_is_not_done_before_both_marks_are_delivered_and_its_own_is_acknowledged(
    missing: str,
) -> None:
    session = up(b"abc")
    session.finish()
    said(session)
    hear(session, ACK(3 if missing == "ack" else 4))
    if missing != "mark":
        hear(session, FIN(0))
    if missing == "ack":
        deliver_mark(session)
    assert not session.done
    assert BYE(0) not in said(session, NOW + 0.5)


def test_the_numbers_of_a_greeting_do_not_make_an_end_done() -> None:
    session = up(b"abc")
    session.finish()
    said(session)
    hear(session, FIN(0))
    deliver_mark(session)
    lose(session)
    join(session, Position(4, 4, 100), Frames())
    assert not session.done
    hear(session, ACK(4))
    assert session.done
