"""What a link may count on, whoever drives it: both sides of a greeting, and a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from bpipe.errors import LinkLost
from bpipe.protocol.driver import Driver
from bpipe.protocol.ring import fill
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from tests.support.loopback import CALLER, LISTENER, SIDES, Link, Pair, drain, write
from tests.support.loopback import SECRET as SHARED

NOW = 100.0


class Case(NamedTuple):
    """Somebody who drives a link, and what the other end says first."""

    driver: Driver
    hears: bytes


def pair(secret: Secret | None) -> tuple[Pair, Link]:
    """A fresh link between two who have something to say."""
    both = Pair(*(Session(100, secret=secret) for _ in SIDES))
    both.now = NOW
    for session in both.sessions:
        write(session, b"some bytes")
    return both, both.connect()


def caller(secret: Secret | None) -> Case:
    link = pair(secret)[1]
    link.send(CALLER, NOW)
    link.arrive(LISTENER, NOW)
    verdict = drain(link.ends[LISTENER].driver, NOW)
    return Case(link.ends[CALLER].driver, verdict)


def answerer(secret: Secret | None) -> Case:
    link = pair(secret)[1]
    return Case(link.ends[LISTENER].driver, drain(link.ends[CALLER].driver, NOW))


def channel(secret: Secret | None) -> Case:
    both, link = pair(secret)
    link.run(NOW)
    for session in both.sessions:
        write(session, b"more")
    return Case(link.ends[CALLER].driver, drain(link.ends[LISTENER].driver, NOW))


def speaking(secret: Secret | None) -> Driver:
    """A channel that has something to say."""
    both, link = pair(secret)
    link.run(NOW)
    write(both.sessions[CALLER], b"more")
    return link.ends[CALLER].driver


each_driver = pytest.mark.parametrize("make", [caller, answerer, channel])
each_secret = pytest.mark.parametrize("secret", [None, SHARED], ids=["plain", "sealed"])
each_speaker = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda secret: pair(secret)[1].ends[CALLER].driver, id="caller"),
        pytest.param(speaking, id="channel"),
    ],
)


def hear(case: Case, step: int) -> None:
    """Let what the other end says arrive in pieces of this size."""
    rest = case.hears
    while rest:
        count = fill(case.driver.incoming(), rest[:step])
        assert count > 0
        case.driver.received(count, NOW)
        rest = rest[count:]


@each_secret
@each_driver
def test_it_lends_memory_for_what_comes_and_changes_nothing_by_that(
    make: Callable[[Secret | None], Case], secret: Secret | None
) -> None:
    case = make(secret)
    sizes = [[len(view) for view in case.driver.incoming()] for _ in range(2)]
    assert sum(sizes[0]) > 0
    assert sizes[0] == sizes[1]


@each_secret
@each_driver
@pytest.mark.parametrize("step", [1, 7, 33, 1000])
def test_it_takes_what_comes_in_pieces_of_any_size(
    make: Callable[[Secret | None], Case], secret: Secret | None, step: int
) -> None:
    case = make(secret)
    hear(case, step)
    # Who has understood it has an answer: the next message, or an acknowledgement a second later.
    case.driver.tick(NOW + 1)
    assert drain(case.driver, NOW + 1)


@each_secret
@each_speaker
@pytest.mark.parametrize("step", [1, 7, 33, 1000])
def test_what_goes_out_stays_the_same_until_it_is_sent(
    make: Callable[[Secret | None], Driver], secret: Secret | None, step: int
) -> None:
    driver = make(secret)
    rest = b"".join(driver.outgoing(NOW))
    assert rest
    while rest:
        assert b"".join(driver.outgoing(NOW)) == rest
        driver.sent(min(step, len(rest)), NOW)
        rest = rest[step:]
    assert driver.outgoing(NOW) == []


@each_secret
@each_driver
def test_it_says_nothing_again(
    make: Callable[[Secret | None], Case], secret: Secret | None
) -> None:
    case = make(secret)
    drain(case.driver, NOW)
    assert case.driver.outgoing(NOW) == []


@each_secret
@each_driver
def test_its_deadline_lies_ahead_and_before_it_a_tick_is_harmless(
    make: Callable[[Secret | None], Case], secret: Secret | None
) -> None:
    driver = make(secret).driver
    assert driver.deadline() > NOW
    driver.tick(NOW)
    assert driver.deadline() > NOW


@each_secret
@each_driver
def test_a_link_over_which_nothing_comes_is_given_up_at_one_of_its_deadlines(
    make: Callable[[Secret | None], Case], secret: Secret | None
) -> None:
    driver = make(secret).driver
    now = NOW
    lost = False
    while not lost:
        drain(driver, now)
        now = driver.deadline()
        assert NOW < now < NOW + 10
        try:
            driver.tick(now)
        except LinkLost:
            lost = True


@each_secret
@each_driver
def test_what_nobody_says_ends_the_link(
    make: Callable[[Secret | None], Case], secret: Secret | None
) -> None:
    case = make(secret)
    junk = case._replace(hears=b"\xff" * len(case.hears))
    with pytest.raises(LinkLost):
        hear(junk, 1000)
