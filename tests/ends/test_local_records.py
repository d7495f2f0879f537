"""What ends say where the session needs records, whatever is behind them."""

from __future__ import annotations

import asyncio

import pytest

from bpipe.ends.local import Sink, Source
from bpipe.errors import LocalAbort, PeerAborted
from bpipe.protocol.records import Record, RecordReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import RECORDS, Ended, Finish
from tests.support.pairs import run
from tests.support.records import both


class Everything(Sink):
    kinds = frozenset(Record)


def give(source: Source, data: bytes) -> None:
    (view,) = source.lend(len(data))
    view[:] = data
    source.wrote(len(data))
    source.engine.drive()


async def lent(sink: Sink, limit: int = 100) -> bytes:
    while not (views := sink.lend(limit)):
        await sink.engine.changed()
    return b"".join(views)


@pytest.mark.parametrize("needs", [(RECORDS, 0), (0, RECORDS), (RECORDS, RECORDS)])
def test_what_is_moved_is_the_content_of_records(needs: tuple[int, int]) -> None:
    async def check() -> None:
        async with both(needs) as (caller, listener):
            source, sink = Source(caller.engine, "that"), Everything(listener.engine, "this")
            assert isinstance(sink.half, RecordReader)
            for data in (b"hello", b"you"):
                give(source, data)
                assert await lent(sink) == data
                assert sink.half.kind is Record.DATA
                sink.took(len(data))
            source.ended()
            while not sink.half.drained:
                await listener.engine.changed()
            sink.ended()
            while not caller.writer.done:
                await caller.engine.changed()
            assert caller.status().confirmed == 5 + 3  # no headers

    run(check)


def test_a_source_waits_until_a_record_has_room() -> None:
    async def check() -> None:
        async with both() as (caller, _):
            source = Source(caller.engine, "that")
            while caller.writer.room > 8:
                views: Views = source.lend(min(1 << 16, caller.writer.room - 16) or 8)
                source.wrote(sum(map(len, views)))
            assert caller.engine.spacious
            assert (source.lend(1), source.spacious) == ([], False)

    run(check)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\7\0\0\0\0\0\0\1x", "a record that cannot be"),
        (b"\2\0\0\0\0\0\0\1x", "a record that cannot be"),  # this sink has no use for ERRORS
        (b"\1\0\0\0\0\0\0\2", "a stream that ends within a record"),
    ],
)
def test_what_cannot_be_ends_both_directions(said: bytes, why: str) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            sink = Sink(listener.engine, "this")
            (view,) = caller.writer.space(len(said))
            view[:] = said
            caller.writer.wrote(len(said))
            caller.finish()
            while not sink.half.ready:
                await listener.engine.changed()
            while listener.failure is None:
                assert sink.lend(100) == []
                await listener.engine.changed()
            assert isinstance(listener.failure, LocalAbort)
            assert str(listener.failure) == f"protocol error: {why}"
            await caller.wait_closed()
            assert isinstance(caller.failure, PeerAborted)

    run(check)


def test_what_is_left_of_a_record_that_was_cut_counts_as_taken() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            sink = Sink(listener.engine, "this")
            caller.writer.space(3)[0][:] = b"\1\0\0"
            caller.writer.wrote(3)
            caller.engine.finish(ended=Finish(Ended.CUT))
            while not sink.half.ready:
                await listener.engine.changed()
            driven: list[None] = []
            listener.engine.observe(lambda: driven.append(None))
            assert (sink.half.drained, sink.lend(100), sink.half.drained) == (False, [], True)
            for _ in range(3):
                await asyncio.sleep(0)
            assert driven
            while caller.status().confirmed < 3:
                await caller.engine.changed()

    run(check)


def test_one_that_ends_a_pipe_of_bytes_is_joined_to_the_halves() -> None:
    async def check() -> None:
        async with both((0, 0)) as (caller, listener):
            source, sink = Source(caller.engine, "that"), Sink(listener.engine, "this")
            assert (source.half, sink.half) == (caller.writer, listener.reader)
            assert source.spacious

    run(check)
