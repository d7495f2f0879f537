from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.block_writer import LONGEST_RUN, MOST_UNREAD, BlockWriter
from bpipe.protocol.blocks import Base, pack_same
from bpipe.protocol.records import Record
from bpipe.protocol.ring import fill
from bpipe.protocol.writer import BackedWriter
from bpipe.status import Tally
from tests.support.blocks import File, cut, digests, on_the_stream, put, tell, total

DATA, ERRORS, SAME, TOTAL = Record.DATA, Record.ERRORS, Record.SAME, Record.TOTAL
BASE, DIGESTS = Record.BASE, Record.DIGESTS
BLOCK = 100
OLD = bytes(range(250)) * 2  # five blocks


def make(capacity: int = 2000, *, whole: bool = False) -> tuple[BackedWriter, BlockWriter]:
    half = BackedWriter(capacity)
    return half, BlockWriter(half, whole=whole)


def told(base: bytes = OLD, *, whole: bool = False) -> tuple[BackedWriter, BlockWriter]:
    """All is known of this base."""
    half, writer = make(whole=whole)
    tell(writer, base, BLOCK)
    return half, writer


def same(count: int) -> tuple[Record, bytes]:
    return SAME, pack_same(count)


def runs(content: bytes) -> list[int]:
    return [number for (number,) in struct.iter_unpack(">Q", content)]


def sent(half: BackedWriter) -> list[tuple[Record, bytes]]:
    """What is on the stream, however often it was said that there is a run of the same."""
    said = on_the_stream(half)
    return [same(sum(runs(each[1]))) if each[0] is SAME else each for each in said]


def ended(data: bytes, block: int = BLOCK) -> tuple[Record, bytes]:
    return TOTAL, total(data, block).pack()


def changed(*which: int) -> bytes:
    """The base with these blocks changed."""
    blocks = cut(OLD, BLOCK)
    for number in which:
        blocks[number] = blocks[number][::-1]
    return b"".join(blocks)


# --- what is sent ---


def test_nothing_is_lent_before_the_base_is_told() -> None:
    half, writer = make()
    assert (writer.space(10), writer.room, writer.hungry) == ([], 0, True)
    writer.wrote(0)
    writer.hear(BASE, Base(0, BLOCK).pack())
    assert writer.room > 0
    assert sum(map(len, writer.space(10))) == 10
    assert half.written == 0


def test_without_a_base_all_goes_on_the_stream_at_once() -> None:
    half, writer = told(b"")
    assert put(writer, OLD[:250], 30) == 250
    assert sent(half) == [(DATA, OLD[:250])]
    assert not writer.waiting
    writer.end(whole=True)
    assert sent(half) == [(DATA, OLD[:250]), ended(OLD[:250])]
    assert writer.tally == Tally(0, 0, 250)


def test_blocks_that_are_there_are_not_sent() -> None:
    half, writer = told()
    new = changed(2) + b"more"
    assert put(writer, new, 30) == len(new)
    writer.end(whole=True)
    assert sent(half) == [
        same(2),
        (DATA, new[200:300]),
        same(2),
        (DATA, b"more"),
        ended(new),
    ]
    assert writer.tally == Tally(500, 400, 104)


def test_a_block_is_on_the_stream_when_it_is_known_to_differ() -> None:
    half, writer = told()
    new = changed(0)
    put(writer, new[:99])
    assert sent(half) == []
    put(writer, new[99:100])
    assert sent(half) == [(DATA, new[:100])]


def test_what_is_the_same_is_said_at_once_or_in_runs_while_something_is_under_way() -> None:
    half, writer = make()
    old = bytes(64 * (LONGEST_RUN + 3))
    tell(writer, old, 64)
    put(writer, old[:64])
    assert sent(half) == [same(1)]
    put(writer, old[64:-64])
    [(_, content)] = on_the_stream(half)
    assert runs(content) == [1, LONGEST_RUN]
    half.acknowledge(half.written)
    put(writer, old[-64:])
    writer.end(whole=True)
    assert [kind for kind, _ in on_the_stream(half)] == [SAME, TOTAL]
    assert runs(on_the_stream(half)[0][1]) == [2]


def test_blocks_may_be_larger_than_records() -> None:
    half, writer = make(8 << 20)
    old = b"abc" * (1 << 20)
    tell(writer, old, 2 << 20)
    new = old[:-1] + b"d"
    assert put(writer, new, 500_000) == len(new)
    writer.end(whole=True)
    assert sent(half) == [same(1), (DATA, new[2 << 20 :]), ended(new, 2 << 20)]


