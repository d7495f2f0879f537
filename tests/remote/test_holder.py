"""A holder: what it starts, for whom, and when it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from bpipe.protocol.wire import Ended, Finish
from bpipe.remote import holder
from bpipe.remote.carrier import Errand, Remote
from tests.support.far import Token, alive, gone, listen
from tests.support.remote import NEWEST, OLDEST, Carried, errand, far_side, in_loop


@pytest.fixture(params=[OLDEST, NEWEST], ids=["3.9", "3.13"])
def far(request: pytest.FixtureRequest) -> list[str]:
    return far_side(request.param)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Another folder, in which there are programs for whoever looks there first."""
    for name in ("code", "socket", "os", "asyncio", "bpipe"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('led astray')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@in_loop
async def test_it_runs_a_command_where_it_was_called(
    far: list[str], inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "vt52", "BPIPE_SECRET": "x", "SHELL": "/bin/sh"}.items():
        monkeypatch.setenv(name, value)
    command = "pwd; echo $TERM; env | grep ^BPIPE_ | cut -d= -f1 | sort; exit 3"
    before = sorted(inside.iterdir())
    async with Carried(Remote(far, far, errand(command))) as carried:
        carried.end()
        lines = (await carried.rest()).decode().split()
        assert lines == [str(inside), "vt52", "BPIPE_PEER", "BPIPE_SESSION"]
        outcome = await carried.outcome()
    assert (outcome.failure, outcome.far) == (None, Finish(Ended.EXITED, 3))
    assert sorted(inside.iterdir()) == before


@in_loop
async def test_it_runs_a_program_as_it_is_given(far: list[str]) -> None:
    what = ["printf", "%s.", "a b", "", "$HOME", "ü'\""]
    async with Carried(Remote(far, far, errand(what))) as carried:
        assert (await carried.rest()).decode() == "a b..$HOME.ü'\"."
        assert (await carried.outcome()).failure is None


@in_loop
async def test_a_program_that_is_not_there_is_told(far: list[str]) -> None:
    async with Carried(Remote(far, far, errand(["no such program"]))) as carried:
        failure = (await carried.outcome()).failure
    assert "cannot start no such program: no such file" in str(failure)


@in_loop
async def test_what_it_says_on_stderr_comes(far: list[str]) -> None:
    async with Carried(Remote(far, far, errand("echo out; echo err >&2"))) as carried:
        assert await carried.rest() == b"out\n"
        assert carried.errors() == b"err\n"


@in_loop
async def test_a_killed_holder_ends_its_program_whatever_that_has_read(far: list[str]) -> None:
    command = "echo $$ $PPID; cat; echo read; exec sleep 1000"
    async with Carried(Remote(far, far, errand(command))) as carried:
        program, process = map(int, (await carried.read()).split())
        carried.end()
        assert await carried.read() == b"read\n"
        os.kill(process, signal.SIGKILL)
        assert await asyncio.to_thread(gone, program)


@in_loop
async def test_a_killed_holder_ends_its_program(far: list[str]) -> None:
    """And the next relay finds none, which is final."""
    async with Carried(Remote(far, far, errand("echo $$ $PPID; exec cat"))) as carried:
        program, process = map(int, (await carried.read()).split())
        os.kill(process, signal.SIGKILL)
        assert await asyncio.to_thread(gone, program)
        assert "no longer knows this session" in str((await carried.outcome()).failure)


@in_loop
async def test_a_holder_that_is_told_to_end_tells_why(far: list[str]) -> None:
    async with Carried(Remote(far, far, errand("echo $$ $PPID; exec cat"))) as carried:
        program, process = map(int, (await carried.read()).split())
        os.kill(process, signal.SIGTERM)
        failure = (await carried.outcome()).failure
        assert "the far side was told to end (SIGTERM)" in str(failure)
        assert await asyncio.to_thread(gone, program)
        assert await asyncio.to_thread(gone, process)


@in_loop
async def test_it_gives_up_when_nobody_comes_back(far: list[str]) -> None:
    """The program is told so by SIGHUP."""
    command = "trap 'echo hup >&2; exit' HUP; echo $$ $PPID; while :; do sleep 0.05; done"
    remote = Remote(far, ["false"], errand(command, give_up_after=0.5))
    async with Carried(remote) as carried:
        program, process = map(int, (await carried.read()).split())
        carried.pipe.force_reconnect()
        assert await asyncio.to_thread(gone, program)
        assert await asyncio.to_thread(gone, process)


@in_loop
async def test_it_leaves_when_nobody_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "UNUSED_FOR", 0.1)
    token = Token()
    listening = listen(token)
    listening.setblocking(False)
    await asyncio.wait_for(holder.hold(listening, token.bytes, Errand("true").words), 20)


@in_loop
async def test_who_does_not_know_the_token_is_turned_away() -> None:
    token = Token()
    listening = listen(token)
    listening.setblocking(False)
    task = asyncio.ensure_future(holder.hold(listening, token.bytes, Errand("true").words))
    loop = asyncio.get_running_loop()
    for half in (bytes(16), token.bytes[:15]):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, "\0" + token.name)
            await loop.sock_sendall(sock, half)
            assert await loop.sock_recv(sock, 100) == b""
    task.cancel()
    await asyncio.wait([task])
    assert alive(os.getpid())
