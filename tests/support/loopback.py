"""Links in memory: bytes move, and time passes, only when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import pytest

from bpipe.errors import LinkLost
from bpipe.protocol.caller import Caller
from bpipe.protocol.channel import Channel
from bpipe.protocol.driver import Driver
from bpipe.protocol.frames import Frames
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting, Greeting, begin
from bpipe.protocol.ring import fill
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import (
    HEADER_SIZE,
    Header,
    Hello,
    Kind,
    Position,
    Verdict,
    pack_data_header,
    pack_frame,
    unpack_header,
)

SECRET = Secret(bytes(range(32)))
plain_and_sealed = pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "sealed"])

EVERYTHING = 1 << 40  # more bytes than any test moves
CALLER, LISTENER = SIDES = (0, 1)


class Frame(NamedTuple):
    """A frame as a value."""

    kind: Kind
    number: int
    payload: bytes = b""
    how: int = 0

    def encode(self) -> bytes:
        """Its bytes on the link."""
        if self.kind is Kind.DATA:
            return pack_data_header(self.number, len(self.payload)) + self.payload
        return pack_frame(self.kind, self.number, self.payload, self.how)


def decode(data: bytes) -> list[Frame]:
    """The frames in these bytes, which end with the last of them."""
    frames = []
    while data:
        kind, length, number, how, _ = unpack_header(data[:HEADER_SIZE])
        payload, data = data[HEADER_SIZE:][:length], data[HEADER_SIZE + length :]
        assert len(payload) == length
        frames.append(Frame(kind, number, payload, how))
    return frames


def feed(driver: Driver, data: bytes, now: float, step: int = EVERYTHING) -> None:
    """Let these bytes arrive, at most ``step`` of them at once."""
    while data:
        count = fill(driver.incoming(), data[:step])
        assert count > 0
        driver.received(count, now)
        data = data[count:]


def unpack(frames: Frames, data: bytes, step: int = EVERYTHING) -> list[tuple[Header, bytes]]:
    """Let these bytes arrive on a link that is driven by hand, at most ``step`` of them at once.

    Returns the headers of the frames that they complete, and their messages for people. ``frames``
    have joined a reader, who has the payloads.
    """
    found: list[tuple[Header, bytes]] = []
    while data:
        count = fill(frames.incoming(), data[:step])
        assert count > 0
        for header in frames.receive(count):
            found.append((header, frames.message if header.kind is Kind.ABORT else b""))
        data = data[count:]
    return found


def drain(driver: Driver, now: float, limit: int = EVERYTHING) -> bytes:
    """Take what goes out, at most ``limit`` bytes."""
    out = b""
    while len(out) < limit and (views := driver.outgoing(now)):
        part = b"".join(views)[: limit - len(out)]
        driver.sent(len(part), now)
        out += part
    return out


def write(session: Session, data: bytes) -> int:
    """Be the producer; returns how much of ``data`` found room."""
    count = fill(session.writer.space(len(data)), data)
    session.writer.wrote(count)
    return count


def take(session: Session, limit: int = EVERYTHING) -> bytes:
    """Be the consumer."""
    data = b"".join(session.reader.readable(limit))
    session.reader.took(len(data))
    return data


class State(NamedTuple):
    """Everything of a session that somebody who does not belong to it might want to change."""

    id: bytes | None
    resume_secret: bytes
    epoch: int
    position: Position
    cursors: tuple[int, int, int, int]
    links: int
    fruitless: int
    attached: bool
    established: bool
    over: bool
    waiting: bytes


def state(session: Session) -> State:
    """How this session is now."""
    writer = session.writer
    return State(
        session.id,
        session.resume_secret,
        session.epoch,
        session.position,
        (writer.acked, writer.sent, writer.high, writer.window),
        session.history.links,
        session.fruitless,
        session.attached,
        session.established,
        session.over,
        b"".join(session.reader.readable(EVERYTHING)),
    )


class End:
    """One end of a link: its greeting, then its channel, and the bytes on their way to it."""

    def __init__(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.inbox = b""
        self.cause: LinkLost | None = None  # why it was lost

    @property
    def channel(self) -> Channel:
        """What speaks for the session here."""
        assert self.greeting.channel is not None
        return self.greeting.channel

    @property
    def driver(self) -> Driver:
        """What speaks at this end now."""
        return self.channel if self.greeting.done else self.greeting

    def lose(self, cause: LinkLost, now: float) -> None:
        """This end closes, or learns that the network has."""
        if self.cause is None:
            self.cause, self.inbox = cause, b""
            self.greeting.lost(cause, now)


class Link:
    """What is between a caller and a listener; nothing of it moves by itself."""

    def __init__(
        self,
        caller: Caller,
        sessions: Sessions,
        now: float = 0.0,
        answered: Callable[[bool], None] = lambda accepted: None,
        slot: int = 0,
    ) -> None:
        greeting = CallerGreeting(caller, now, answered, slot=slot)
        self.ends = End(greeting), End(AnswererGreeting(sessions, now))

    def send(self, side: int, now: float, limit: int = EVERYTHING) -> int:
        """Put what this end says on its way; returns the number of bytes."""
        near = self.ends[side]
        sent = 0
        while near.cause is None:
            driver = near.driver
            if data := drain(driver, now, limit - sent):
                sent += len(data)
                self.carry(1 - side, data, now)
            if driver is near.driver:  # else the channel goes on where the greeting ended
                break
        return sent

    def carry(self, side: int, data: bytes, now: float) -> None:
        """This is on its way to an end."""
        if self.ends[side].cause is None:
            self.ends[side].inbox += data

    def ended(self, side: int) -> bool:
        """Whether nothing more is on its way to this end, which learns that the other closed."""
        return self.ends[1 - side].cause is not None

    def arrive(self, side: int, now: float, limit: int = EVERYTHING) -> int:
        """Let bytes arrive at this end; the end of file too, if the far end has closed."""
        near = self.ends[side]
        if near.cause is not None:
            return 0
        arrived = 0
        try:
            while near.inbox and arrived < limit:
                count = fill(near.driver.incoming(), near.inbox[: limit - arrived])
                if not count:
                    break
                near.inbox = near.inbox[count:]
                arrived += count
                near.driver.received(count, now)
            if not near.inbox and self.ended(side):
                raise LinkLost("the connection was closed")
        except LinkLost as cause:
            near.lose(cause, now)
        return arrived

    def run(self, now: float) -> int:
        """Move everything until both ends are silent; returns the number of bytes."""
        moved = 0
        while step := sum(self.send(side, now) + self.arrive(side, now) for side in SIDES):
            moved += step
        return moved

    def cut(self, now: float) -> None:
        """The network drops what is in flight, and both ends learn of it."""
        for end in self.ends:
            end.lose(LinkLost("cut"), now)


class Stranger:
    """Who stands in the caller's place: he says what he wants, with the secrets that he has."""

    def __init__(
        self, hello: Hello, secret: Secret | None = None, resume_secret: bytes = b""
    ) -> None:
        self._handshake = begin(secret)
        self._resume_secret = resume_secret
        self.hello = self._handshake.pack_hello(hello)

    def read(self, verdict: bytes) -> Verdict:
        """What M2 says. Raises LinkLost if it says nothing to him."""
        return self._handshake.unpack_verdict(verdict, self._resume_secret)

    @cached_property
    def frames(self) -> Frames:
        """How he says what comes after M2, which he has read or has failed to."""
        return self._handshake.frames(caller=True)

    @cached_property
    def confirm(self) -> bytes:
        """M3."""
        return self.frames.pack(Kind.CONFIRM, 0)


class Pair:
    """A caller, a listener, and the links that were made between them."""

    def __init__(self, caller: Session, listener: Session) -> None:
        self.sessions = caller, listener
        self.caller = Caller(caller)
        self.now = 0.0
        self.links: list[Link] = []
        self.forget()

    def forget(self) -> None:
        """The listener does not know any more which greetings it has heard."""
        listener = self.sessions[LISTENER]
        self.table = Sessions(self._drop_link, listener.secret)
        self.table.add(listener)

    def connect(self) -> Link:
        """A fresh link, over which nothing was said; the caller must have no other."""
        self.links.append(Link(self.caller, self.table, self.now))
        return self.links[-1]

    def _drop_link(self, session: Session) -> None:
        for link in self.links:
            if link.ends[LISTENER].greeting.channel is not None:
                link.ends[LISTENER].lose(LinkLost("the peer has come back"), self.now)
