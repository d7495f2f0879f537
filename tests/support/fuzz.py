"""``python -m tests.support.fuzz``: any bytes give progress or a LinkLost, however they are cut.

Sealed targets have the same keys each time, so that there are examples that they accept, and
equal bytes lead to equal bytes.

With atheris installed the search is guided by coverage; without it, it mutates what is valid.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol import sealed
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base, pack_same
from bpipe.protocol.caller import Caller
from bpipe.protocol.channel import Channel
from bpipe.protocol.driver import Driver
from bpipe.protocol.frames import Frames
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting, begin
from bpipe.protocol.noise import CipherState, NoiseState
from bpipe.protocol.records import CONTENT, Record, RecordReader
from bpipe.protocol.ring import Views
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import (
    RECORDS,
    Admission,
    Ended,
    Hello,
    Kind,
    Opening,
    Position,
    Verdict,
)
from tests.support.blocks import File, digests, put, total
from tests.support.fuzz_slots import SLOTS, in_any_order, one_of_several, with_slots
from tests.support.loopback import feed, write
from tests.support.peer import join

BUFFER = 1 << 12
NOW = 100.0
SECRET = Secret(bytes(32))
EPHEMERAL = X25519PrivateKey.from_private_bytes(bytes(range(32)))


class Outcome(NamedTuple):
    """What bytes have led to; equal for equal bytes, however they were cut."""

    error: str
    received: int
    acknowledged: int
    held: bytes
    failure: str
    over: bool
    said: bytes


Target = tuple[Session, Driver]


def answerer(secret: Secret | None = None, links: int = 1) -> Target:
    """A listener's side, before anybody has said anything."""
    session = Session(BUFFER, secret=secret, links=links)
    table = Sessions(lambda session: None, secret)
    table.add(session)
    return session, AnswererGreeting(table, NOW)


def caller(secret: Secret | None = None) -> Target:
    """A caller's side, whose first message is out."""
    session = Session(BUFFER, secret=secret)
    return session, CallerGreeting(Caller(session, lambda: bytes(16)), NOW)


def attached(frames: Callable[[], Frames] = Frames) -> Target:
    """A session with a link, and something to send."""
    session = Session(BUFFER)
    write(session, bytes(1000))
    session.finish()
    channel = join(session, Position(0, 0, BUFFER), frames(), now=NOW)
    said(channel)
    return session, channel


def beside_others(frames: Callable[[], Frames] = Frames) -> Target:
    """A session with one of several links, and something to send."""
    return one_of_several(frames, BUFFER, NOW)


def sealing() -> SealedFrames:
    """The frames of one end of a link whose keys are known. The other end's are the same."""
    return SealedFrames(CipherState(bytes(32)), CipherState(bytes(32)))


class Consumer(Channel):
    """A channel over which records come; what they hold is said in place of what is due."""

    def __init__(self, session: Session, kinds: Collection[Record] = CONTENT) -> None:
        super().__init__(session, Frames(), NOW)
        self._records = RecordReader(session.reader, kinds)
        self._half = session.reader
        self._found = b""
        self._failed = False

    def received(self, count: int, now: float) -> None:
        """Take all that can be, and whatever a consumer may ask then."""
        try:
            super().received(count, now)
        finally:
            if not self._failed:
                self._consume()
            if self._failed:
                self._half.took(self._half.buffered)

    def _consume(self) -> None:
        try:
            while views := self._records.readable(100):
                assert self._records.ready
                assert self._records.buffered
                data = b"".join(views)
                self._take(self._records.kind, data)
                self._records.took(len(data))
            self._look()
        except ProtocolError as error:
            self._found += str(error).encode()
            self._failed = True
        else:
            assert self._records.buffered == 0
        assert not self._records.drained or self._half.drained

    def _take(self, kind: Record, data: bytes) -> None:
        for byte in data:
            self._found += bytes([kind, byte])

    def _look(self) -> None:
        """Nothing more is there now."""

    def outgoing(self, now: float) -> Views:
        """What has come."""
        found = self._found + b"the end" * self._records.drained
        return [memoryview(found)] if self._found else []

    def sent(self, count: int, now: float) -> None:
        """It was looked at."""
        self._found = self._found[count:]


STREAM = bytes(range(250)) * 8  # that goes to a file
OLD = STREAM[:900] + bytes(100) + STREAM[1000:1950]  # which has this
BLOCK = 100


class Sender(Consumer):
    """What is heard is what the receiver of a file has; what is made of it is said."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, {Record.BASE, Record.DIGESTS})
        self._blocks, self._put, self._told = BlockWriter(session.writer), 0, False

    def _take(self, kind: Record, data: bytes) -> None:
        try:
            self._blocks.hear(kind, data)
        finally:
            self._put += put(self._blocks, STREAM[self._put :])
            self._found = str((self._put, self._blocks.tally, self._blocks.waiting)).encode()

    def _look(self) -> None:
        if self._records.drained and not self._told:
            self._told = True
            self._blocks.hear_end()
            self._put += put(self._blocks, STREAM[self._put :])
            assert self._put == len(STREAM)


class Receiver(Consumer):
    """What is heard becomes a file, which is said."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, {*CONTENT, Record.SAME, Record.TOTAL})
        self._file = File(OLD, Base(len(OLD), BLOCK))
        self._file.assembly.told(b"".join(digests(OLD, BLOCK)))

    def _take(self, kind: Record, data: bytes) -> None:
        file, assembly = self._file, self._file.assembly
        try:
            if kind is not Record.ERRORS:
                file.take(kind, data)
        finally:
            assert assembly.at == len(file.content)
            self._found = str((assembly.tally, assembly.whole)).encode() + file.content


