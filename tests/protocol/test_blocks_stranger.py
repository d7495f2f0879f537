"""Either end of a stream to a file, with who has read nothing but bpipe-protocol(7)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base
from bpipe.protocol.records import Record
from bpipe.protocol.writer import BackedWriter
from tests import peer_records as stranger
from tests.support.blocks import File, digests, on_the_stream, put

WINDOW = 1 << 12
OLD = bytes(range(250)) * 41


def changed(at: int) -> bytes:
    return OLD[:at] + b"\xff" + OLD[at + 1 :]


STREAMS = {
    "nothing": b"",
    "less": OLD[:5000],
    "less, to the end of a block": OLD[:4096],
    "the same": OLD,
    "one byte": changed(5000),
    "the last byte": changed(len(OLD) - 1),
    "more": OLD + b"more" * 1000,
    "shifted": b"x" + OLD,
}


def parse(data: bytes) -> list[tuple[Record, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack_from(">B3xI", data)
        found.append((Record(kind), data[8 : 8 + size]))
        data = data[8 + size :]
    return found


@pytest.mark.parametrize("what", STREAMS)
@pytest.mark.parametrize("old", [OLD, b""], ids=["a base", "no base"])
def test_it_receives_what_we_send(tmp_path: Path, what: str, old: bytes) -> None:
    new, path = STREAMS[what], tmp_path / "file"
    path.write_bytes(old)
    theirs = stranger.Receiver(str(path), WINDOW)
    half = BackedWriter(4 * len(OLD))
    ours = BlockWriter(half)
    for record in parse(theirs.told()):
        ours.hear(*record)
    ours.hear_end()
    assert put(ours, new) == len(new)
    ours.end(whole=True)
    for record in on_the_stream(half):
        theirs.take(*record)
    theirs.finish(0, 0)
    assert path.read_bytes() == new


@pytest.mark.parametrize("what", STREAMS)
@pytest.mark.parametrize("old", [OLD, b""], ids=["a base", "no base"])
@pytest.mark.parametrize("late", [False, True], ids=["told first", "told late"])
def test_it_sends_what_we_receive(what: str, old: bytes, late: bool) -> None:
    new, base = STREAMS[what], Base.of(len(old), WINDOW)
    theirs, file = stranger.Sender(WINDOW), File(old, base)
    said = b""
    theirs.take(Record.BASE, base.pack())
    told = b"".join(digests(old, base.block))
    file.assembly.told(told)
    if not late:
        theirs.take(Record.DIGESTS, told)
    for at in range(0, len(new), 700):
        theirs.add(new[at : at + 700])
        said += theirs.due()
    theirs.add(b"")
    said += theirs.due()
    if late:
        theirs.take(Record.DIGESTS, told)
        said += theirs.due()
    for record in parse(said):
        file.take(*record)
    assert theirs.done
    assert file.assembly.whole
    assert file.content == new
    assert file.assembly.tally.moved == theirs.sent
