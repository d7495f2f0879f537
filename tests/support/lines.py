"""Two links of one session, driven by hand: the peer is the test."""

from __future__ import annotations

from typing import NamedTuple

from bpipe.errors import LinkLost
from bpipe.protocol import waiting
from bpipe.protocol.frames import Frames
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.wire import Kind, Position
from tests.support.loopback import Frame, decode, drain, feed, write
from tests.support.peer import CUT, LIMITS, NOW, PONG

WINDOW = 1000


def READY(number: int) -> Frame:
    return Frame(Kind.READY, number)


class Lines(NamedTuple):
    """A session with two links; the peer is the test."""

    session: Session
    channels: list[SlotChannel]

    def said(self, slot: int, now: float = NOW) -> list[Frame]:
        return decode(drain(self.channels[slot], now))

    def hear(self, slot: int, *frames: Frame, now: float = NOW) -> None:
        feed(self.channels[slot], b"".join(frame.encode() for frame in frames), now)

    def tick(self, now: float) -> None:
        waiting.tick(self.session, now)
        for channel in self.channels:
            channel.tick(now)

    def lose(self, slot: int, now: float = NOW, cause: LinkLost = CUT) -> None:
        self.channels[slot].detach(cause, now)

    def attach(self, slot: int, received: int = 0, now: float = NOW) -> None:
        channel = SlotChannel(self.session, Frames(), now, slot)
        position = Position(0, received, WINDOW, links=2)
        self.session.attach(channel, position, now, slot)
        self.channels[slot : slot + 1] = [channel]


def two(written: bytes = b"", *, bucket: Bucket | None = None, patient: bool = False) -> Lines:
    """Two links on which everything was said that was due; a round trip takes no time."""
    limits = LIMITS._replace(heartbeat=1e6) if patient else LIMITS
    session = Session(WINDOW, limits, links=2, bucket=bucket)
    session.establish()
    both = Lines(session, [])
    for slot in range(2):
        both.attach(slot)
        both.said(slot)
        both.hear(slot, PONG(1))
    write(session, written)
    return both
