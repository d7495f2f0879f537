"""``python -m tests.fuzz``: any bytes give progress or a ProtocolError, however they are cut.

With atheris installed the search is guided by coverage; without it, it mutates what is valid.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bpipe.errors import LinkLost
from bpipe.protocol.frames import Frames
from bpipe.protocol.greeting import Answerer, AnswererGreeting, CallerGreeting, Greeting
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    Hello,
    Kind,
    Opening,
    Position,
    Status,
    Verdict,
    pack_data_header,
    pack_frame,
    pack_hello,
    pack_verdict,
)

BUFFER = 1 << 12
NOW = 100.0


class Outcome(NamedTuple):
    """What bytes have led to; equal for equal bytes, however they were cut."""

    error: str
    received: int
    acknowledged: int
    held: bytes
    failure: str
    over: bool
    said: bytes


def answerer() -> tuple[Session, Greeting | Session]:
    """A listener's side, before anybody has said anything."""
    session = Session(BUFFER)
    return session, AnswererGreeting(Answerer(session, lambda: None))


def caller() -> tuple[Session, Greeting | Session]:
    """A caller's side, whose first message is out."""
    session = Session(BUFFER, new_id=lambda: bytes(16))
    return session, CallerGreeting(session)


def attached() -> tuple[Session, Greeting | Session]:
    """A session with a link, and something to send."""
    session = Session(BUFFER)
    for view in session.writer.space(1000):
        session.writer.wrote(len(view))
    session.writer.finish()
    session.attach(Position(0, 0, BUFFER), Frames(), NOW, caller=True)
    said(session)
    return session, session


TARGETS: dict[str, Callable[[], tuple[Session, Greeting | Session]]] = {
    "answerer": answerer,
    "caller": caller,
    "session": attached,
}


def run(target: str, data: bytes, sizes: Iterator[int]) -> Outcome:
    """Feed these bytes, in pieces of at most these sizes. Only a LinkLost may come out."""
    session, driver = TARGETS[target]()
    error = ""
    try:
        while data and not session.over:
            views = driver.incoming()
            if not any(views):
                break  # a greeting that expects nothing more
            count = 0
            left = max(1, next(sizes))
            for view in views:
                piece = data[count : count + min(len(view), left)]
                view[: len(piece)] = piece
                count += len(piece)
                left -= len(piece)
            driver.received(count, NOW)
            data = data[count:]
            if isinstance(driver, Greeting) and driver.attached:
                driver = session
    except LinkLost as lost:
        error = f"{type(lost).__name__}: {lost}"
    return Outcome(
        error,
        session.reader.received,
        session.writer.acked,
        b"".join(session.reader.readable(BUFFER)),
        str(session.failure),
        session.over,
        said(driver),
    )


def said(driver: Greeting | Session) -> bytes:
    """Everything that goes out now."""
    out = b""
    while views := driver.outgoing(NOW):
        out += b"".join(views)
        driver.sent(sum(map(len, views)), NOW)
    return out


def check(data: bytes) -> None:
    """The first byte chooses the target, the next four how the rest is cut."""
    if len(data) < 5:
        return
    target = sorted(TARGETS)[data[0] % len(TARGETS)]
    rng = random.Random(data[1:5])
    rest = data[5:]
    whole = run(target, rest, iter(lambda: 1 << 30, 0))
    pieces = run(target, rest, iter(lambda: rng.choice((1, 2, 15, 16, 17, 300)), 0))
    if whole != pieces:
        raise AssertionError(f"{target}: {rest!r} gives {whole}, but in pieces {pieces}")


# --- what is nearly valid ---


def examples(rng: random.Random) -> bytes:
    """Messages that could be right, one after the other."""
    number = rng.choice((0, 1, 5, 1000, BUFFER, BUFFER + 1, 2**32, 2**64 - 1))
    position = Position(*(rng.choice((0, 1, 1000, BUFFER, number)) for _ in range(3)))
    hello = Hello(rng.choice(list(Opening)), bytes(16), rng.randrange(3), position)
    size = rng.choice((1, 2, 100, BUFFER))
    return rng.choice(
        (
            pack_hello(hello),
            pack_verdict(Verdict(rng.choice(list(Status)), position)),
            pack_frame(rng.choice(list(Kind)), number),
            pack_frame(Kind.ABORT, rng.randrange(7), rng.randbytes(rng.randrange(20))),
            pack_data_header(rng.choice((0, number)), size) + bytes(size),
            pack_frame(Kind.CONFIRM, 0),
            pack_frame(Kind.READY, 0),
        )
    )


def mutated(rng: random.Random) -> bytes:
    """Some of them, and some bytes changed, lost or added."""
    data = bytearray(b"".join(examples(rng) for _ in range(rng.randint(1, 8))))
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
        if not data:
            break
    return rng.randbytes(5) + bytes(data)


def main() -> int:
    """Parse the command line, and fuzz; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is not None:
        atheris = importlib.import_module("atheris")
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds:.0f}"], check)
        atheris.Fuzz()  # does not return
    rng = random.Random(options.seed)
    until = time.monotonic() + options.seconds
    count = 0
    while time.monotonic() < until:
        check(mutated(rng))
        count += 1
    print(f"seed {options.seed}: {count} inputs, no surprise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
