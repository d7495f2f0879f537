"""The pump of a sink, at the corners that processes reach only by chance."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import threading
from collections.abc import Callable

import pytest

import bpipe
from bpipe.ends.sink_pump import SinkPump
from bpipe.errors import LocalAbort, PeerAborted, PipeClosed
from bpipe.net.outlet import Outlet
from tests.support.pairs import LOOP, Calls, Files, both, drain, files, needs_nowait, run, until

__all__ = ["files"]


def test_it_is_closed_before_the_end_counts_as_delivered(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        drain, stdout = files.pipe()
        closing, go_on = threading.Event(), threading.Event()
        close = os.close

        def slow(descriptor: int) -> None:
            if descriptor == stdout:
                closing.set()
                go_on.wait(10)
            close(descriptor)

        async with both() as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            monkeypatch.setattr(os, "close", slow)
            await caller.write(b"12345")
            caller.finish()
            await asyncio.to_thread(closing.wait, 10)
            assert os.read(drain, 100) == b"12345"
            await until(lambda: caller.status().confirmed == 5)
            assert not listener.reader.done
            assert not caller.writer.done
            go_on.set()
            await until(lambda: caller.writer.done)

    run(check)


def test_a_close_that_fails_is_told_to_both(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        _, stdout = files.pipe()
        close = os.close

        def fail(descriptor: int) -> None:
            close(descriptor)
            if descriptor == stdout:
                raise OSError(errno.EDQUOT, "")

        async with both() as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            monkeypatch.setattr(os, "close", fail)
            await caller.write(b"12345")
            with pytest.raises(PeerAborted, match="cannot write stdout: disk quota exceeded"):
                await caller.close()
            await listener.wait_closed()
            assert isinstance(listener.failure, LocalAbort)

    run(check)


def test_a_consumer_that_leaves_is_noticed_while_nothing_moves(files: Files) -> None:
    async def check() -> None:
        drain, stdout = files.pipe()
        async with both() as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            os.close(drain)
            with pytest.raises(PipeClosed, match="closed its pipe"):
                await caller.read()
            await listener.wait_closed()
            assert isinstance(listener.failure, PipeClosed)

    run(check)


def test_one_that_is_full_holds_up_only_itself(files: Files) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        async with both() as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            await caller.write(bytes(1 << 20))
            await until(lambda: listener.status().received == 1 << 20)
            assert listener.status().delivered < 1 << 20
            await listener.write(b"the other way")
            assert await caller.read() == b"the other way"
            caller.finish()
            await drain(out, 1 << 20)
            await until(lambda: caller.writer.done)

    run(check)


PUMP = "SinkPump"


class Writes(Calls):
    """Those to stdout; ``meanwhile`` is called before each of the event loop's."""

    def __init__(
        self, patch: pytest.MonkeyPatch, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        writev, pwritev = os.writev, os.pwritev

        def try_pwritev(descriptor: int, views: list[memoryview], offset: int, flags: int) -> int:
            self.tries += 1
            meanwhile()
            return self.note(pwritev(descriptor, views, offset, flags))

        patch.setattr(os, "writev", lambda descriptor, views: self.note(writev(descriptor, views)))
        patch.setattr(os, "pwritev", try_pwritev)


SECRET = bpipe.Secret(bytes(32))  # what is sealed cannot pass by the pump's memory


@needs_nowait
def test_a_little_is_written_without_the_pump(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        async with both(SECRET) as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            writes = Writes(monkeypatch)
            for number in range(1, 20):
                await asyncio.sleep(0)
                await caller.write(b"piece")
                assert await drain(out, 5) == b"piece"
                await until(lambda: caller.status().confirmed == 5 * number)  # noqa: B023
            assert writes.by(PUMP) == 0

    run(check)


@needs_nowait
def test_what_it_does_not_take_at_once_is_left_to_the_pump(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, 4096)
        async with both(SECRET) as (caller, listener):
            SinkPump(listener.engine, stdout, "stdout")
            writes = Writes(monkeypatch)
            data = random.Random(0).randbytes(10_000)
            await caller.write(data)
            await until(lambda: writes.done)
            assert writes.done[0] == (LOOP, 4096)
            assert await drain(out, len(data)) == data
            await until(lambda: caller.status().confirmed == len(data))

    run(check)


@needs_nowait
@pytest.mark.parametrize(("number", "tries"), [(errno.EOPNOTSUPP, 1), (errno.EAGAIN, 5)])
def test_one_that_cannot_be_asked_is_not_asked_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    def refuse() -> None:
        raise OSError(number, "")

    async def check() -> None:
        out, stdout = files.pipe()
        async with both(SECRET) as (caller, listener):
            outlets = list[Outlet]()
            with monkeypatch.context() as patch:
                patch.setattr(listener.engine, "use_outlet", outlets.append)
                SinkPump(listener.engine, stdout, "stdout")
            (outlet,) = outlets
            listener.engine.use_outlet(outlet)
            writes = Writes(monkeypatch, refuse)
            for _ in range(5):
                await until(outlet.idle)
                await caller.write(b"piece")
                assert await drain(out, 5) == b"piece"
            assert writes.by(LOOP) == 0
            assert writes.tries == tries

    run(check)
