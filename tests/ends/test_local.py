"""What ends say of themselves, whatever is behind them."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

import bpipe
from bpipe.ends.local import Sink, Source
from bpipe.errors import LocalAbort, PeerAborted, PipeClosed, SessionEnded
from tests.support.pairs import both, pair, run, take


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_source_puts_bytes_into_lent_memory_and_ends() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            source = Source(caller.engine, "the program")
            (view,) = source.lend(5)
            view[:] = b"hello"
            source.wrote(5)
            caller.engine.drive()
            assert await take(listener, 5) == b"hello"
            assert not source.refused
            source.ended()
            assert await listener.read() == b""
            assert source.refused

    run(check)


def test_a_sink_takes_bytes_from_lent_memory_and_the_end() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            sink = Sink(listener.engine, "the program")
            await caller.write(b"hello")
            while not (views := sink.lend(100)):
                await listener.engine.changed()
            assert b"".join(views) == b"hello"
            sink.took(5)
            listener.engine.drive()
            caller.finish()
            while not listener.reader.drained:
                await listener.engine.changed()
            assert not listener.reader.done
            sink.ended()
            while not caller.writer.done:
                await caller.engine.changed()
            assert caller.status().confirmed == 5

    run(check)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_pipe_is_not_over_while_a_source_has_not_ended(at_once: bool) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            source = Source(caller.engine, "the program")
            caller.stop()
            listener.finish()
            listener.stop()
            if at_once:
                source.ended()
            else:
                while caller.writer.stopped is None:
                    await caller.engine.changed()
                assert caller.status().state is not bpipe.State.OVER
                source.ended(more=True)
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert (caller.failure is None) is at_once  # else there was more

    run(check)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (Source, "cannot read the program: input/output error"),
        (Sink, "cannot write the program: input/output error"),
    ],
)
def test_an_error_is_told_to_both_sides_with_the_name_of_the_end(
    end: type[Source] | type[Sink], said: str
) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            end(caller.engine, "the program").failed(os_error(errno.EIO))
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert isinstance(caller.failure, LocalAbort)
            assert str(caller.failure) == said
            assert isinstance(listener.failure, PeerAborted)
            assert said in str(listener.failure)

    run(check)


@pytest.mark.parametrize(
    ("unread", "untaken", "said"),
    [
        (0, False, None),
        (0, True, "the consumer behind the program closed its pipe"),
        (7, True, "the consumer behind the program closed its pipe, and left 7 bytes there"),
    ],
)
def test_a_consumer_that_leaves_after_everything_is_no_failure(
    unread: int, untaken: bool, said: str | None
) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            Sink(listener.engine, "the program").left(unread, untaken=untaken)
            listener.finish()
            caller.finish()
            caller.stop()
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            failure: SessionEnded | None = listener.failure
            assert (str(failure) if failure else None) == said
            assert failure is None or isinstance(failure, PipeClosed)

    run(check)


def test_what_is_said_before_there_is_a_link_is_no_error() -> None:
    async def check() -> None:
        async with pair() as (caller, listener):
            Source(caller.engine, "the program").ended()
            Sink(listener.engine, "the program").left(0, untaken=False)
            await asyncio.gather(caller.connect(), listener.connect())
            caller.stop()
            listener.finish()
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert caller.failure is listener.failure is None

    run(check)
