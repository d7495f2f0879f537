"""A program as the ends of a pipe, in one event loop with its peer; see end_to_end, too."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

import bpipe
from bpipe.ends import program_streams
from bpipe.ends.child import Child
from bpipe.ends.guard import Guard
from bpipe.ends.program import Launch, Program
from bpipe.protocol.wire import Ended, Finish, Reason
from tests.support.pairs import both, pair, run, take, until
from tests.support.programs import folder, open_descriptors, reader, readers, saw_the_end

__all__ = ["folder"]


def with_program(
    test: Callable[[bpipe.BackedPipe, bpipe.BackedPipe, Program], Awaitable[None]],
    *argv: str,
    launch: Launch = Child,
) -> None:
    """A caller, and a listener whose ends are a program."""

    async def check() -> None:
        program = Program(argv, launch=launch)
        async with both() as (caller, listener):
            program.start(listener.engine)
            await test(caller, listener, program)
            await program.wait()

    run(check)


async def everything(pipe: bpipe.BackedPipe) -> bytes:
    data = b""
    while more := await pipe.read():
        data += more
    return data


def test_its_input_is_the_peers_stream_and_its_output_goes_back() -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        data = os.urandom(3 << 20)
        writing = asyncio.ensure_future(caller.write(data))
        got = b""
        while len(got) < len(data):
            got += await caller.read()
        await writing
        caller.finish()
        assert got == data
        assert await caller.read() == b""
        await until(lambda: program.result)
        assert program.result == Finish(Ended.EXITED, 0)
        await until(lambda: caller.reader.finish == Finish(Ended.EXITED, 0))

    with_program(test, "cat")


def test_it_is_started_when_the_session_is_established_and_not_before(tmp_path: Path) -> None:
    mark = tmp_path / "started"

    async def check() -> None:
        program = Program(["touch", str(mark)])
        async with pair() as (caller, listener):
            program.start(listener.engine)
            await asyncio.sleep(0)
            assert program.result is None
            assert not mark.exists()
            await asyncio.gather(caller.connect(), listener.connect())
            await until(lambda: program.result)
            assert mark.exists()
            await program.wait()

    run(check)


def test_one_that_cannot_be_started_is_told_to_the_peer(tmp_path: Path) -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await caller.wait_closed()
        assert isinstance(caller.failure, bpipe.PeerAborted)
        assert "cannot start /nowhere: no such file" in str(caller.failure)

    with_program(test, "/nowhere")


@pytest.mark.parametrize("aborts", ["caller", "listener"])
def test_a_stream_that_is_cut_short_has_no_end_for_it(tmp_path: Path, aborts: str) -> None:
    mark = tmp_path / "whole"
    script = "import sys; sys.stdin.read(); open(sys.argv[1], 'w')"

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await caller.write(b"a part")
        await until(lambda: listener.reader.delivered == 6)
        aborter = caller if aborts == "caller" else listener
        aborter.abort(Reason.LOCAL_ERROR, "no more")
        await until(lambda: program.result)
        assert program.result is not None
        assert program.result.how is Ended.KILLED
        assert not mark.exists()

    with_program(test, sys.executable, "-c", script, str(mark))
    assert not mark.exists()


@pytest.mark.parametrize("aborts", [False, True])
def test_one_that_is_hurried_is_not_asked_to_end(folder: Path, aborts: bool) -> None:
    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        await until(lambda: readers(folder))
        if aborts:
            listener.abort(Reason.LOCAL_ERROR, "no more")
            await until((folder / "asked").exists)
        assert program.hurry()
        assert not program.hurry()
        await program.wait()
        assert program.result == Finish(Ended.KILLED, signal.SIGKILL)
        assert not saw_the_end(folder)
        assert not program.hurry()

    with_program(test, *reader(folder, "stubborn"), launch=partial(Child, patience=1000.0))


def test_what_it_has_written_is_not_lost_when_the_far_end_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has exited, and what lies in its pipe waits for room: nobody else holds its output."""
    monkeypatch.setattr(program_streams, "HOLDERS_LINGER", 0.05)
    count = (1 << 20) + 30_000  # the buffer is full, and half the pipe

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        caller.finish()
        await until(lambda: program.result)
        await asyncio.sleep(0.2)
        assert len(await everything(caller)) == count
        assert caller.reader.finish == Finish(Ended.EXITED, 0)

    with_program(test, "head", "-c", str(count), "/dev/zero")


@pytest.mark.parametrize("left", ["sleep 99", "yes"])
def test_its_output_ends_though_somebody_holds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str
) -> None:
    monkeypatch.setattr(program_streams, "HOLDERS_LINGER", 0.1)

    async def test(caller: bpipe.BackedPipe, listener: bpipe.BackedPipe, program: Program) -> None:
        caller.finish()
        assert (await everything(caller)).startswith(b"an answer\n")
        assert caller.reader.finish == Finish(Ended.EXITED, 0)
        os.kill(int(pid.read_text()), signal.SIGKILL)

    pid = tmp_path / "pid"
    with_program(test, "sh", "-c", f"echo an answer; {left} & echo $! > {pid}")


def test_of_many_that_end_in_every_way_no_descriptor_is_left() -> None:
    """Neither here nor in the guard that they share."""

    async def one(guard: Guard, fate: str) -> None:
        script = {"ends": "cat", "is cut short": "cat", "is killed": "head -c 4; kill -KILL $$"}
        program = Program(["sh", "-c", script[fate]], guard)
        async with both() as (caller, listener):
            program.start(listener.engine)
            await caller.write(b"some")
            assert await take(caller, 4) == b"some"
            if fate == "is cut short":
                caller.abort(Reason.LOCAL_ERROR, "no more")
            else:
                caller.finish()
                assert await everything(caller) == b""
            await program.wait()

    async def check() -> None:
        guard = Guard()
        await one(guard, "ends")
        assert guard.pid is not None
        before = len(open_descriptors()), len(open_descriptors(guard.pid))
        fates = ["ends", "is cut short", "is killed"] * 4
        await asyncio.gather(*(one(guard, fate) for fate in fates))
        await until(lambda: len(open_descriptors()) == before[0])
        await until(lambda: len(open_descriptors(guard.pid or 0)) == before[1])
        guard.close()

    run(check)
