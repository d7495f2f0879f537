"""A program: what it gets, how it ends, and that it never takes a part for the whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpipe.ends.child import Child
from bpipe.net.processes import look
from bpipe.protocol.wire import Ended
from tests.support.pairs import run, until
from tests.support.programs import (
    KINDS,
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

PYTHON = [sys.executable, "-I", "-S", "-c"]


def test_every_exit_status_is_known() -> None:
    async def test() -> None:
        statuses = [0, 1, 2, 99, 127, 128, 254, 255]
        stories = [Story(["sh", "-c", f"exit {status}"]) for status in statuses]
        await until(lambda: all(each.told for each in stories))
        assert [each.child.result for each in stories] == [(Ended.EXITED, one) for one in statuses]
        assert all(each.told == ["ended"] for each in stories)

    run(test)


def test_every_deadly_signal_is_known() -> None:
    async def test() -> None:
        numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE, signal.SIGINT]
        stories = [Story(["sh", "-c", f"kill -{number} $$"]) for number in numbers]
        await until(lambda: all(each.told for each in stories))
        assert [each.child.result for each in stories] == [(Ended.KILLED, one) for one in numbers]

    run(test)


def test_it_reads_and_writes_two_pipes_that_block_on_its_side_only() -> None:
    async def test() -> None:
        code = "import os, sys; print(os.get_blocking(0), os.get_blocking(1), sys.stdin.read())"
        story = Story([*PYTHON, code])
        assert not os.get_blocking(story.child.stdin)
        assert not os.get_blocking(story.child.stdout)
        assert not os.get_inheritable(story.child.stdin)
        assert not os.get_inheritable(story.child.stdout)
        os.write(story.child.stdin, b"a word")
        story.child.close_stdin()
        story.child.close_stdin()
        assert await story.output() == "True True a word\n"

    run(test)


def test_its_bytes_are_moved_without_waiting() -> None:
    async def test() -> None:
        child = Story(["sh", "-c", "read line; echo $line"]).child
        assert not child.deserted
        room = memoryview(bytearray(100))
        with pytest.raises(BlockingIOError):
            child.read([room])
        assert child.write([memoryview(b"a wo"), memoryview(b"rd\n")]) == 7
        await until(lambda: child.result)
        assert child.untaken == 7
        assert child.read([room[:2], room[2:]]) == 7
        assert child.untaken == 0
        assert bytes(room[:7]) == b"a word\n"
        assert child.read([room]) == 0
        assert child.deserted
        with pytest.raises(BrokenPipeError):
            child.write([memoryview(b"more")])

    run(test)


def test_its_pipe_has_room_for_so_much() -> None:
    async def test() -> None:
        child = Story(["sleep", "60"]).child
        lies = 0
        with contextlib.suppress(BlockingIOError):
            while lies < 1 << 22:
                assert child.unread == lies
                lies += child.write([memoryview(bytes(1 << 12))])
        assert 0 < lies == child.unread < 1 << 22
        child.kill_now()
        await until(lambda: child.result)

    run(test)


def test_it_has_nothing_of_ours_but_its_three_descriptors_and_no_terminal() -> None:
    async def test() -> None:
        spare = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(spare, True)
        stories = [
            Story(["ls", "/proc/self/fd"]),
            Story(["cat", "/proc/self/stat"]),
            Story(["cat", "/proc/self/status"]),
        ]
        os.close(spare)
        descriptors, stat, status = [await each.output() for each in stories]
        assert descriptors.split() == ["0", "1", "2", "3"]  # the last one is ls's own
        pid, group, session, terminal = (stat.split()[field] for field in (0, 4, 5, 6))
        assert int(pid) == int(group) == int(session)
        assert terminal == "0"
        lines = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert int(lines["SigBlk"], 16) == 0
        assert int(lines["SigIgn"], 16) & ~(3 << 31) == 0  # two that are the C library's own

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        run(test)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGHUP, before)


def test_it_has_the_environment_that_it_is_given() -> None:
    async def test() -> None:
        child = Child(["env"], {"BPIPE_PEER": "somebody"}, lambda: None)
        await until(lambda: child.result)
        assert os.read(child.stdout, 999) == b"BPIPE_PEER=somebody\n"

    run(test)


def test_what_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        before = open_descriptors()
        with pytest.raises(FileNotFoundError):
            Story(["no-such-program"])
        (tmp_path / "data").write_text("no program")
        with pytest.raises(PermissionError):
            Story([str(tmp_path / "data")])
        assert open_descriptors() == before

    run(test)


def test_its_pipes_are_never_our_standard_streams(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from bpipe.ends.child import Child

async def test():
    for descriptor in (0, 1):
        os.close(descriptor)
    child = Child(["true"], os.environ, lambda: None)
    print(min(child.stdin, child.stdout), file=sys.stderr)

asyncio.run(test())
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert int(done.stderr) > 2


def test_the_end_of_the_stream_is_seen(folder: Path) -> None:
    async def test() -> None:
        programs = {name: argv for name, argv in cases(folder).items() if name != "forks"}
        stories = [Story(argv) for argv in programs.values()]
        for each in stories:
            each.child.close_stdin()
        await until(lambda: all((folder / name / "whole").exists() for name in programs))
        await until(lambda: all(each.child.result == (Ended.EXITED, 0) for each in stories))

    run(test)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_never_taken_for_the_whole(folder: Path, kind: str, at_once: bool) -> None:
    async def test() -> None:
        before = open_descriptors()
        story = Story(cases(folder)[kind], patience=1000)
        os.write(story.child.stdin, b"a part")
        await until(lambda: len(readers(folder / kind)) > (10 if kind == "forks" else 0))
        if kind == "setsid":
            await until(lambda: story.told)
        (story.child.kill_now if at_once else story.child.cut_short)(story.done)
        await until(lambda: "done" in story.told)
        assert story.told == ["ended", "done"]
        assert not saw_the_end(folder / kind)
        story.child.close_stdout()
        story.child.close_stdout()
        assert open_descriptors() == before
        with pytest.raises(ChildProcessError):  # it has been reaped
            os.waitpid(story.child.pid, os.WNOHANG)

    run(test)


def test_who_goes_on_after_sigterm_is_killed_in_the_end(folder: Path) -> None:
    async def test() -> None:
        story = Story(reader(folder, "stubborn"), patience=2)  # it has to be told within that
        await until(lambda: readers(folder))
        story.child.cut_short(story.done)
        await until(lambda: "done" in story.told)
        assert story.child.result == (Ended.KILLED, signal.SIGKILL)
        assert (folder / "asked").exists()
        assert not saw_the_end(folder)

    run(test)


def test_who_is_cut_short_can_be_killed_at_once(folder: Path) -> None:
    async def test() -> None:
        story = Story(reader(folder, "stubborn"), patience=1000)
        await until(lambda: readers(folder))
        story.child.cut_short(story.done)
        await until(lambda: (folder / "asked").exists())
        assert story.told == []
        story.child.kill_now(story.done)
        await until(lambda: len(story.told) > 2)
        assert story.told == ["ended", "done", "done"]
        story.child.cut_short(story.done)
        await until(lambda: len(story.told) > 3)
        assert not saw_the_end(folder)

    run(test)


def test_its_pid_is_its_own_until_all_others_are_gone(folder: Path) -> None:
    async def test() -> None:
        stubborn = shlex.join(reader(folder, "stubborn"))
        story = Story(["sh", "-c", f"exec 3<&0; {stubborn} <&3 & wait"], patience=1000)
        await until(lambda: readers(folder))
        story.child.cut_short(story.done)
        await until(lambda: (folder / "asked").exists() and story.told)
        process = look(story.child.pid)
        assert process is not None
        assert process.state == b"Z"
        story.child.kill_now()
        await until(lambda: "done" in story.told)
        assert look(story.child.pid) is None
        assert not saw_the_end(folder)

    run(test)


@pytest.mark.parametrize("kill", [False, True])
def test_what_it_left_behind_lives_after_its_own_end(kill: bool) -> None:
    async def test() -> None:
        story = Story(["sh", "-c", "sleep 999 < /dev/null > /dev/null 2>&1 & echo $!"])
        left = int(await story.output())
        try:
            await until(lambda: story.told)
            (story.child.kill_now if kill else story.child.cut_short)(story.done)
            await until(lambda: "done" in story.told)
            assert story.child.stdin == -1
            assert alive(left)
        finally:
            os.kill(left, signal.SIGKILL)

    run(test)


def test_only_sigstop_stops_it_and_that_is_seen() -> None:
    async def test() -> None:
        story = Story(["cat"])
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP):
            os.kill(story.child.pid, number)  # to no effect in a session without a terminal
        os.write(story.child.stdin, b"x")
        await until(lambda: select.select([story.child.stdout], [], [], 0)[0])
        assert story.child.stopped is None
        os.kill(story.child.pid, signal.SIGSTOP)
        await until(lambda: story.child.stopped == signal.SIGSTOP)
        os.kill(story.child.pid, signal.SIGCONT)
        await until(lambda: story.child.stopped is None)
        story.child.close_stdin()
        await until(lambda: story.told)
        assert story.child.stopped is None
        assert story.child.result == (Ended.EXITED, 0)

    run(test)


def test_it_is_the_same_where_there_are_no_pidfds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.delattr(os, "pidfd_open")
        before = open_descriptors()
        story = Story(behind_cat(folder))
        other = Story(["sh", "-c", "exit 3"])
        await until(lambda: readers(folder) and other.told)
        assert other.child.result == (Ended.EXITED, 3)
        story.child.cut_short(story.done)
        await until(lambda: "done" in story.told)
        assert not saw_the_end(folder)
        for each in (story, other):
            each.child.close_stdin()
            each.child.close_stdout()
        assert open_descriptors() == before

    run(test)


def test_the_loop_is_not_held_up_while_they_are_looked_for(folder: Path) -> None:
    async def test() -> None:
        story = Story(reader(folder, "stubborn"), patience=1000)
        await until(lambda: readers(folder))
        story.child.cut_short(story.done)
        for _ in range(100):  # others have their turns, however long it takes
            await asyncio.sleep(0)
        assert story.told == []
        story.child.kill_now()
        await until(lambda: "done" in story.told)

    run(test)
