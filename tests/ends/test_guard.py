"""The guard: whatever becomes of this process, no program takes a part for the whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from bpipe.ends.guard import AGAIN, Guard
from bpipe.net import spawn
from bpipe.net.processes import look
from bpipe.protocol.wire import Ended
from tests.end_to_end.data import until as wait_until
from tests.support.pairs import run, until
from tests.support.programs import (
    Story,
    alive,
    behind_cat,
    cases,
    folder,
    open_descriptors,
    reader,
    readers,
    saw_the_end,
)

pytestmark = pytest.mark.slow  # real processes and sockets; the default Python only

__all__ = ["folder"]

if not sys.platform.startswith("linux"):
    pytest.skip("what programs start is found on Linux only", allow_module_level=True)


@contextlib.asynccontextmanager
async def guarding() -> AsyncIterator[Guard]:
    """A guard, whose process is gone afterwards."""
    guard = Guard()
    try:
        yield guard
    finally:
        pid = guard.pid
        guard.close()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # a test may have failed while it stood still
            await until(lambda: look(pid) is None)  # it has ended, and was reaped


@contextlib.contextmanager
def holder(*programs: list[str]) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that holds these programs, and the pids of its guard and of each of them."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.holder", *map(shlex.join, programs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, [int(word) for word in process.stdout.readline().split()]
        finally:
            process.kill()


def test_without_a_program_nothing_is_started() -> None:
    async def test() -> None:
        guard = Guard()
        assert guard.pid is None
        guard.close()

    run(test)


def test_when_its_process_is_killed_no_program_takes_a_part_for_the_whole(folder: Path) -> None:
    programs = cases(folder)
    with holder(*programs.values()) as (process, (guard, *_)):
        for name in programs:
            wait_until(lambda: readers(folder / name), f"the reader of {name}")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not alive(guard), "the end of the guard")
        assert [name for name in programs if saw_the_end(folder / name)] == []


def test_a_program_that_was_not_yet_told_of_is_found(folder: Path) -> None:
    async def test() -> None:
        guard = Guard()
        reading, writing = os.pipe()
        guard.hold(writing)
        started = spawn.start(reader(folder), os.environ, (reading, 2, 2))
        await until(lambda: readers(folder))
        os.close(reading)
        guard.close()
        os.close(writing)
        os.waitpid(started, 0)
        assert not saw_the_end(folder)

    run(test)


def test_a_stream_that_has_ended_is_closed_by_the_guard_too(folder: Path) -> None:
    async def test() -> None:
        async with guarding() as guard:
            story = Story(reader(folder), guard)
            story.child.close_stdin()
            story.child.close_stdin()
            await until(lambda: story.told)
            assert story.child.result == (Ended.EXITED, 0)
            assert saw_the_end(folder)
            assert story.child.stdin == -1
            story.child.close_stdin()
            other = Story(["cat"], guard)  # the guard still answers
            other.child.close_stdin()
            await until(lambda: other.told and other.child.stdin == -1)
            assert guard.pid is not None
            assert alive(guard.pid)

    run(test)


def test_the_guard_lets_go_first(folder: Path) -> None:
    async def test() -> None:
        async with guarding() as guard:
            story = Story(reader(folder), guard)
            assert guard.pid is not None
            os.kill(guard.pid, signal.SIGSTOP)
            story.child.close_stdin()
            story.child.close_stdin()
            await asyncio.sleep(0)
            assert story.child.stdin >= 0
            os.kill(guard.pid, signal.SIGCONT)
            await until(lambda: story.told and story.child.stdin == -1)
            assert saw_the_end(folder)

    run(test)


def test_a_stream_that_had_ended_stays_so_when_its_process_is_killed(folder: Path) -> None:
    slow = ["sh", "-c", f"{shlex.join(reader(folder))}; exec sleep 999"]
    with holder(slow) as (process, (guard, program)):
        assert process.stdin is not None
        assert process.stdout is not None
        print("close", file=process.stdin, flush=True)
        assert process.stdout.readline() == "closed\n"
        process.kill()
        process.wait()
        wait_until(lambda: not alive(guard), "the end of the guard")
        try:
            assert alive(program)  # which is nobody's business
            wait_until(lambda: (folder / "whole").exists(), "the end of the stream")
        finally:
            os.kill(program, signal.SIGKILL)


def test_who_was_being_cut_short_does_not_stand_still_for_ever(folder: Path) -> None:
    going_on = ["sh", "-c", f"{shlex.join(reader(folder))}; exec sleep 999"]
    with holder(going_on) as (process, (guard, program)):
        assert process.stdin is not None
        assert process.stdout is not None
        print("close", file=process.stdin, flush=True)
        assert process.stdout.readline() == "closed\n"
        print("cut", file=process.stdin, flush=True)
        assert process.stdout.readline() == "stopped\n"
        process.kill()
        process.wait()
        wait_until(lambda: not alive(guard), "the end of the guard")
        assert not alive(program)


def test_what_a_program_left_behind_lives() -> None:
    leaves = ["sh", "-c", "sleep 999 < /dev/null > /dev/null 2>&1 &"]
    with holder(leaves) as (process, (guard, program)):
        wait_until(lambda: not alive(program), "the end of the program")
        left = numbers_of_session(program)
        process.kill()
        process.wait()
        wait_until(lambda: not alive(guard), "the end of the guard")
        assert all(map(alive, left))
        assert len(left) == 1
        os.kill(left[0], signal.SIGKILL)


def numbers_of_session(leader: int) -> list[int]:
    """Who runs in its session."""
    processes = [look(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    found = [each.pid for each in processes if each is not None and each.session == leader]
    return [pid for pid in found if alive(pid)]


def test_when_it_is_closed_what_it_holds_is_cut_short(folder: Path) -> None:
    async def test() -> None:
        async with guarding() as guard:
            story = Story(behind_cat(folder), guard)
            await until(lambda: readers(folder))
        await until(lambda: story.told)
        story.child.close_stdin()
        await until(lambda: story.child.stdin == -1)
        assert not saw_the_end(folder)

    run(test)


def test_the_guard_is_told_of_an_end_that_is_its_own() -> None:
    class Noting(Guard):
        noted: Final[list[int]] = []

        def ended(self, key: int) -> None:
            self.noted.append(key)
            super().ended(key)

    async def test() -> None:
        guard = Noting()
        own, cut = Story(["true"], guard), Story(["cat"], guard)
        await until(lambda: own.told)
        cut.child.cut_short(cut.done)
        await until(lambda: "done" in cut.told)
        assert len(guard.noted) == 1
        key = guard.hold(own.child.stdin)
        with subprocess.Popen(["sleep", "999"]) as other:  # as if it had the number of one before
            guard.started(key, other.pid, -1)
            guard.ended(key)
            pid = guard.pid
            assert pid is not None
            guard.close()
            await until(lambda: look(pid) is None)
            assert other.poll() is None
            other.kill()

    run(test)


def test_who_was_cut_short_is_let_go(folder: Path) -> None:
    async def test() -> None:
        async with guarding() as guard:
            assert guard.pid is None
            story = Story(behind_cat(folder), guard)
            assert guard.pid is not None
            await until(lambda: readers(folder))
            story.child.cut_short(story.done)
            await until(lambda: "done" in story.told)
            await until(lambda: len(open_descriptors(guard.pid or 0)) == 4)
            assert not saw_the_end(folder)

    run(test)


def test_it_has_nothing_but_its_socket_and_what_it_holds() -> None:
    async def test() -> None:
        spare = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(spare, True)
        async with guarding() as guard:
            with pytest.raises(FileNotFoundError):
                Story(["no-such-program"], guard)
            os.close(spare)
            story = Story(["cat"], guard)
            story.child.close_stdin()
            await until(lambda: story.child.stdin == -1)
            pid = guard.pid
            assert pid is not None
            null, socket = open_descriptors(pid)[:3], open_descriptors(pid)[3:]
            assert null == [os.devnull] * 3
            assert [each[:7] for each in socket] == ["socket:"]
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getsid(pid) == pid

    run(test)


def test_no_signal_that_ends_us_ends_it() -> None:
    async def test() -> None:
        async with guarding() as guard:
            story = Story(["cat"], guard)
            assert guard.pid is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.kill(guard.pid, number)
            story.child.close_stdin()
            await until(lambda: story.told)
            assert alive(guard.pid)

    run(test)


def test_when_it_is_killed_nobody_waits_for_it_and_another_one_takes_its_place() -> None:
    async def test() -> None:
        async with guarding() as guard:
            story, other = Story(["cat"], guard), Story(["cat"], guard)
            first = guard.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            story.child.close_stdin()
            os.kill(first, signal.SIGKILL)
            await until(lambda: story.told and look(first) is None)
            third = Story(["cat"], guard)
            assert guard.pid not in (None, first)
            for each in (other, third):
                each.child.close_stdin()
            await until(lambda: other.told and third.told)

    run(test)


def test_another_one_holds_what_it_held(folder: Path) -> None:
    for name in ("reads", "has read"):
        (folder / name).mkdir()

    async def test() -> None:
        async with guarding() as guard:
            story = Story(behind_cat(folder / "reads"), guard)
            closed = Story(reader(folder / "has read", "stubborn"), guard)
            closing = Story(["cat"], guard)
            await until(lambda: readers(folder / "reads") and readers(folder / "has read"))
            first = guard.pid
            assert first is not None
            closed.child.close_stdin()
            await until(lambda: closed.told)
            os.kill(first, signal.SIGSTOP)
            closing.child.close_stdin()
            os.kill(first, signal.SIGKILL)
            await until(lambda: closing.told and look(first) is None)
            assert guard.pid != first
            assert "ended" not in story.told
        await until(lambda: story.told)
        assert not saw_the_end(folder / "reads")
        story.child.close_stdin()
        await until(lambda: story.child.stdin == -1)

    run(test)


def test_one_that_is_killed_all_the_time_is_given_up(folder: Path) -> None:
    async def test() -> None:
        guard = Guard()
        story = Story(["cat"], guard)
        pids = []
        for _ in range(AGAIN + 1):
            pid = guard.pid
            assert pid is not None
            pids.append(pid)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: look(pid) is None)  # noqa: B023
            await until(lambda: guard.pid not in pids or len(pids) > AGAIN)
        assert guard.pid == pids[-1]
        story.child.close_stdin()
        await until(lambda: story.told and story.child.stdin == -1)
        guard.close()

    run(test)


def test_more_than_its_socket_takes_waits_and_is_not_lost() -> None:
    async def test() -> None:
        async with guarding() as guard:
            reading, writing = os.pipe()
            guard.hold(writing)
            assert guard.pid is not None
            os.kill(guard.pid, signal.SIGSTOP)
            before = len(open_descriptors())
            keys = [guard.hold(writing) for _ in range(400)]
            assert len(open_descriptors()) > before  # some wait here
            closed: list[int] = []
            for key in keys:
                guard.let_go(key, lambda key=key: closed.append(key))  # type: ignore[misc]
            os.kill(guard.pid, signal.SIGCONT)
            await until(lambda: len(closed) == len(keys))
            assert closed == keys
            assert len(open_descriptors()) == before
            os.close(reading)
            os.close(writing)

    run(test)
