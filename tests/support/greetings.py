"""Sealed greetings in memory, message by message, and sessions in every state before one."""

from __future__ import annotations

from collections.abc import Callable

from bpipe.errors import LinkLost
from bpipe.protocol.greeting import AnswererGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Position
from tests.support.loopback import (
    CALLER,
    LISTENER,
    SECRET,
    SIDES,
    Link,
    Pair,
    State,
    state,
    take,
    write,
)

NOW = 0.0
OTHER = Secret(b"another secret")
WINDOW = 300
START = Position(0, 0, WINDOW)
M1, M2, M3, M4 = MESSAGES = range(4)
SIZES = (128, 80, 32, 32)
FROM = (CALLER, LISTENER, CALLER, LISTENER)


def session() -> Session:
    return Session(WINDOW, secret=SECRET)


# --- what there is before somebody interferes ---


def fresh() -> Pair:
    """Nobody has called yet."""
    pair = Pair(session(), session())
    write(pair.sessions[CALLER], b"from the caller")
    write(pair.sessions[LISTENER], b"from the listener")
    return pair


def lost() -> Pair:
    """A session whose link both ends have lost."""
    pair = held()
    pair.links[0].ends[LISTENER].lose(LinkLost("cut"), NOW)
    return pair


def held() -> Pair:
    """A session whose caller has lost its link; the listener does not know."""
    pair = live()
    pair.links[0].ends[CALLER].lose(LinkLost("cut"), NOW)
    return pair


def live() -> Pair:
    """A session with a link."""
    pair = fresh()
    pair.connect().run(NOW)
    assert all(each.attached for each in pair.sessions)
    return pair


def states(pair: Pair) -> tuple[State, State]:
    return state(pair.sessions[CALLER]), state(pair.sessions[LISTENER])


def check_alive(pair: Pair) -> None:
    """The listener's link, if the caller still has it too, moves bytes both ways."""
    old = pair.links[0]
    assert all(end.cause is None for end in old.ends)
    for side in SIDES:
        take(pair.sessions[side])
        write(pair.sessions[side], b"more")
    old.run(NOW)
    for side in SIDES:
        assert take(pair.sessions[side]).endswith(b"more")


def check_recovers(pair: Pair) -> None:
    """The honest caller comes back, and nothing is missing."""
    for _ in range(3):  # a CONFIRM that was lost may cost one attempt, and a READY one more
        if not pair.sessions[CALLER].attached:
            for link in pair.links[-1:]:
                link.ends[LISTENER].lose(LinkLost("cut"), NOW)
            pair.connect().run(NOW)
    assert all(each.attached and not each.over for each in pair.sessions)
    assert take(pair.sessions[LISTENER]) == b"from the caller"
    assert take(pair.sessions[CALLER]) == b"from the listener"


def exchange(link: Link, message: int, change: Callable[[bytes], bytes] = bytes) -> None:
    """One of the four messages goes over the link, and may be changed on the way."""
    near, far = FROM[message], 1 - FROM[message]
    link.send(near, NOW, SIZES[message])
    end = link.ends[far]
    assert len(end.inbox) == SIZES[message]
    end.inbox = change(end.inbox)
    link.arrive(far, NOW)


def greet_until(pair: Pair, message: int) -> Link:
    """A fresh link, over which everything before this message has gone."""
    link = pair.connect()
    for earlier in range(message):
        exchange(link, earlier)
    return link


def flip(bit: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        out = bytearray(data)
        out[bit // 8] ^= 1 << bit % 8
        return bytes(out)

    return change


def knock(pair: Pair) -> AnswererGreeting:
    """A connection to the listener, which has forgotten the greetings that it has heard."""
    pair.forget()
    return AnswererGreeting(pair.table, NOW)
