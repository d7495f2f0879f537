"""What an end writes to, and reads from: bytes, records, or a stream to a file."""

from __future__ import annotations

import pytest

from bpipe.halves import inward, outward
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import CONTENT, RecordReader, RecordWriter
from bpipe.protocol.wire import RECORDS
from tests.support.pairs import pair, run
from tests.support.receiver import NEEDS
from tests.support.records import both


@pytest.mark.parametrize(
    ("needs", "written", "read"),
    [
        ((0, 0), None, None),
        ((RECORDS, 0), RecordWriter, RecordReader),
        (NEEDS, BlockWriter, BackedReader),
        (NEEDS[::-1], RecordWriter, RecordReader),  # this end is the receiver
    ],
)
def test_it_depends_on_what_the_ends_need(
    needs: tuple[int, int], written: type | None, read: type | None
) -> None:
    async def check() -> None:
        async with both(needs) as (caller, _):
            engine = caller.engine
            out, into = outward(engine), inward(engine, CONTENT)
            if written is None or read is None:
                assert (out.half, into.half) == (engine.writer, engine.reader)
            else:
                assert (type(out.half), type(into.half)) == (written, read)
            assert (into.reader is engine.reader) == (needs != NEEDS)

    run(check)


def test_of_a_receiver_of_a_file_there_is_nothing_and_its_end_at_once() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, _):
            half, reader, deliver = inward(caller.engine, CONTENT)
            assert half.readable(100) == []
            assert half.drained
            assert half.ready
            assert not reader.ended.failed
            deliver()
            assert reader.done
            assert not caller.reader.done

    run(check)


def test_an_end_that_begins_before_there_was_a_link_is_joined_to_bytes() -> None:
    async def check() -> None:
        async with pair() as (caller, _):
            assert outward(caller.engine).half is caller.writer
            assert caller.engine.session.terms.records is False

    run(check)
