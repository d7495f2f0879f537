from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import ProtocolError
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import (
    CONTENT,
    ITEMS,
    LARGEST_RECORD,
    Record,
    RecordReader,
    RecordWriter,
)
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import UNTOLD, Ended, Finish
from bpipe.protocol.writer import BackedWriter
from tests.support.loopback import EVERYTHING

DATA, ERRORS = Record.DATA, Record.ERRORS
BOTH = CONTENT
CUT = Finish(Ended.CUT)


def record(content: bytes, kind: int = DATA, *, length: int | None = None) -> bytes:
    return struct.pack(">II", kind << 24, len(content) if length is None else length) + content


def arrive(half: BackedReader, data: bytes) -> None:
    """Let these bytes of the stream come."""
    while data:
        count = fill(half.lend(len(data)), data)
        half.receive(count)
        data = data[count:]


def end(half: BackedReader, ended: Finish = UNTOLD) -> None:
    half.receive_mark(half.received, ended)


def make(data: bytes = b"", capacity: int = 100) -> tuple[BackedReader, RecordReader]:
    half = BackedReader(capacity)
    arrive(half, data)
    return half, RecordReader(half, BOTH)


def lent(reader: RecordReader, limit: int = EVERYTHING, after: int = 0) -> bytes:
    return b"".join(reader.readable(limit, after))


def take(reader: RecordReader, limit: int = EVERYTHING) -> bytes:
    data = lent(reader, limit)
    reader.took(len(data))
    return data


def written(half: BackedWriter) -> bytes:
    """What is on the stream."""
    half.resume(half.acked, EVERYTHING)
    found = b""
    while piece := half.next_frame(EVERYTHING):
        found += piece.payload
    return found


# --- the producer ---


def test_what_is_written_becomes_a_record() -> None:
    half = BackedWriter(100)
    records = RecordWriter(half)
    records.wrote(fill(records.space(10), b"hello"))
    records.wrote(fill(records.space(10), b"oh"), ERRORS)
    assert written(half) == b"\1\0\0\0\0\0\0\5hello" + b"\2\0\0\0\0\0\0\2oh"


def test_two_may_write_in_turn_and_nothing_is_no_record() -> None:
    half = BackedWriter(100)
    one, other = RecordWriter(half), RecordWriter(half)
    assert one.space(10)
    one.wrote(0)
    other.wrote(fill(other.space(10), b"b"))
    one.wrote(fill(one.space(10), b"a"))
    assert written(half) == record(b"b") + record(b"a")


def test_no_more_than_a_record_can_hold_is_lent() -> None:
    records = RecordWriter(BackedWriter(4 << 20))
    assert sum(map(len, records.space(3 << 20))) == LARGEST_RECORD


def test_it_lends_what_another_lends() -> None:
    half = BackedWriter(100)
    asked: list[int] = []
    records = RecordWriter(half, lambda limit: asked.append(limit) or half.space(11))  # type: ignore[func-returns-value]
    assert sum(map(len, records.space(50))) == 3
    assert asked == [58]


@pytest.mark.parametrize("left", range(10))
def test_there_is_room_for_a_record_only_behind_its_header(left: int) -> None:
    half = BackedWriter(100)
    half.wrote(len(half.space(100 - left)[0]) if left == 100 else 0)
    while half.room > left:
        views = half.space(half.room - left)
        half.wrote(sum(map(len, views)))
    records = RecordWriter(half)
    assert sum(map(len, records.space(50))) == records.room == max(0, left - 8)


@pytest.mark.parametrize("before", range(40))
def test_a_header_may_lie_across_pages_of_the_ring(before: int) -> None:
    half = BackedWriter(64)  # pages of 16 bytes
    half.space(before)
    half.wrote(before)
    records = RecordWriter(half)
    records.wrote(fill(records.space(5), b"hello"))
    assert written(half)[before:] == record(b"hello")


# --- the consumer ---


def test_the_content_of_records_is_lent_and_their_kind_is_told() -> None:
    half, reader = make(record(b"hello") + record(b"oh", ERRORS) + record(b"you"))
    assert (lent(reader), reader.kind) == (b"hello", DATA)
    reader.took(5)
    assert half.delivered == 13
    assert (lent(reader), reader.kind) == (b"oh", ERRORS)
    assert take(reader, 1) == b"o"
    assert half.delivered == 13 + 9
    assert (take(reader), take(reader), reader.kind) == (b"h", b"you", DATA)
    assert half.delivered == half.received
    assert take(reader) == b""


