"""A session that has a rate, as its link sees it: a link asks, puts bytes out, and asks again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.protocol.ending import Phase
from bpipe.protocol.frames import Frames
from bpipe.protocol.history import Loss
from bpipe.protocol.noise import CipherState
from bpipe.protocol.rate import BURST, GRAIN, SLOWEST, Bucket
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Kind, Position, Reason
from tests.support.loopback import Frame, drain, feed, take, unpack, write
from tests.support.peer import (
    ACK,
    BYE,
    CUT,
    DATA,
    LIMITS,
    NOW,
    PING,
    PONG,
    RATE,
    attach,
    channel,
    deadline,
    finish_both,
    hear,
    join,
    lose,
    make,
    next_link,
    said,
    tick,
)

BUFFER = 1 << 20
MUCH = Position(0, 0, BUFFER)
RATES = [SLOWEST, 50_000, 2 << 20]


def sealed() -> Frames:
    return SealedFrames(CipherState(bytes(32)), CipherState(bytes(32)))


def start(rate: int, frames: Callable[[], Frames] = Frames) -> Session:
    """One that has more to send than it may, over a link on which nothing was said yet."""
    patient = LIMITS._replace(heartbeat=1e6)
    session = make(bytes(BUFFER), buffer_size=BUFFER, limits=patient, bucket=Bucket(rate))
    join(session, MUCH, frames())
    return session


def again(session: Session, now: float) -> None:
    """The link is lost, and with it all that went out; the next one is attached."""
    lose(session, now=now)
    join(session, MUCH, Frames(), now=now)


class Line:
    """A link of a session in virtual time."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = NOW
        self.left: list[tuple[float, int]] = []
        self.out = b""
        self.takes = 1 << 40  # bytes, until it takes more

    def flush(self) -> None:
        """Put on the link what may go now."""
        data = drain(channel(self.session), self.now, self.takes)
        self.takes -= len(data)
        self.out += data
        if data:
            self.left.append((self.now, len(data)))

    def run(self, until: float) -> None:
        """Look at the clock whenever the session has asked for that."""
        self.flush()
        while (due := deadline(self.session)) is not None and due < until:
            assert due > self.now
            self.now = due
            tick(self.session, due)
            self.flush()
        self.now = until

    def worst(self) -> int:
        """The most bytes that have left in a second."""
        return max(
            sum(count for at, count in self.left if start <= at < start + 1)
            for start, _ in self.left
        )

    @property
    def total(self) -> int:
        return sum(count for _, count in self.left)


@pytest.mark.parametrize("frames", [Frames, sealed])
@pytest.mark.parametrize("rate", RATES)
def test_no_second_has_more_than_the_rate(rate: int, frames: Callable[[], Frames]) -> None:
    session = start(rate, frames)
    line = Line(session)
    until = NOW + min(3, 0.9 * BUFFER / rate)
    line.run(until)
    free = 2 * frames().size  # RATE and ACK
    assert line.worst() <= (1 + BURST) * rate + free
    assert line.total >= 0.98 * (until - NOW) * rate


def test_a_pause_and_a_replay_have_no_credit() -> None:
    """Also where all of it was sent before, and nothing of it has arrived."""
    session = start(20_000)
    line = Line(session)
    line.run(NOW + 3)
    line.now = NOW + 1000
    again(session, line.now)
    line.run(NOW + 1003)
    assert line.worst() <= 1.04 * 20_000 + 2 * 16
    assert session.writer.sent < 61_000


@pytest.mark.parametrize("frames", [Frames, sealed])
def test_what_is_not_of_the_stream_waits_for_the_end_of_a_small_frame(
    frames: Callable[[], Frames],
) -> None:
    session, peer = start(SLOWEST, frames), frames()
    line = Line(session)
    line.run(NOW + 10)
    asked, before = line.now, line.total
    feed(channel(session), peer.pack(Kind.PING, 7), line.now)
    while PONG(7) not in heard(line.out, frames()):
        line.run(line.now + 0.01)
    assert line.now < asked + 0.3
    assert line.total - before <= SLOWEST * (line.now - asked + BURST) + peer.size


def test_an_ack_that_is_due_meanwhile_goes_before_the_next_frame() -> None:
    session = start(SLOWEST)
    line = Line(session)
    line.run(NOW + 10)
    hear(session, DATA(0, b"abc"), now=line.now)
    take(session)
    before = session.writer.sent
    while ACK(3) not in heard(line.out, Frames()):
        line.run(line.now + 0.007)
    assert session.writer.sent == before


def heard(out: bytes, frames: Frames) -> list[Frame]:
    """The frames without payload that have gone out so far, without regard to what is lacking."""
    reader = BackedReader(BUFFER)
    frames.join(reader)
    return [Frame(header.kind, header.number) for header, _ in unpack(frames, out)]