def consumer(kind: type[Consumer]) -> Target:
    """A session with a link and records."""
    session = Session(BUFFER, needs=RECORDS)
    channel = kind(session)
    session.establish()
    session.attach(channel, Position(0, 0, BUFFER), NOW)
    return session, channel


TARGETS: dict[str, Callable[[], Target]] = {
    "answerer": answerer,
    "caller": caller,
    "session": attached,
    "one of several": beside_others,
    "answerer of several": partial(answerer, links=SLOTS),
    "records": partial(consumer, Consumer),
    "sender": partial(consumer, Sender),
    "receiver": partial(consumer, Receiver),
    "sealed answerer": partial(answerer, SECRET),
    "sealed caller": partial(caller, SECRET),
    "sealed session": partial(attached, sealing),
    "one of several, sealed": partial(beside_others, sealing),
}


def chosen(head: bytes) -> str:
    """The target that this first byte means."""
    return list(TARGETS)[head[0] % len(TARGETS)]


@patch.object(sealed, "NoiseState", partial(NoiseState, generate=lambda: EPHEMERAL))
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
            driver = session.channel or driver
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


def said(driver: Driver) -> bytes:
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
    target = chosen(data)
    rng = random.Random(data[1:5])
    rest = data[5:]
    whole = run(target, rest, iter(lambda: 1 << 30, 0))
    pieces = run(target, rest, iter(lambda: rng.choice((1, 2, 15, 16, 17, 300)), 0))
    if whole != pieces:
        raise AssertionError(f"{target}: {rest!r} gives {whole}, but in pieces {pieces}")


# --- what is nearly valid ---


NUMBERS = (0, 1, 5, 1000, BUFFER, BUFFER + 1, 2**32, 2**64 - 1)


def seldom(rng: random.Random) -> bool:
    """Whether something is not to be right, for once."""
    return rng.random() < 0.15


def a_position(rng: random.Random) -> Position:
    if seldom(rng):
        return Position(*(rng.choice(NUMBERS) for _ in range(3)))
    return Position(0, 0, BUFFER)


def a_hello(rng: random.Random) -> Hello:
    opening = Opening.RESUME if seldom(rng) else Opening.OPEN
    return Hello(opening, bytes(16), rng.randrange(3), a_position(rng))


def a_verdict(rng: random.Random) -> Verdict:
    admission = rng.choice(list(Admission)) if seldom(rng) else Admission.OK
    return Verdict(admission, a_position(rng))


def some_frames(rng: random.Random, frames: Frames) -> Iterator[bytes]:
    """Frames, most of which may be said."""
    said = 0
    for _ in range(rng.randrange(10)):
        number = rng.choice(NUMBERS) if seldom(rng) else said
        if rng.random() < 0.5:
            payload = rng.randbytes(rng.choice((1, 2, 100, 300, BUFFER if seldom(rng) else 1000)))
            yield b"".join(frames.pack_data(number, memoryview(payload)))
            said += len(payload)
        elif seldom(rng):
            kind = rng.choice([kind for kind in Kind if kind is not Kind.DATA])
            message = rng.randbytes(rng.randrange(20)) if kind is Kind.ABORT else b""
            yield frames.pack(kind, number, message)
        else:
            yield frames.pack(rng.choice((Kind.PING, Kind.PONG)), rng.choice(NUMBERS))
            yield frames.pack(Kind.ACK, 0)
            if seldom(rng):
                yield frames.pack(Kind.RATE, rng.choice((0, 1 << 10, 1 << 20)))


def some_records(rng: random.Random) -> Iterator[bytes]:
    """Frames that carry records, most of which may be, and the end of the stream."""
    stream = b""
    for _ in range(rng.randrange(8)):
        kind = rng.randrange(256) if seldom(rng) else rng.choice(list(CONTENT))
        content = rng.randbytes(rng.choice((0, 1, 7, 8, 9, 300) if seldom(rng) else (1, 9, 300)))
        stream += a_record(rng, kind, content)
    yield from some_stream(rng, stream)


def a_record(rng: random.Random, kind: int, content: bytes) -> bytes:
    length = rng.choice(NUMBERS[:-1]) & 0xFFFFFFFF if seldom(rng) else len(content)
    return bytes([kind, 0, 0, 0]) + length.to_bytes(4, "big") + content


