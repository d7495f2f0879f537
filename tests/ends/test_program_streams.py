"""What a program reads and writes, where that is not simply all of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import bpipe
from bpipe.ends.program import Program
from bpipe.protocol.wire import Ended, Finish
from tests.ends.test_program import everything, with_program
from tests.support.pairs import until


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