@pytest.mark.parametrize("end", [0, 1, 99, 100, 101, 499, 500, 501])
@pytest.mark.parametrize("base", [0, 1, 99, 100, 101, 499, 500])
def test_a_stream_ends_where_it_likes(base: int, end: int) -> None:
    half, writer = told(OLD[:base])
    new = OLD + b"x"
    assert put(writer, new[:end]) == end
    assert not writer.waiting
    writer.end(whole=True)
    equal = end if base == end else min(base, end) // BLOCK * BLOCK
    expected = [same(-(-equal // BLOCK))] if equal else []
    expected += [(DATA, new[equal:end])] if end > equal else []
    assert sent(half) == [*expected, ended(new[:end])]


def test_a_stream_that_is_not_whole_has_no_total() -> None:
    half, writer = told()
    put(writer, OLD[:150])
    writer.end(whole=False)
    assert sent(half) == [same(1), (DATA, OLD[100:150])]


def test_where_all_is_wanted_nothing_is_compared() -> None:
    half, writer = make(whole=True)
    writer.hear(BASE, Base(len(OLD), BLOCK).pack())
    put(writer, OLD[:150])
    assert sent(half) == [(DATA, OLD[:150])]
    writer.hear(DIGESTS, b"".join(digests(OLD, BLOCK)))
    writer.end(whole=True)
    assert sent(half) == [(DATA, OLD[:150]), ended(OLD[:150])]
    assert writer.tally == Tally(0, 0, 150)


def test_what_a_program_says_on_stderr_goes_out_at_once() -> None:
    half, writer = told()
    new = changed(1) + b"more"
    for number, piece in enumerate(cut(new, 70)):
        assert put(writer, piece) == len(piece)
        writer.wrote(fill(writer.space(10), b"%d" % number), ERRORS)
    writer.end(whole=True)
    found = sent(half)
    assert b"".join(content for kind, content in found if kind is ERRORS) == b"01234567"
    assert found[0] == (ERRORS, b"01")
    assert [each for each in found if each[0] is not ERRORS] == [
        *(same(1), (DATA, new[100:200]), same(3), (DATA, b"more"), ended(new))
    ]


# --- waiting ---


def test_a_whole_block_waits_for_its_digest() -> None:
    half, writer = make()
    writer.hear(BASE, Base(len(OLD), BLOCK).pack())
    first, second, *_ = digests(OLD, BLOCK)
    new = changed(1)
    writer.hear(DIGESTS, first)
    assert put(writer, new) == 200
    assert (writer.space(10), writer.room) == ([], 0)
    assert sent(half) == [same(1)]  # the receiver may wait for that
    writer.hear(DIGESTS, second[:5])
    assert writer.room == 0
    writer.hear(DIGESTS, second[5:])
    assert sent(half) == [same(1), (DATA, new[100:200])]
    assert put(writer, new[200:]) == 100
    writer.hear(DIGESTS, first)  # of something else
    assert writer.tally == Tally(300, 100, 200)


def test_the_last_block_waits_for_its_digest_if_it_can_be_the_same() -> None:
    half, writer = make()
    writer.hear(BASE, Base(250, BLOCK).pack())
    writer.hear(DIGESTS, b"".join(digests(OLD[:250], BLOCK)[:2]))
    put(writer, OLD[:249])
    assert not writer.waiting  # that cannot be
    put(writer, OLD[249:250])
    assert writer.waiting
    assert sent(half) == [same(1)]
    writer.pause()
    assert sent(half) == [same(2)]  # the receiver may wait for that
    writer.hear(DIGESTS, digests(OLD[:250], BLOCK)[2])
    assert not writer.waiting
    writer.end(whole=True)
    assert sent(half) == [same(3), ended(OLD[:250])]


def test_so_does_a_last_block_that_is_not_short() -> None:
    half, writer = make()
    writer.hear(BASE, Base(300, BLOCK).pack())
    put(writer, OLD[:100])
    assert writer.waiting
    writer.hear(DIGESTS, digests(OLD, BLOCK)[0])
    assert not writer.waiting
    writer.end(whole=True)
    assert sent(half) == [same(1), ended(OLD[:100])]


def test_nobody_waits_before_the_base_is_told_or_at_the_end_of_nothing() -> None:
    half, writer = make()
    assert not writer.waiting
    writer.end(whole=True)
    assert sent(half) == [ended(b"")]
    writer.hear(BASE, Base(250, BLOCK).pack())
    assert (writer.space(1), writer.room, writer.waiting) == ([], 0, False)


def test_who_cannot_wait_sends_what_there_is() -> None:
    half, writer = make()
    writer.hear(BASE, Base(len(OLD), BLOCK).pack())
    put(writer, OLD)
    writer.end(whole=False)
    assert sent(half) == [(DATA, OLD[:100])]
    writer.hear(DIGESTS, b"".join(digests(OLD, BLOCK)))  # which is too late
    assert sent(half) == [(DATA, OLD[:100])]
    assert writer.hungry


@pytest.mark.parametrize("told", [0, 1, 2])
def test_what_the_receiver_has_told_no_digest_of_is_sent(told: int) -> None:
    half, writer = make()
    writer.hear(BASE, Base(len(OLD), BLOCK).pack())
    writer.hear(DIGESTS, b"".join(digests(OLD, BLOCK)[:told]))
    done = put(writer, OLD[:150])
    writer.hear_end()
    assert put(writer, OLD[done:]) == len(OLD) - done
    assert not writer.waiting
    writer.end(whole=True)
    rest = (DATA, OLD[told * BLOCK :])
    assert sent(half) == [*([same(told)] if told else []), rest, ended(OLD)]
    assert writer.tally == Tally(told * BLOCK, told * BLOCK, 500 - told * BLOCK)


def test_what_the_receiver_told_before_its_end_is_compared() -> None:
    half, writer = told()
    writer.hear_end()
    put(writer, OLD)
    writer.end(whole=True)
    assert sent(half) == [same(5), ended(OLD)]


def test_no_more_digests_are_taken_than_it_holds() -> None:
    _, writer = make(capacity=4096)
    writer.hear(BASE, Base(64 * 3 * MOST_UNREAD, 64).pack())
    writer.hear(DIGESTS, bytes(32 * (MOST_UNREAD - 1)))
    assert writer.hungry
    writer.hear(DIGESTS, bytes(32))
    assert not writer.hungry
    put(writer, bytes(64))
    assert writer.hungry
    writer.hear(DIGESTS, bytes(32))
    writer.end(whole=False)
    assert writer.hungry  # the end of what the receiver says is behind them
    writer.hear(DIGESTS, bytes(32 * MOST_UNREAD))
    assert writer.hungry


def test_who_compares_nothing_takes_all_digests() -> None:
    _, writer = make(capacity=4096, whole=True)
    writer.hear(BASE, Base(64 * MOST_UNREAD, 64).pack())
    writer.hear(DIGESTS, bytes(32 * MOST_UNREAD))
    assert writer.hungry


def test_nobody_waits_for_a_digest_that_is_not_told_any_more() -> None:
    half, writer = make()
    writer.hear(BASE, Base(250, BLOCK).pack())
    writer.hear(DIGESTS, b"".join(digests(OLD, BLOCK)[:2]))
    put(writer, OLD[:250])
    assert writer.waiting
    writer.hear_end()
    assert not writer.waiting
    writer.end(whole=True)
    assert sent(half) == [same(2), (DATA, OLD[200:250]), ended(OLD[:250])]


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_a_small_buffer_has_room_for_a_block_and_the_end(acknowledged: int) -> None:
    half, writer = make(capacity=1024)
    old = bytes(256)
    tell(writer, old, 256)
    half.resume(0, 1 << 20)
    new = bytes(range(256))
    assert put(writer, new) == 256
    if acknowledged:
        assert half.next_frame(1 << 20)
        half.acknowledge(half.written)
    more = put(writer, bytes(1000))
    assert more == 1024 - 128 - 8 - (0 if acknowledged else 264)
    assert writer.room == 0
    writer.end(whole=True)
    assert sent(half)[-1][0] is TOTAL


# --- what cannot be ---


def _again() -> Iterator[tuple[Record, bytes]]:
    yield BASE, Base(250, BLOCK).pack()
    yield BASE, Base(250, BLOCK).pack()


def _too_many() -> Iterator[tuple[Record, bytes]]:
    yield BASE, Base(250, BLOCK).pack()
    yield DIGESTS, bytes(32 * 4)


def _torn() -> Iterator[tuple[Record, bytes]]:
    yield BASE, Base(250, BLOCK).pack()
    yield DIGESTS, bytes(31)
    yield BASE, bytes(16)


WRONG = {
    "digests of nothing": [(DIGESTS, bytes(32))],
    "a block that the buffer does not hold": [(BASE, Base(1, 501).pack())],
    "no block": [(BASE, bytes(16))],
    "a second base": list(_again()),
    "digests of no block": list(_too_many()),
    "a digest that does not end": list(_torn()),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("whole", [False, True])
def test_what_the_receiver_says_is_what_can_be(what: str, whole: bool) -> None:
    _, writer = make(whole=whole)
    *right, (kind, data) = WRONG[what]
    for each in right:
        writer.hear(*each)
    with pytest.raises(ProtocolError):
        writer.hear(kind, data)


def test_a_receiver_tells_its_base() -> None:
    _, writer = make()
    with pytest.raises(ProtocolError, match="does not tell its base"):
        writer.hear_end()


# --- two threads ---


def test_digests_may_come_while_the_producer_writes() -> None:
    half, writer = make(1 << 20)
    old = bytes(range(256)) * 250
    new = bytearray(old)
    new[10::5000] = b"\0" * len(new[10::5000])
    base = Base(len(old), 64)
    writer.hear(BASE, base.pack())

    def produce() -> None:
        done = 0
        while done < len(new):
            done += put(writer, bytes(new[done : done + 64]))

    file, thread = File(old, base), threading.Thread(target=produce, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for digest in digests(old, 64):
            writer.hear(DIGESTS, digest)
            file.assembly.told(digest)
        thread.join(10)
    finally:
        sys.setswitchinterval(interval)
    assert not thread.is_alive()
    writer.end(whole=True)
    for kind, content in sent(half):
        file.take(kind, content)
    assert file.assembly.whole
    assert file.content == new
    assert writer.tally == Tally(len(new), len(new) - 13 * 64, 13 * 64)
