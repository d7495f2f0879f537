"""A pipe whose streams are cut into records, as programs use it."""

from __future__ import annotations

import asyncio
import os

import pytest

import bpipe
from bpipe.ends.local import Source
from bpipe.errors import LocalAbort, PeerAborted
from bpipe.net.address import to_listen_at
from bpipe.protocol.records import Record, RecordWriter
from bpipe.protocol.wire import RECORDS
from bpipe.server import Server, Terms
from tests.support.pairs import run
from tests.support.pipes import read_all, send
from tests.support.records import both


@pytest.mark.parametrize("needs", [(RECORDS, 0), (0, RECORDS), (RECORDS, RECORDS)])
def test_bytes_come_out_as_they_went_in(needs: tuple[int, int]) -> None:
    async def check() -> None:
        data = os.urandom(3_000_000)
        async with both(needs) as (caller, listener):
            sending = asyncio.ensure_future(send(caller, data))
            assert await read_all(listener) == data
            await sending
            await send(listener, b"back")
            assert await read_all(caller) == b"back"
            for pipe in (caller, listener):
                await pipe.wait_closed()
                assert pipe.failure is None

    run(check)


def test_errors_are_told_apart_or_left_out() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            source = Source(listener.engine, "a program")
            half = source.half
            assert isinstance(half, RecordWriter)
            for content, kind in ((b"a", Record.DATA), (b"b", Record.ERRORS)) * 2:
                half.space(1)[0][:] = content
                half.wrote(1, kind)
            listener.engine.drive()
            assert await caller.read_record() == (Record.DATA, b"a")
            assert await caller.read_record() == (Record.ERRORS, b"b")
            source.ended()
            assert await read_all(caller) == b"a"

    run(check)


def test_what_cannot_be_records_ends_the_pipe() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            caller.writer.space(8)[0][:] = b"\7\0\0\0\0\0\0\1"
            caller.writer.wrote(8)
            caller.engine.drive()
            with pytest.raises(LocalAbort, match="protocol error: a record that cannot be"):
                await listener.read()
            with pytest.raises(PeerAborted):
                await caller.read()

    run(check)


async def taken(pipe: bpipe.BackedPipe) -> None:
    """All that comes."""
    await read_all(pipe)


@pytest.mark.parametrize("needs", [(RECORDS, 0), (0, RECORDS)])
def test_what_an_end_needs_is_said_when_it_is_made(needs: tuple[int, int]) -> None:
    async def check() -> None:
        there = await bpipe.listen("127.0.0.1:0", needs=needs[0])
        caller = await bpipe.connect(there.status().peer, needs=needs[1])
        await asyncio.gather(caller.connect(), there.connect())
        assert caller.engine.session.terms.records is there.engine.session.terms.records is True
        await asyncio.gather(caller.close(), there.close())
        where = to_listen_at("127.0.0.1:0", sealed=False)
        async with Server(where, taken, 1, Terms(needs=needs[0])) as server:
            async with await bpipe.connect(server.address, needs=needs[1]) as caller:
                assert caller.engine.session.terms.records is True

    run(check)
