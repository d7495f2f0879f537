"""What is odd about a program is told, once."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bpipe.ends import notices
from bpipe.ends.guard import Guard
from bpipe.ends.notices import NoticedChild
from tests.support.pairs import run, until
from tests.support.programs import folder, reader, readers

__all__ = ["folder"]

if not sys.platform.startswith("linux"):
    pytest.skip("what processes do is told on Linux only", allow_module_level=True)

Told = list[tuple[str, int, str]]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "EVERY", 0.01)
    monkeypatch.setattr(notices, "HOLDERS_LINGER", 0.05)


@asynccontextmanager
async def noticed(*argv: str) -> AsyncIterator[tuple[NoticedChild, Told]]:
    """A program, and what is told of it; it is ended afterwards."""
    told: Told = []
    guard = Guard()

    def tell(what: str, pid: int, command: str) -> None:
        told.append((what, pid, command))

    child = NoticedChild(argv, os.environ, lambda: None, guard, tell)
    try:
        yield child, told
    finally:
        gone = asyncio.Event()
        child.cut_short(gone.set)
        await gone.wait()
        guard.close()
        child.close_stdout()


def test_who_holds_its_output_after_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        pid = tmp_path / "pid"
        begun = "until grep -q sleep /proc/$!/comm; do :; done"  # before that it is sh still
        leave = f"sleep 99 < /dev/null & echo $! > {pid}; {begun}"
        async with noticed("sh", "-c", leave) as (_, told):
            await until(lambda: told)
            assert told == [("output-held", int(pid.read_text()), "sleep")]
            os.kill(told[0][1], signal.SIGKILL)

    run(test)


def test_nothing_is_told_of_a_program_that_just_ends() -> None:
    async def test() -> None:
        async with noticed("true") as (child, told):
            await until(lambda: child.result)
            await asyncio.sleep(0.2)
            assert told == []

    run(test)


def test_that_somebody_has_stopped_it_is_told_once(folder: Path) -> None:
    async def test() -> None:
        async with noticed(*reader(folder)) as (child, told):
            await until(lambda: readers(folder))
            os.kill(child.pid, signal.SIGSTOP)
            await until(lambda: told)
            await asyncio.sleep(0.1)
            assert [each[:2] for each in told] == [("program-stopped", child.pid)]

    run(test)


def test_that_it_is_stopped_to_be_ended_is_not_told(folder: Path) -> None:
    async def test() -> None:
        async with noticed(*reader(folder, "stubborn")) as (child, told):
            await until(lambda: readers(folder))
            child.cut_short(lambda: None)
            os.kill(child.pid, signal.SIGSTOP)
            await asyncio.sleep(0.1)
            assert told == []
            child.kill_now()

    run(test)


def test_who_cannot_be_signalled_is_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    async def test() -> None:
        async with noticed(*reader(folder)) as (child, told):
            await until(lambda: readers(folder))
            with monkeypatch.context() as patch:
                patch.setattr(signal, "pidfd_send_signal", forbidden)
                patch.setattr(os, "killpg", forbidden)
                child.cut_short(lambda: None)
                await until(lambda: told)
            assert [each[:2] for each in told] == [("out-of-reach", child.pid)]

    run(test)
