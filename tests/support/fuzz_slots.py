"""What may come over one of several links, for ``tests.support.fuzz``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from bpipe.protocol.frames import Frames
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.wire import Ended, Hello, Kind, Position
from tests.support.loopback import drain, write

SLOTS = 3


def one_of_several(
    frames: Callable[[], Frames], buffer: int, now: float
) -> tuple[Session, SlotChannel]:
    """One link of a session that may have more, and has something to send."""
    session = Session(buffer, links=SLOTS)
    write(session, bytes(1000))
    session.finish()
    session.establish()
    channel = SlotChannel(session, frames(), now, 1)
    session.attach(channel, Position(0, 0, buffer, links=SLOTS), now, 1)
    drain(channel, now)
    return session, channel


def in_any_order(rng: random.Random, frames: Frames, buffer: int) -> Iterator[bytes]:
    """Frames that overlap and leave gaps, most of which may be said."""
    end = rng.randrange(rng.choice((5, 60, buffer)))
    reached = 0
    for _ in range(rng.randrange(25)):
        wrong = rng.random() < 0.02
        match rng.randrange(6):
            case 0:
                yield frames.pack(Kind.ACK, rng.randrange(1003 if wrong else 1001))
                yield frames.pack(Kind.READY, rng.randrange(1003 if wrong else 1001))
            case 1:
                yield frames.pack(rng.choice((Kind.PING, Kind.PONG)), rng.randrange(4))
            case 2:
                how = rng.choice(list(Ended)) if wrong else Ended.UNKNOWN
                yield frames.pack(Kind.FIN, end, b"", how if how is not Ended.KILLED else 0)
            case _:
                most = buffer if wrong else end
                start = min(most, rng.choice((0, reached, rng.randrange(most + 1))))
                payload = rng.randbytes(min(rng.choice((1, 20, 300)), most - start))
                reached = start + len(payload)
                if payload:
                    yield b"".join(frames.pack_data(start, memoryview(payload)))


def with_slots(rng: random.Random, hello: Hello) -> Hello:
    """The same from a caller that would have more links."""
    slot = rng.choice((0, 0, 0, 1, SLOTS, 8, 255))
    position = hello.position._replace(links=rng.choice((1, 2, SLOTS, 8)))
    return hello._replace(position=position, slot=slot, live=rng.randrange(256))