def test_what_is_not_of_the_stream_is_free() -> None:
    session = start(SLOWEST)
    line = Line(session)
    line.run(NOW + 1)
    before = session.writer.sent
    for _ in range(100):
        hear(session, PING(1), now=line.now)
        line.run(line.now + 0.01)
    assert heard(line.out, Frames()).count(PONG(1)) >= 4  # of several the last
    assert session.writer.sent - before >= 0.85 * SLOWEST


def test_what_a_link_does_not_take_is_not_drawn_and_not_saved() -> None:
    session = start(20_000)
    line = Line(session)
    line.takes = 5000
    line.run(NOW + 1)
    assert line.total == 5000
    line.now, line.takes = NOW + 60, 1 << 40
    line.run(NOW + 62)
    assert line.worst() <= 1.04 * 20_000 + 2 * 16
    assert line.total >= 5000 + 0.98 * 2 * 20_000


def test_the_rate_is_the_first_frame_on_every_link_and_is_said_when_it_changes() -> None:
    bucket = Bucket(5000)
    session = make(b"abc", bucket=bucket)
    attach(session, caller=False)
    assert said(session) == [RATE(5000), ACK(0)]
    bucket.change(0)
    assert said(session) == []  # it knows of nobody yet
    hear(session, PING(1))
    assert [each.kind for each in said(session)] == [Kind.PONG, Kind.RATE, Kind.DATA]
    next_link(session)
    assert said(session)[:2] == [RATE(0), ACK(0)]
    assert said(session) == []


def test_what_the_peer_allows_is_for_the_session() -> None:
    session = make(bytes(BUFFER), buffer_size=BUFFER)
    join(session, MUCH, Frames(), caller=False)
    assert said(session) == [ACK(0)]
    hear(session, RATE(50_000))
    line = Line(session)
    line.run(NOW + 1)
    assert 0.98 * 50_000 <= line.total <= 1.04 * 50_000
    line.now += 1
    again(session, line.now)
    before = line.total
    line.run(NOW + 3)
    assert 0.98 * 50_000 <= line.total - before <= 1.04 * 50_000 + 16
    hear(session, RATE(0), now=line.now)
    line.flush()
    assert session.writer.sent == BUFFER


def test_another_caller_has_allowed_nothing_yet() -> None:
    session = make(b"abc")
    attach(session, caller=False)
    session.rate.hear(5000)
    session.detach(Loss(CUT, NOW), NOW)
    session.restart()
    assert session.rate.limit == 0


def test_what_has_begun_when_a_rate_comes_goes_on_as_it_was() -> None:
    session = make(bytes(100_000), buffer_size=BUFFER)
    join(session, MUCH, Frames())
    line = Line(session)
    line.takes = 1000
    line.flush()
    hear(session, RATE(SLOWEST))
    line.takes = 1 << 40
    line.run(NOW + 0.001)
    assert line.total == pytest.approx((16 << 10) + BURST * SLOWEST, abs=100)


@pytest.mark.parametrize("whose", ["own", "the peer's"])
def test_a_frame_that_has_begun_when_the_rate_falls_holds_nothing_up(whose: str) -> None:
    bucket = Bucket(10 << 20)
    session = make(bytes(BUFFER), buffer_size=BUFFER, bucket=bucket)
    join(session, MUCH, Frames())
    line = Line(session)
    line.takes = 1000
    line.flush()
    if whose == "own":
        bucket.change(SLOWEST)
    else:
        hear(session, RATE(SLOWEST))
    hear(session, PING(7))
    line.takes = 1 << 40
    line.run(NOW + 0.05)
    assert PONG(7) in heard(line.out, Frames())
    assert line.total <= (10 << 20) * GRAIN + 0.1 * SLOWEST + 100


def test_a_session_that_fails_says_so_behind_a_frame_that_has_begun() -> None:
    session = start(SLOWEST)
    line = Line(session)
    line.run(NOW + 5.1)
    session.abort(Reason.LOCAL_ERROR, "disk full", line.now)
    failed = line.now
    while b"disk full" not in line.out:
        line.run(line.now + 0.02)
    assert line.now < failed + 0.3
    assert session.phase is Phase.ABORTING


def test_a_session_that_has_nothing_to_send_does_not_wait() -> None:
    session = make(b"abc", bucket=Bucket(SLOWEST))
    attach(session)
    frames = said(session)
    assert [each.kind for each in frames] == [Kind.RATE, Kind.ACK, Kind.DATA]
    assert session.rate.until is None
    write(session, bytes(50))
    drain(channel(session), NOW)
    assert session.rate.until is not None
    line = Line(session)
    line.run(NOW + 1)
    assert session.writer.sent == 53
    assert session.rate.until is None


def test_the_end_of_a_stream_is_told_and_both_leave() -> None:
    session = make(b"abc", bucket=Bucket(SLOWEST))
    attach(session)
    finish_both(session)
    assert said(session)[-1] == BYE(0)


def test_a_frame_is_a_grain() -> None:
    session = start(1 << 20)
    frames = said(session)
    assert frames[2].kind is Kind.DATA
    assert len(frames[2].payload) + 16 == int((1 << 20) * GRAIN)
