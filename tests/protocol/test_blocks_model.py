"""Both ends of a stream to a file, by all the ways that bytes and digests may take in between."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import Record, RecordReader, RecordWriter
from bpipe.protocol.ring import fill
from bpipe.protocol.writer import BackedWriter
from tests.support.blocks import File, cut, digests, put


class Way:
    """One direction: a producer's half, a consumer's, and what is under way."""

    def __init__(self, capacity: int) -> None:
        self.writer, self.reader = BackedWriter(capacity), BackedReader(capacity)
        self.writer.resume(0, capacity)

    def move(self, limit: int) -> None:
        """One frame goes over; what was taken is acknowledged."""
        piece = self.writer.next_frame(limit)
        if piece is not None:
            data = bytes(piece.payload)
            while data:
                count = fill(self.reader.lend(len(data)), data)
                self.reader.receive(count)
                data = data[count:]
        self.writer.acknowledge(self.reader.acknowledge())


class Both:
    """A sender and a receiver."""

    def __init__(
        self, rng: random.Random, old: bytes, new: bytes, base: Base, capacity: int
    ) -> None:
        self.rng, self.new = rng, new
        self.there, self.back = Way(capacity), Way(capacity)
        self.sender = BlockWriter(self.there.writer)
        self.file = File(old, base)
        self.ended = False
        self._heard = RecordReader(self.back.reader, {Record.BASE, Record.DIGESTS})
        self._found = RecordReader(
            self.there.reader, {Record.DATA, Record.ERRORS, Record.SAME, Record.TOTAL}
        )
        self._teller = RecordWriter(self.back.writer)
        self._untold = deque([(Record.BASE, base.pack())])
        self._untold.extend((Record.DIGESTS, digest) for digest in digests(old, base.block))
        self.said = self.errors = b""  # on stderr
        self._put = 0

    def produce(self) -> None:
        """The sender's producer."""
        rest = self.new[self._put :]
        if rest and self.rng.random() < 0.1:
            count = fill(self.sender.space(3), b"err")
            self.sender.wrote(count, Record.ERRORS)
            self.said += b"err"[:count]
        elif rest:
            self._put += put(self.sender, rest[: self.rng.choice((5, 70, 900))])
        elif not (self.ended or self.sender.waiting):
            self.ended = True
            self.sender.end(whole=True)

    def tell(self) -> None:
        """The receiver's digests, which come when they come."""
        if self._untold and self._teller.room >= 32:
            kind, item = self._untold.popleft()
            if kind is Record.DIGESTS:
                self.file.assembly.told(item)
            self._teller.wrote(fill(self._teller.space(len(item)), item), kind)

    def listen(self) -> None:
        """What the sender hears of it."""
        if self.sender.hungry:
            views = self._heard.readable(self.rng.choice((5, 70, 900)))
            data = b"".join(views)
            if data:
                self.sender.hear(self._heard.kind, data)
            self._heard.took(len(data))

    def consume(self) -> None:
        """The receiver's consumer."""
        data = b"".join(self._found.readable(self.rng.choice((5, 70, 900))))
        if data and self._found.kind is Record.ERRORS:
            self.errors += data
        elif data:
            self.file.take(self._found.kind, data)
        self._found.took(len(data))

    def run(self) -> None:
        """Until the file is whole: in any order."""
        steps = [self.produce, self.tell, self.listen, self.consume, self.move]
        weights = [self.rng.choice((1, 5, 30)) for _ in steps]
        for _ in range(1_000_000):
            if self.file.assembly.whole:
                return
            self.rng.choices(steps, weights)[0]()
        raise AssertionError("it does not come to its end")

    def move(self) -> None:
        """One of the ways."""
        self.rng.choice((self.there, self.back)).move(self.rng.choice((5, 70, 900)))


EDITS = ("change", "insert", "cut", "extend")


def edit(rng: random.Random, old: bytes, edits: list[str]) -> bytes:
    """What comes in the place of what the receiver has."""
    new = bytearray(old)
    for how in edits:
        at = rng.randrange(len(new) + 1)
        match how:
            case "change":
                new[at : at + 1] = rng.randbytes(len(new[at : at + 1]))
            case "insert":
                new[at:at] = rng.randbytes(5)
            case "cut":
                del new[at:]
            case "extend":
                new += rng.randbytes(100)
    return bytes(new)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from((0, 1, 64, 900, 4000)),
    st.lists(st.sampled_from(EDITS), max_size=3),
    st.sampled_from((64, 100, 256)),
    st.sampled_from((1024, 5000)),
)
def test_the_file_is_the_stream_and_only_what_differs_crosses(
    seed: int, length: int, edits: list[str], block: int, capacity: int
) -> None:
    rng = random.Random(seed)
    old = rng.randbytes(length)
    new = edit(rng, old, edits)
    both = Both(rng, old, new, Base(len(old), block), capacity)
    both.run()
    assert both.file.content == new
    assert both.errors == both.said
    had = dict(enumerate(cut(old, block)))
    differing = [each for at, each in enumerate(cut(new, block)) if had.get(at) != each]
    moved = sum(map(len, differing))
    assert both.sender.tally[1:3] == both.file.assembly.tally[1:3] == (len(new) - moved, moved)
