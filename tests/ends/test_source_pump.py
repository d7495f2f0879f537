"""The pump of a source, at the corners that processes reach only by chance."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

import bpipe
from bpipe.ends.source_pump import SourcePump
from bpipe.errors import LocalAbort, PeerAborted
from tests.support.pairs import Files, both, files, is_closed, run, until

__all__ = ["files"]


def test_it_is_read_to_its_end_and_closed(files: Files) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            os.write(feed, b"first")
            assert await listener.read() == b"first"
            assert not is_closed(stdin)
            os.close(feed)
            assert await listener.read() == b""
            await until(lambda: is_closed(stdin))

    run(check)


@pytest.mark.parametrize("full", [False, True], ids=["idle", "full"])
def test_the_producer_is_released_when_nobody_wants_more(files: Files, full: bool) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, _):
            SourcePump(caller.engine, stdin, "stdin")
            os.set_blocking(feed, False)
            while full and caller.writer.room:
                with contextlib.suppress(BlockingIOError):
                    os.write(feed, bytes(1 << 16))
                await asyncio.sleep(0)
            assert not is_closed(stdin)
            caller.abort(bpipe.Reason.LOCAL_ERROR, "enough")
            await until(lambda: is_closed(stdin))
            with pytest.raises(BrokenPipeError):
                os.write(feed, b"x")

    run(check)


def test_what_cannot_be_read_is_told_to_both() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            SourcePump(caller.engine, os.open("/", os.O_RDONLY), "the folder")
            with pytest.raises(PeerAborted, match="cannot read the folder: is a directory"):
                await listener.read()
            await caller.wait_closed()
            assert isinstance(caller.failure, LocalAbort)

    run(check)


@pytest.mark.parametrize("more", [False, True])
def test_whether_there_was_more_for_a_peer_that_takes_no_more_is_told(
    files: Files, more: bool
) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            SourcePump(caller.engine, stdin, "stdin")
            os.write(feed, b"taken")
            assert await listener.read() == b"taken"
            if more:
                os.write(feed, b"more")
            else:
                os.close(feed)
            listener.stop()
            await until(lambda: is_closed(stdin))
            caller.stop()
            listener.finish()
            await caller.wait_closed()
            assert (caller.failure is not None) is more

    run(check)
