from __future__ import annotations

import pytest

from bpipe.protocol.draft import KEPT, Draft
from bpipe.protocol.records import LARGEST_RECORD, Record
from bpipe.protocol.ring import fill
from bpipe.protocol.writer import BackedWriter
from tests.support.blocks import on_the_stream

DATA, ERRORS, SAME, TOTAL = Record.DATA, Record.ERRORS, Record.SAME, Record.TOTAL


def make(capacity: int = 1000) -> tuple[BackedWriter, Draft]:
    half = BackedWriter(capacity)
    return half, Draft(half, half.space)


def add(draft: Draft, data: bytes) -> int:
    count = fill(draft.lend(len(data)), data)
    draft.add(count)
    return count


def same(count: int) -> tuple[Record, bytes]:
    return SAME, count.to_bytes(8, "big")


def test_what_is_added_is_on_the_stream_when_it_is_written() -> None:
    half, draft = make()
    assert add(draft, b"hello") == 5
    assert add(draft, b"you") == 3
    assert (draft.size, on_the_stream(half)) == (8, [])
    draft.write()
    assert (draft.size, half.written, on_the_stream(half)) == (0, 16, [(DATA, b"helloyou")])
    draft.write()  # there is nothing
    assert half.written == 16


def test_what_is_dropped_never_was_there_and_is_said_to_be_the_same() -> None:
    half, draft = make()
    add(draft, b"hello")
    draft.drop()
    assert (draft.size, draft.same, half.written) == (0, 1, 0)
    add(draft, b"hello")
    draft.drop()
    add(draft, b"you")
    draft.write()
    assert on_the_stream(half) == [same(2), (DATA, b"you")]
    assert draft.same == 0


def test_what_was_the_same_is_said_before_the_draft_is_decided() -> None:
    half, draft = make()
    draft.drop()
    add(draft, b"hello")
    draft.write_same()
    assert on_the_stream(half) == [same(1)]
    add(draft, b"you")
    draft.write()
    assert on_the_stream(half) == [same(1), (DATA, b"helloyou")]
    draft.write_same()
    assert half.written == 16 + 16


@pytest.mark.parametrize("run", [0, 3])
def test_another_kind_of_record_goes_before_it(run: int) -> None:
    half, draft = make()
    for _ in range(run):
        draft.drop()
    add(draft, b"hello")
    draft.insert(b"oh no", ERRORS)
    add(draft, b"you")
    draft.insert(b"oh", ERRORS)
    assert on_the_stream(half) == [(ERRORS, b"oh nooh")]
    draft.write()
    rest = [same(3)] if run else []
    assert on_the_stream(half) == [(ERRORS, b"oh nooh"), *rest, (DATA, b"helloyou")]


def test_only_data_is_counted_for_people_and_what_was_said_on_stderr() -> None:
    half, draft = make()
    draft.drop()
    add(draft, b"hello")
    draft.write()
    draft.put(TOTAL, bytes(40))
    draft.insert(b"oh", ERRORS)
    assert half.content() == (7, 0)


@pytest.mark.parametrize("before", range(0, 300, 7))
def test_there_is_always_room_for_the_end(before: int) -> None:
    half, draft = make(capacity=500)
    half.space(before)
    half.wrote(before)
    draft.drop()
    room = draft.room
    assert add(draft, bytes(500)) == room == 500 - before - 24 - KEPT
    assert (draft.room, draft.lend(1)) == (0, [])
    draft.write()
    draft.drop()
    draft.write_same()
    draft.put(TOTAL, bytes(40))
    assert half.written == before + 24 + room + 16 + 48


def test_it_lends_what_another_lends() -> None:
    half = BackedWriter(1000)
    given: list[int] = [0, 7, 8, 11]
    draft = Draft(half, lambda limit: half.space(min(limit, given.pop(0))))
    assert [sum(map(len, draft.lend(50))) for _ in range(4)] == [0, 0, 0, 3]


def test_a_record_holds_no_more_than_a_record_can() -> None:
    half, draft = make(4 << 20)
    data = bytes(range(256)) * (5 << 11)  # 2.5 MiB
    draft.drop()
    done = 0
    while done < len(data):
        done += add(draft, data[done : done + 700_000])
    draft.insert(b"oh", ERRORS)
    draft.write()
    assert half.written == 10 + 16 + 3 * 8 + len(data)
    assert on_the_stream(half) == [(ERRORS, b"oh"), same(1), (DATA, data)]


def test_a_draft_ends_where_a_record_does() -> None:
    half, draft = make(4 << 20)
    assert add(draft, bytes(3 << 20)) == LARGEST_RECORD
    draft.write()
    assert half.written == 8 + LARGEST_RECORD