def test_nothing_is_lent_and_nobody_is_woken_for_less_than_a_byte_of_content() -> None:
    half, reader = make()
    whole = record(b"ab") + record(b"c")
    found = b""
    for at in range(len(whole)):
        arrive(half, whole[at : at + 1])
        has = at in (8, 9, 18)
        assert (reader.ready, reader.buffered > 0) == (has, has)
        found += (data := take(reader))
        assert bool(data) is has
        assert not reader.drained
    assert found == b"abc"
    end(half)
    assert (reader.ready, reader.buffered, take(reader), reader.drained) == (True, 0, b"", True)


def test_what_lies_in_one_record_after_another_of_a_kind_is_lent_in_one() -> None:
    half, reader = make(record(b"ab") + record(b"cde") + record(b"f", ERRORS) + record(b"g")[:-1])
    assert [lent(reader, limit) for limit in range(1, 7)] == [
        *(b"a", b"ab", b"abc", b"abcd", b"abcde", b"abcde")
    ]
    reader.took(4)
    assert (half.delivered, take(reader), take(reader)) == (20, b"e", b"f")
    assert take(reader) == b""
    arrive(half, b"g" + record(b"hi")[:-1])
    assert (take(reader), reader.kind, reader.drained) == (b"gh", DATA, False)
    arrive(half, b"i" + b"\1\0\0\0\0\0\0\0")
    assert take(reader) == b"i"
    with pytest.raises(ProtocolError, match="cannot be"):
        take(reader)


def test_what_is_behind_bytes_that_are_not_taken_yet_is_lent() -> None:
    half, reader = make(record(b"abc") + record(b"d", ERRORS) + record(b"ef"))
    given = [(lent(reader, 2, after), reader.kind) for after in range(6)]
    expected = [(b"ab", DATA), (b"bc", DATA), (b"c", DATA)]
    assert given == [*expected, (b"d", ERRORS), (b"ef", DATA), (b"f", DATA)]
    assert lent(reader, 2, 6) == b""
    assert (lent(reader, 9, 1), reader.kind) == (b"bc", DATA)  # and once more what is before
    assert reader.buffered == half.buffered == 30
    reader.took(0)
    reader.took(5)  # of three
    assert (half.delivered, lent(reader), lent(reader, 9, 1)) == (29, b"f", b"")


@pytest.mark.parametrize("ended", [UNTOLD, Finish(Ended.EXITED, 1), CUT], ids=str)
def test_a_stream_ends_after_a_whole_record(ended: Finish) -> None:
    half, reader = make(record(b"ab"))
    end(half, ended)
    assert (take(reader, 1), reader.drained) == (b"a", False)
    assert (take(reader), reader.drained, take(reader)) == (b"b", True, b"")
    half.close()


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("before", [b"", record(b"before")])
def test_a_stream_that_ends_within_a_record_is_an_error_of_protocol(
    before: bytes, size: int
) -> None:
    half, reader = make(before + record(b"xy")[:size])
    end(half)
    content = before[8:] + (b"x" if size > 8 else b"")
    assert reader.ready
    if content:
        assert take(reader) == content
        assert reader.ready
    with pytest.raises(ProtocolError, match="ends within a record"):
        take(reader)
    assert (reader.ready, reader.buffered, reader.drained, take(reader)) == (False, 0, False, b"")


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("before", [b"", record(b"before")])
def test_one_that_was_cut_may_end_within_a_record(before: bytes, size: int) -> None:
    half, reader = make(before + record(b"xy")[:size])
    end(half, CUT)
    given = b""
    while data := lent(reader, EVERYTHING, len(given)):
        given += data
        assert not reader.drained
    reader.took(len(given))
    assert take(reader) == b""
    assert (reader.drained, given) == (True, before[8:] + (b"x" if size > 8 else b""))
    half.close()


JUNK = {
    "no kind": record(b"x", 0),
    "an unknown kind": record(b"x", 7),
    "not zero": b"\1\0\1\0\0\0\0\1x",
    "nothing in it": record(b""),
    "too much in it": record(b"x", length=LARGEST_RECORD + 1),
}


