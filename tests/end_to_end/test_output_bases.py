"""What lies there already when a stream becomes a file, and how much of it crosses the line then.

One receiver takes one stream after the other (``-k``); those who send them are pipes of this
process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bpipe.api import connect
from bpipe.status import Tally
from tests.end_to_end.helpers import Bpipe, Start

pytestmark = pytest.mark.slow

BLOCK: Final = 1 << 14  # bytes
BLOCKS: Final = 40
BORDER: Final = 13 * BLOCK + 99  # within a block
RNG: Final = random.Random(19)
STREAM: Final = RNG.randbytes(BLOCKS * BLOCK - 1000)  # the last block is a short one
SPARSE: Final = STREAM[: 8 * BLOCK] + bytes(160 * BLOCK) + STREAM[8 * BLOCK :]
FOREIGN: Final = RNG.randbytes(len(STREAM))


class Case(NamedTuple):
    """A base, and how many blocks of the stream are not in it, where they should be."""

    base: bytes | None
    blocks: int
    stream: bytes = STREAM


def flipped(*blocks: int) -> bytes:
    """The stream, with one bit changed in each of these blocks."""
    other = bytearray(STREAM)
    for each in blocks:
        other[each * BLOCK + 77] ^= 16
    return bytes(other)


CASES: Final = {
    "none": Case(None, BLOCKS),
    "empty": Case(b"", BLOCKS),
    "equal": Case(STREAM, 0),
    "a changed byte": Case(STREAM[:100_000] + b"?" + STREAM[100_001:], 1),
    "flipped bits": Case(flipped(3, 4, 17, BLOCKS - 1), 4),
    # All that follows lies elsewhere. Digests of blocks that may begin anywhere (a rolling
    # checksum) would find it: this one block would cross, and for all of it a digest for each.
    "an inserted byte": Case(STREAM[: 30 * BLOCK] + b"?" + STREAM[30 * BLOCK :], BLOCKS - 30),
    "a byte less": Case(STREAM[: 30 * BLOCK] + STREAM[30 * BLOCK + 1 :], BLOCKS - 30),
    "truncated": Case(STREAM[: 25 * BLOCK], BLOCKS - 25),
    "truncated within a block": Case(STREAM[: 25 * BLOCK + 10], BLOCKS - 25),
    "extended": Case(STREAM + b"and more", 1),
    "extended by blocks": Case(STREAM + FOREIGN, 1),
    "a longer one, of blocks": Case(STREAM, 0, STREAM[: 20 * BLOCK]),
    "foreign": Case(FOREIGN, BLOCKS),
    "zeros": Case(bytes(len(STREAM)), BLOCKS),
    "sparse, and equal": Case(SPARSE, 0, SPARSE),
    "sparse, where nothing was": Case(None, BLOCKS + 160, SPARSE),
    "zeros, where something was": Case(FOREIGN * 4, len(SPARSE) // BLOCK + 1, SPARSE),
    "an empty stream": Case(STREAM, 0, b""),
}


class Receiver:
    """One that takes one stream after the other, into the same file."""

    def __init__(self, start: Start, path: Path) -> None:
        self.file = path.with_name("FILE")
        self.part = path.with_name("FILE.part")
        options = f"--buffer={BLOCK * 4}", "--output", str(self.file)
        self.bpipe: Bpipe = start.bpipe("listen", "-k", f"unix:{path}", *options)
        self._address = self.bpipe.address

    def take(self, stream: bytes) -> Tally:
        """Send it this; returns what was compared."""
        return asyncio.run(self._send(stream))

    async def _send(self, stream: bytes) -> Tally:
        async with await connect(self._address, buffer_size=BLOCK * 4) as pipe:
            await pipe.write(stream)
            pipe.finish()
            assert await pipe.read() == b""
            await pipe.wait_closed()
            tally = pipe.status().tally
            assert tally is not None
            assert pipe.status().written == tally.moved
            return tally

    def check(self, stream: bytes) -> None:
        """The stream is there, and beside it at most the empty part of the next one."""
        assert self.file.read_bytes() == stream
        assert not self.part.exists() or not self.part.stat().st_size
        if stream == SPARSE:
            assert self.file.stat().st_blocks * 512 < len(SPARSE) // 2


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One for all."""
    with Start() as start:
        yield Receiver(start, tmp_path_factory.mktemp("r") / "s")


def places(base: bytes | None) -> Iterator[tuple[bytes | None, bytes | None]]:
    """The part and FILE, where this lies there: the part as far as it goes, and FILE beyond it."""
    yield None, base
    if base is not None:
        yield base, FOREIGN[: len(base)]
        yield base[:BORDER], FOREIGN[:BORDER][: len(base)] + base[BORDER:]


def lay(path: Path, content: bytes) -> None:
    """Write it, and leave holes where it has zeros only."""
    with path.open("wb") as file:
        for at in range(0, len(content), BLOCK):
            piece = content[at : at + BLOCK]
            if any(piece):
                file.seek(at)
                file.write(piece)
        file.truncate(len(content))


@pytest.mark.parametrize("name", CASES)
def test_what_differs_crosses_the_line_and_nothing_else(receiver: Receiver, name: str) -> None:
    base, blocks, stream = CASES[name]
    for in_part, in_file in places(base):
        for path, content in ((receiver.part, in_part), (receiver.file, in_file)):
            path.unlink(missing_ok=True)
            if content is not None:
                lay(path, content)
        tally = receiver.take(stream)
        receiver.check(stream)
        assert -(-tally.moved // BLOCK) == blocks
        assert tally.moved + tally.equal == len(stream)


def test_a_mode_stays_and_a_new_file_has_the_usual_one(receiver: Receiver) -> None:
    receiver.file.write_bytes(FOREIGN)
    receiver.file.chmod(0o604)
    receiver.take(STREAM)
    assert receiver.file.stat().st_mode & 0o777 == 0o604
    receiver.file.unlink()
    receiver.take(STREAM)
    assert receiver.file.stat().st_mode & 0o777 == 0o644
