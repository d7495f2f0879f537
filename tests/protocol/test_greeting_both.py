from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.wire import (
    HELLO_SIZE,
)
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SIDES,
    Link,
    Pair,
    plain_and_sealed,
    take,
    write,
)
from tests.support.peer import CUT, NOW
from tests.support.several import several


def pair(secret: Secret | None, *written: bytes) -> Pair:
    """A caller and a listener who have each written something."""
    both = Pair(Session(100, secret=secret), Session(100, secret=secret))
    for session, data in zip(both.sessions, written, strict=False):
        write(session, data)
    return both


@plain_and_sealed
@pytest.mark.parametrize("step", [1, 7, HELLO_SIZE, 1000])
def test_a_greeting_attaches_both_ends_whatever_the_pieces(
    step: int, secret: Secret | None
) -> None:
    both = pair(secret, b"from the caller", b"from the listener")
    link = both.connect()
    while sum(link.send(side, NOW, step) + link.arrive(side, NOW, step) for side in SIDES):
        pass
    assert all(session.attached and session.history.links == 1 for session in both.sessions)
    assert take(both.sessions[CALLER]) == b"from the listener"
    assert take(both.sessions[LISTENER]) == b"from the caller"


@plain_and_sealed
@given(cuts=st.lists(st.integers(0, 600), max_size=6))
def test_wherever_a_link_is_cut_the_next_ones_bring_the_rest_and_nothing_twice(
    secret: Secret | None,
    cuts: list[int],
) -> None:
    streams = bytes(range(70)), bytes(range(100, 190))
    both = pair(secret, *streams)
    for cut in cuts:
        link = both.connect()
        moved = 1
        while cut and moved:
            moved = 0
            for side in SIDES:
                link.send(side, NOW)
                count = link.arrive(side, NOW, min(cut, 13))
                moved, cut = moved + count, cut - count
        link.cut(NOW)
    both.connect().run(NOW)
    assert take(both.sessions[LISTENER]) == streams[CALLER]
    assert take(both.sessions[CALLER]) == streams[LISTENER]


def exchange(link: Link, *sides: int) -> None:
    """One message after the other, each from such a side."""
    for side in sides:
        link.send(side, NOW)
        link.arrive(1 - side, NOW)


@plain_and_sealed
def test_a_lost_confirm_is_followed_by_a_new_session(secret: Secret | None) -> None:
    both = pair(secret, b"abc")
    link = both.connect()
    exchange(link, CALLER, LISTENER)
    link.send(CALLER, NOW)
    link.cut(NOW)
    refused = both.connect()
    refused.run(NOW)
    assert "does not know this session" in str(refused.ends[CALLER].cause)
    both.connect().run(NOW)
    assert take(both.sessions[LISTENER]) == b"abc"


@plain_and_sealed
def test_a_lost_ready_is_followed_by_a_resumption(secret: Secret | None) -> None:
    both = pair(secret, b"abc")
    link = both.connect()
    exchange(link, CALLER, LISTENER, CALLER)
    link.send(LISTENER, NOW)
    link.cut(NOW)
    assert not both.sessions[CALLER].established
    both.connect().run(NOW)
    assert both.sessions[LISTENER].epoch == 2
    assert take(both.sessions[LISTENER]) == b"abc"


@plain_and_sealed
def test_a_caller_that_comes_back_replaces_the_link_that_the_listener_still_holds(
    secret: Secret | None,
) -> None:
    both = pair(secret)
    old = both.connect()
    old.run(NOW)
    old.ends[CALLER].lose(CUT, NOW)
    assert both.sessions[LISTENER].attached
    write(both.sessions[LISTENER], b"abc")
    both.connect().run(NOW)
    assert str(old.ends[LISTENER].cause) == "the peer has come back"
    assert take(both.sessions[CALLER]) == b"abc"


def test_the_greeting_tells_both_ends_of_several_links_how_far_the_other_is() -> None:
    both = several(2)
    link = both.connect(1)
    for side in (CALLER, LISTENER, CALLER, LISTENER):
        link.send(side, both.now)
        both.now += 0.2
        link.arrive(1 - side, both.now)
    for side in SIDES:
        _, channel = both.channels(side)[-1]
        assert isinstance(channel, SlotChannel)
        assert channel.round_trip == pytest.approx(0.4)