@pytest.mark.parametrize("what", JUNK)
def test_a_record_that_cannot_be_is_an_error_of_protocol(what: str) -> None:
    _, reader = make(record(b"ab") + JUNK[what])
    assert take(reader) == b"ab"
    with pytest.raises(ProtocolError, match="a record that cannot be"):
        take(reader)
    assert (reader.ready, reader.buffered, reader.drained, take(reader)) == (False, 0, False, b"")


def test_the_largest_record_is_right() -> None:
    _, reader = make(record(b"x", length=LARGEST_RECORD))
    assert take(reader) == b"x"


@pytest.mark.parametrize("kind", ITEMS)
def test_a_record_of_items_holds_whole_ones(kind: Record) -> None:
    half, items = BackedReader(1000), bytes(2 * ITEMS[kind])
    arrive(half, record(items, kind) + record(items[1:], kind))
    consumer = RecordReader(half, {kind})
    assert take(consumer) == items
    with pytest.raises(ProtocolError, match="a record that cannot be"):
        take(consumer)


def test_so_is_a_kind_for_which_this_end_has_no_use() -> None:
    half, _ = make(record(b"x", ERRORS))
    reader = RecordReader(half)
    with pytest.raises(ProtocolError, match="a record that cannot be"):
        take(reader)


def test_a_consumer_that_stops_leaves_no_record_behind() -> None:
    half, reader = make(record(b"ab") + record(b"c"))
    assert take(reader, 1) == b"a"
    half.stop()
    assert (half.stopped, reader.ready, take(reader)) == (9, False, b"")


# --- both ---


contents = st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from(sorted(CONTENT))))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(contents, st.data())
def test_what_one_writes_the_other_reads(
    said: list[tuple[bytes, Record]], data: st.DataObject
) -> None:
    writer, half = BackedWriter(64), BackedReader(48)
    producer, consumer = RecordWriter(writer), RecordReader(half, BOTH)
    writer.resume(0, 48)
    heard = {kind: b"" for kind in CONTENT}
    given = 0  # to the consumer, and not taken
    rest = list(said)
    while rest or writer.acked < writer.written:
        if rest:
            content, kind = rest.pop(0)
            count = fill(producer.space(len(content)), content)
            assert bool(count) is (producer.room > 0) or count
            producer.wrote(count, kind)
            if count < len(content):
                rest.insert(0, (content[count:], kind))
        piece = writer.next_frame(data.draw(st.integers(1, 20)))
        if piece is not None:
            arrive(half, bytes(piece.payload))
        if part := lent(consumer, data.draw(st.integers(1, 20)), given):
            heard[consumer.kind] += part
            given += len(part)
        taken = data.draw(st.integers(0, given))
        consumer.took(taken)
        given -= taken
        writer.acknowledge(half.acknowledge())
    end(half)
    assert lent(consumer) == b""
    assert consumer.drained
    for kind in CONTENT:
        assert heard[kind] == b"".join(content for content, its in said if its is kind)


# --- what people are told ---


def test_what_is_counted_for_people_has_no_headers() -> None:
    half = BackedWriter(100)
    half.resume(0, EVERYTHING)
    writer = RecordWriter(half)
    writer.wrote(fill(writer.space(3), b"123"))
    writer.wrote(fill(writer.space(5), b"45678"))
    assert half.content() == (8, 0)
    sizes = []
    for piece in (8 + 3, 8 + 5):
        frame = half.next_frame(piece)
        assert frame is not None
        half.acknowledge(half.acked + piece)
        sizes.append(half.content())
    assert sizes == [(8, 0), (8, 8)]  # never more than is true, and all in the end
    writer.wrote(fill(writer.space(1), b"9"))
    assert half.content() == (9, 8)


def test_items_are_not_counted_for_people() -> None:
    half = BackedWriter(100)
    writer = RecordWriter(half)
    writer.wrote(fill(writer.space(3), b"123"))
    writer.wrote(fill(writer.space(16), bytes(16)), Record.BASE)
    writer.wrote(fill(writer.space(2), b"oh"), ERRORS)
    assert half.content() == (5, 0)


def test_of_what_was_taken_the_data_is_counted() -> None:
    half, reader = make(record(b"123") + record(b"45", ERRORS) + record(b"6"))
    assert take(reader, 2) == b"12"
    assert half.delivered - half.beside == 2
    while take(reader):
        pass
    assert half.delivered - half.beside == 4
