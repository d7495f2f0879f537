"""What a program reads and writes, where that is not simply all of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import bpipe
from bpipe.ends import program_streams
from bpipe.ends.program import Program
from bpipe.ends.program_streams import Input
from bpipe.protocol.wire import Ended, Finish
from tests.ends.test_program import everything, with_program
from tests.support.pairs import both, run, until


def test_what_a_program_leaves_unread_in_its_pipe_is_not_taken() -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await caller.write(b"abcdef")
        await until(lambda: program.result)
        await until(lambda: caller.writer.stopped is not None)
        assert caller.writer.stopped == 3
        assert listener.reader.left_early
        caller.finish(more=True)

    with_program(test, "dd", "bs=1", "count=3", "status=none")


def test_a_program_that_closes_its_input_may_go_on(tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        writing = asyncio.ensure_future(caller.write(bytes(4 << 20)))
        await until(lambda: listener.reader.stopped is not None)
        await asyncio.wait([writing])
        assert isinstance(writing.exception(), bpipe.PipeClosed)
        caller.finish(more=True)
        go.write_text("")
        assert await everything(caller) == b"answer\n"
        await until(lambda: program.result)
        assert program.result == Finish(Ended.EXITED, 7)

    with_program(test, "sh", "-c", f"exec <&-; cat < {go}; echo answer; exit 7")


def test_output_that_is_not_wanted_is_read_all_the_same(tmp_path: Path) -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        caller.stop()
        caller.finish()
        await until(lambda: program.result)
        assert program.result == Finish(Ended.EXITED, 0)

    with_program(test, "head", "-c", "3000000", "/dev/zero")


def test_output_that_somebody_else_holds_ends_with_the_program(tmp_path: Path) -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        caller.finish()
        assert await everything(caller) == b"answer\n"
        await until(lambda: program.result)

    with_program(test, "sh", "-c", "sleep 30 < /dev/null 2> /dev/null & echo answer")


def test_what_it_has_written_is_sent_however_long_that_takes_after_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program_streams, "HOLDERS_LINGER", 0.0)
    size = (1 << 20) + 50_000  # more than the buffer: the rest lies in its pipe

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await until(lambda: program.result)
        await asyncio.sleep(0.01)  # what waits for nothing in this loop has happened then
        caller.finish()
        assert len(await everything(caller)) == size

    with_program(test, "head", "-c", str(size), "/dev/zero")


def test_who_has_its_output_and_writes_on_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program_streams, "HOLDERS_LINGER", 0.0)

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await until(lambda: not listener.writer.room)
        await caller.write(b"\n")
        await until(lambda: program.result)
        await asyncio.sleep(0.01)  # what waits for nothing in this loop has happened then
        caller.finish()
        assert len(await everything(caller)) > 1 << 20

    with_program(test, "sh", "-c", "yes < /dev/null 2> /dev/null & read line")


def test_what_lies_in_a_pipe_that_it_has_closed_is_never_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program_streams, "UNREAD_FOR", 0.01)
    go = tmp_path / "go"
    os.mkfifo(go)

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await caller.write(b"a\n")
        await until(lambda: listener.reader.delivered == 2)
        monkeypatch.setattr(program_streams, "UNREAD_FOR", 60.0)
        await caller.write(b"b\nc\n")
        assert await caller.read() == b"closed\n"
        monkeypatch.setattr(program_streams, "UNREAD_FOR", 0.01)
        await until(lambda: caller.writer.stopped is not None)
        assert caller.writer.stopped == 4
        caller.finish(more=True)
        go.write_text("")

    with_program(test, "sh", "-c", f"read a; read b; exec <&-; echo closed; read c < {go}; exit 0")


class Lazy:
    """A program that reads when it is told to."""

    def __init__(self) -> None:
        self.unread = 0
        self.deserted = False

    def write(self, views: Sequence[memoryview]) -> int:
        count = sum(map(len, views))
        self.unread += count
        return count


def test_a_program_that_reads_what_was_counted_already_lets_nothing_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0

    async def test() -> None:
        nonlocal now
        lazy = Lazy()
        async with both() as (caller, listener):
            monkeypatch.setattr(listener.engine, "clock", lambda: now)
            reader, stream = listener.reader, Input(listener.engine, cast(Any, lazy))

            def at(seconds: float) -> int:
                nonlocal now
                now = 100.0 + seconds
                stream.move()
                return reader.delivered

            await caller.write(b"abcdef")
            await until(lambda: reader.buffered == 6)
            assert [at(0.0), at(2.0), at(2.1)] == [0, 0, 6]
            await caller.write(b"gh")
            await until(lambda: reader.buffered == 2)
            assert at(3.0) == 6
            lazy.unread -= 4
            assert [at(4.0), at(5.9)] == [6, 6]
            lazy.unread -= 3
            assert [at(6.0), at(8.0), at(8.1)] == [7, 7, 8]

    run(test)