def to_sender(rng: random.Random) -> Iterator[bytes]:
    """What the receiver of a file says, most of which may be."""
    block = rng.choice((64, BLOCK, 2000) if seldom(rng) else (64, BLOCK))
    told = digests(OLD, block)
    items = [(Record.BASE, Base(len(OLD), block).pack())]
    while told:
        count = rng.randrange(1, 9)
        items.append((Record.DIGESTS, b"".join(told[:count])))
        told = told[count:]
    yield from some_stream(rng, some_items(rng, items))


def to_receiver(rng: random.Random) -> Iterator[bytes]:
    """What a sender says."""
    items, at, whole = [], 0, b""
    while at < len(STREAM):
        same = rng.random() < 0.5 and at % BLOCK == 0 and at < 900
        count = rng.randrange(1, 10 - at // BLOCK) if same else rng.choice((1, 99, 100, 300))
        item = (Record.SAME, pack_same(count)) if same else (Record.DATA, STREAM[at : at + count])
        items.append(item)
        at += count * BLOCK if same else count
        whole = STREAM[:at]
    items.append((Record.TOTAL, total(whole, BLOCK).pack()))
    yield from some_stream(rng, some_items(rng, items))


def some_items(rng: random.Random, items: list[tuple[Record, bytes]]) -> bytes:
    """Records with these, most of the time."""
    if seldom(rng):
        del items[rng.randrange(len(items))]
    if seldom(rng):
        items.insert(rng.randrange(len(items) + 1), (rng.choice(list(Record)), bytes(40)))
    changed = [(kind, bytes(len(item)) if rng.random() < 0.02 else item) for kind, item in items]
    return b"".join(
        a_record(rng, kind, item)
        if rng.random() < 0.02
        else bytes([kind, 0, 0, 0]) + len(item).to_bytes(4, "big") + item
        for kind, item in changed
    )


def some_stream(rng: random.Random, stream: bytes) -> Iterator[bytes]:
    """Frames that carry these bytes, and the end."""
    frames, at = Frames(), 0
    while at < len(stream):
        piece = memoryview(stream)[at : at + rng.choice((1, 7, 8, 9, 500))]
        yield b"".join(frames.pack_data(at, piece))
        at += len(piece)
    if not seldom(rng):
        yield frames.pack(Kind.FIN, at, b"", rng.choice((Ended.UNKNOWN, Ended.CUT)))


def to_answerer(
    rng: random.Random, secret: Secret | None = None, links: int = 1
) -> Iterator[bytes]:
    """What a caller says."""
    hello = a_hello(rng) if links == 1 else with_slots(rng, a_hello(rng))
    handshake = begin(secret)
    yield handshake.pack_hello(hello)
    _, greeting = answerer(secret, links)
    feed(greeting, handshake.pack_hello(hello), NOW)
    handshake.unpack_verdict(said(greeting), b"")
    frames = handshake.frames(caller=True)
    yield frames.pack(Kind.CONFIRM, 0)
    yield from some_frames(rng, frames) if links == 1 else in_any_order(rng, frames, BUFFER)


def to_caller(rng: random.Random, secret: Secret | None = None) -> Iterator[bytes]:
    """What an answerer says."""
    handshake = begin(secret)
    handshake.unpack_hello(said(caller(secret)[1]))
    yield handshake.pack_verdict(a_verdict(rng), b"")
    frames = handshake.frames(caller=False)
    yield frames.pack(Kind.READY, rng.choice(NUMBERS) if seldom(rng) else 0)
    yield from some_frames(rng, frames)


EXAMPLES: dict[str, Callable[[random.Random], Iterator[bytes]]] = {
    "answerer": to_answerer,
    "caller": to_caller,
    "session": lambda rng: some_frames(rng, Frames()),
    "one of several": lambda rng: in_any_order(rng, Frames(), BUFFER),
    "answerer of several": partial(to_answerer, links=SLOTS),
    "records": some_records,
    "sender": to_sender,
    "receiver": to_receiver,
    "sealed answerer": partial(to_answerer, secret=SECRET),
    "sealed caller": partial(to_caller, secret=SECRET),
    "sealed session": lambda rng: some_frames(rng, sealing()),
    "one of several, sealed": lambda rng: in_any_order(rng, sealing(), BUFFER),
}


@patch.object(sealed, "NoiseState", partial(NoiseState, generate=lambda: EPHEMERAL))
def mutated(rng: random.Random) -> bytes:
    """What is nearly right for a target: messages lost or said again, and bytes changed."""
    head = rng.randbytes(5)
    messages = list(EXAMPLES[chosen(head)](rng))
    for _ in range(rng.choice((0, 0, 1, 2))):
        messages.insert(rng.randrange(len(messages) + 1), rng.choice([b"", *messages]))
        del messages[rng.randrange(len(messages))]
    data = bytearray(b"".join(messages))
    for _ in range(rng.choice((0, 0, 1, 3)) if data else 0):
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
    return head + bytes(data)


def main() -> int:
    """Parse the command line, and fuzz; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is not None:
        atheris = importlib.import_module("atheris")
        atheris.instrument_all()
        seconds = max(1, round(options.seconds))  # 0 would be for ever
        atheris.Setup([sys.argv[0], f"-max_total_time={seconds}"], check)
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
