"""A session over a link in memory whose other end is the test: it says frames, and hears them."""

from __future__ import annotations

from functools import partial

from bpipe.errors import LinkLost, SessionEnded
from bpipe.protocol import waiting
from bpipe.protocol.channel import Channel
from bpipe.protocol.frames import Frames
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Kind, Position, Reason
from tests.support.loopback import Frame, decode, drain, feed, take, write

NOW = 100.0
WINDOW = 100  # of either end, unless a test says otherwise
LIMITS = Limits(heartbeat=2, connect_timeout=30, give_up_after=1000, linger=20)
CUT = LinkLost("cut")

DATA, FIN, ACK, STOP = (partial(Frame, kind) for kind in list(Kind)[:4])
PING, PONG, BYE, ABORT = (partial(Frame, kind) for kind in list(Kind)[4:8])
RATE = partial(Frame, Kind.RATE)

Failure = type[SessionEnded] | None


def make(
    written: bytes = b"",
    *,
    buffer_size: int = WINDOW,
    limits: Limits = LIMITS,
    bucket: Bucket | None = None,
) -> Session:
    """A session that has no link yet."""
    session = Session(buffer_size, limits, bucket=bucket)
    write(session, written)
    return session


def join(
    session: Session, position: Position, frames: Frames, *, now: float = NOW, caller: bool = True
) -> Channel:
    """A greeting has ended: the peer stands there, and these are the link's frames."""
    channel = Channel(session, frames, now)
    if caller:
        session.establish()
    session.attach(channel, position, now)
    return channel


def attach(
    session: Session, received: int = 0, *, now: float = NOW, caller: bool = True
) -> Channel:
    """A link on which the peer has received so much, and taken what it has acknowledged."""
    position = Position(session.writer.acked, received, WINDOW)
    return join(session, position, Frames(), now=now, caller=caller)


def up(written: bytes = b"", *, buffer_size: int = WINDOW, limits: Limits = LIMITS) -> Session:
    """A session with a link, on which everything was said that was due."""
    session = make(written, buffer_size=buffer_size, limits=limits)
    attach(session)
    said(session)
    return session


def channel(session: Session) -> Channel:
    """What speaks over the link that this session has."""
    assert isinstance(session.channel, Channel)
    return session.channel


def said(session: Session, now: float = NOW) -> list[Frame]:
    """What the session says now."""
    return decode(drain(channel(session), now))


def hear(session: Session, *frames: Frame, now: float = NOW) -> None:
    """The peer says this."""
    feed(channel(session), b"".join(frame.encode() for frame in frames), now)


def lose(session: Session, cause: LinkLost = CUT, now: float = NOW) -> None:
    """The link is gone."""
    channel(session).detach(cause, now)


def next_link(session: Session, received: int = 0, *, now: float = NOW) -> None:
    """The link is cut, and the next one is attached."""
    lose(session, now=now)
    attach(session, received, now=now)


def tick(session: Session, now: float) -> None:
    """Time has passed. Raises LinkLost when the link has to be given up."""
    waiting.tick(session, now)
    if session.channel is not None and not session.over:
        session.channel.tick(now)


def deadline(session: Session) -> float | None:
    """When it has to be looked at the clock again; None: not before something else happens."""
    due = [waiting.deadline(session)]
    if session.channel is not None and not session.over:
        due.append(session.channel.deadline())
    return min((each for each in due if each is not None), default=None)


def deliver_mark(session: Session, now: float = NOW) -> None:
    """The consumer was closed."""
    session.deliver_mark()
    session.settle(now)


def finish_both(session: Session) -> None:
    """Both streams end and are delivered; the session is done, and has not said BYE."""
    session.finish()
    said(session)
    hear(session, FIN(session.reader.received))
    if session.reader.stopped is None:
        take(session)
        deliver_mark(session)
    hear(session, ACK(session.writer.end))
    assert session.done


def assert_over(session: Session, failure: Failure, text: str = "") -> None:
    """It has left, with this kind of failure (None: success), whose text has this in it."""
    assert session.over
    assert type(session.failure) is (failure or type(None))
    assert text in str(session.failure)
    assert deadline(session) is None


# --- what may have become of one ---


def interrupted(session: Session) -> None:
    """It has written something, which nobody has taken; the link was cut."""
    attach(session)
    said(session)
    lose(session)


def lacking_the_ack_of_the_mark(session: Session) -> None:
    """All that it has written, three bytes, is acknowledged, and not its end."""
    attach(session)
    session.finish()
    said(session)
    hear(session, ACK(3), FIN(0))
    deliver_mark(session)
    lose(session)


def all_done(session: Session) -> None:
    """It is done, and the peer was heard after it had said so."""
    attach(session)
    finish_both(session)
    said(session)
    hear(session, PING(1), now=NOW + 0.001)
    lose(session)


def done_without_a_link(session: Session) -> None:
    """Its consumer was slow, and nobody knows yet that it has taken the last byte."""
    attach(session)
    session.finish()
    said(session)
    hear(session, DATA(0, b"xyz"), FIN(3), ACK(session.writer.end))
    said(session)
    lose(session)
    take(session)
    deliver_mark(session)


def done_over_a_dead_link(session: Session) -> None:
    """What it said of that went into a path that was dead already."""
    attach(session)
    finish_both(session)
    said(session)
    lose(session)


def cut_short(session: Session) -> None:
    """It is done, and the peer has discarded what it wrote."""
    attach(session)
    hear(session, STOP(0))
    finish_both(session)
    said(session)
    hear(session, PING(1), now=NOW + 0.001)
    lose(session)


def aborted(session: Session) -> None:
    """It has failed while it had no link."""
    interrupted(session)
    session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
