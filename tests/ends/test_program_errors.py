"""A program whose stderr is carried, too; with the process's own ends: ``test_errors_sink``."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.program_errors import RemoteProgram
from bpipe.errors import PipeClosed
from bpipe.protocol.records import CONTENT, Record
from bpipe.protocol.wire import Ended, Finish
from tests.support.pairs import run, until
from tests.support.programs import alive, folder
from tests.support.records import both

__all__ = ["folder"]

Test = Callable[[bpipe.BackedPipe, bpipe.BackedPipe, RemoteProgram], Awaitable[None]]


def with_program(test: Test, *argv: str) -> None:
    """A caller, and a listener whose ends are a program; both end well."""

    async def check() -> None:
        program = RemoteProgram(argv)
        async with both() as (caller, listener):
            program.start(listener.engine)
            await test(caller, listener, program)
            await program.wait()

    run(check)


async def told(pipe: bpipe.BackedPipe) -> dict[Record, bytes]:
    """All that comes, by kind."""
    found = {kind: b"" for kind in CONTENT}
    while True:
        kind, data = await pipe.read_record()
        if not data:
            return found
        found[kind] += data


async def ended_well(*pipes: bpipe.BackedPipe) -> None:
    for pipe in pipes:
        await pipe.wait_closed()
        assert pipe.failure is None


def test_both_are_carried_and_its_status() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        near.finish()
        assert await told(near) == {Record.DATA: b"out\n", Record.ERRORS: b"err\n"}
        await ended_well(near, far)
        assert near.reader.finish == Finish(Ended.EXITED, 7)

    with_program(test, "sh", "-c", "echo out; echo err >&2; exit 7")


def test_they_keep_their_order_where_it_can_be_seen() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        for number in range(20):
            await near.write(b"x\n")
            kind = Record.ERRORS if number % 2 else Record.DATA
            assert await near.read_record() == (kind, b"x\n")
        near.finish()
        assert not any((await told(near)).values())
        await ended_well(near, far)

    with_program(test, "sh", "-c", "while read a; do echo $a; read b || exit 0; echo $b >&2; done")


def test_much_on_both_and_on_its_stdin() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        data = os.urandom(5_000_000)

        async def send() -> None:
            await near.write(data)
            near.finish()

        sending = asyncio.ensure_future(send())
        found = await told(near)
        await sending
        assert found[Record.DATA] == found[Record.ERRORS] == data
        await ended_well(near, far)
        assert near.reader.finish == Finish(Ended.EXITED, 0)

    with_program(test, "sh", "-c", "tee /dev/stderr")


@pytest.mark.parametrize("script", ["exit 3", "exec <&-; echo out; sleep 0.1; exit 3"])
def test_it_may_leave_its_stdin_early(script: str) -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        loop = asyncio.get_running_loop()
        near.engine.begin()

        async def send() -> None:
            with pytest.raises(PipeClosed):
                await near.write(bytes(100 << 20))
            near.finish(more=True)

        began = loop.time()
        await asyncio.gather(send(), told(near))
        await ended_well(near, far)
        assert near.reader.finish == Finish(Ended.EXITED, 3)
        assert loop.time() - began < 1.5  # nobody was asked whether there was more

    with_program(test, "sh", "-c", script)


def test_its_end_waits_for_its_exit() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, program: RemoteProgram) -> None:
        reading = asyncio.ensure_future(told(near))
        await near.write(b"go\n")
        await until(lambda: not far.reader.buffered)
        await asyncio.wait([reading], timeout=1.5)
        assert not reading.done()
        near.finish()
        await reading
        await ended_well(near, far)
        assert near.reader.ended == Finish(Ended.EXITED, 9)

    with_program(test, "sh", "-c", "exec >&- 2>&-; while read a; do :; done; exit 9")


@pytest.mark.parametrize("held", ["2>&1 >/dev/null", "2>/dev/null"], ids=["stderr", "stdout"])
def test_who_holds_one_of_them_is_let_go_of(folder: Path, held: str) -> None:
    script = f"sleep 60 {held} </dev/null & echo $! > '{folder}/pid'; echo said; echo so >&2"
    holder = []

    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        near.finish()
        assert await told(near) == {Record.DATA: b"said\n", Record.ERRORS: b"so\n"}
        await ended_well(near, far)
        holder.append(int((folder / "pid").read_text()))
        assert alive(holder[0])

    try:
        with_program(test, "sh", "-c", script)
    finally:
        os.kill(holder[0], signal.SIGKILL)


def test_cut_short_it_hears_that_the_terminal_has_hung_up(folder: Path) -> None:
    script = f"trap 'echo hup > {folder}/hup; exit' HUP; echo ready; while :; do sleep 0.05; done"

    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, program: RemoteProgram) -> None:
        assert await near.read_record() == (Record.DATA, b"ready\n")
        near.abort(bpipe.Reason.INTERRUPTED, "^C")
        await program.wait()
        assert (folder / "hup").read_text() == "hup\n"

    with_program(test, "sh", "-c", script)


def test_what_is_not_wanted_any_more_is_read_and_discarded() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        near.finish()
        near.stop()
        await ended_well(near, far)
        assert near.reader.finish == Finish(Ended.EXITED, 5)

    much = "head -c 300000 /dev/zero"
    with_program(test, "sh", "-c", f"{much} || exit 6; {much} >&2 || exit 7; exit 5")


def test_it_waits_for_who_does_not_take_what_it_writes() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        near.finish()
        await until(lambda: far.writer.room <= 8)
        found = await told(near)
        assert {kind: len(data) for kind, data in found.items()} == dict.fromkeys(CONTENT, 2 << 20)
        await ended_well(near, far)

    with_program(test, "sh", "-c", f"head -c {2 << 20} /dev/zero | tee /dev/stderr")


def test_what_comes_soon_after_its_exit_is_carried() -> None:
    async def test(near: bpipe.BackedPipe, far: bpipe.BackedPipe, _: RemoteProgram) -> None:
        near.finish()
        assert await told(near) == {Record.DATA: b"out\n", Record.ERRORS: b"late\n"}
        await ended_well(near, far)

    wait = "while kill -0 $$ 2>/dev/null; do sleep 0.02; done"
    script = f"({wait}; echo late >&2) >/dev/null </dev/null & cat; echo out"
    with_program(test, "sh", "-c", script)
