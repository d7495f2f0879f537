"""Starting a process, and how its end is known where the system tells less than Linux does."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bpipe.net import spawn
from bpipe.protocol.wire import Ended
from tests.support.pairs import run, until


def start(script: str) -> int:
    return spawn.start(["sh", "-c", script], os.environ, (0, 1, 2))


async def ending(pid: int) -> tuple[Ended, int] | None:
    """Wait for it, and reap it."""
    told: list[bool] = []
    exit_ = spawn.Exit(pid, lambda: told.append(True))
    await until(lambda: told)
    exit_.look()  # once is enough
    assert told == [True]
    exit_.reap()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return exit_.result


ENDINGS = [("exit 7", (Ended.EXITED, 7)), ("kill -KILL $$", (Ended.KILLED, signal.SIGKILL))]


@pytest.mark.parametrize("lacking", [[], ["pidfd_open"], ["pidfd_open", "waitid"]])
@pytest.mark.parametrize(("script", "result"), ENDINGS)
def test_how_it_ends_is_known(
    script: str, result: tuple[Ended, int], lacking: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        for name in lacking:
            monkeypatch.delattr(os, name, raising=False)
        assert await ending(start(script)) == result

    run(test)


@pytest.mark.parametrize("lacking", [[], ["pidfd_open"]])
def test_where_sigchld_is_ignored_nobody_knows(
    lacking: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        for name in lacking:
            monkeypatch.delattr(os, name)
        assert await ending(start("exit 7")) == (Ended.UNKNOWN, 0)

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        run(test)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_who_waits_for_the_end_may_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    async def test() -> None:
        monkeypatch.delattr(os, "pidfd_open")
        pid = spawn.start(["cat"], os.environ, (reading, 1, 2))
        spawn.Exit(pid, lambda: None)
        pids.append(pid)

    pids: list[int] = []
    run(test)
    os.close(writing)
    os.close(reading)
    os.waitpid(pids[0], 0)


def test_without_sessions_it_has_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.posix_spawnp

    def spawnp(*arguments: object, setsid: bool = False, **settings: object) -> int:
        if setsid:
            raise NotImplementedError
        return real(*arguments, **settings)  # type: ignore[arg-type]

    async def test() -> None:
        monkeypatch.setattr(os, "posix_spawnp", spawnp)
        pid = start("exec sleep 999")
        assert os.getpgid(pid) == pid
        assert os.getsid(pid) == os.getsid(0)
        os.kill(pid, signal.SIGKILL)
        assert await ending(pid) == (Ended.KILLED, signal.SIGKILL)

    asyncio.run(test())


@pytest.mark.parametrize("apart", [True, False])
def test_a_process_may_stay_where_we_are(apart: bool) -> None:
    async def check() -> None:
        pid = spawn.start(["sleep", "100"], os.environ, (0, 1, 2), apart=apart)
        own = (os.getsid(pid), os.getpgid(pid)) == (pid, pid)
        ours = (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), os.getpgrp())
        os.kill(pid, signal.SIGKILL)
        await ending(pid)
        assert (own, ours) == (apart, not apart)

    run(check)
