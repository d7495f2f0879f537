"""A far side of one's own: other Pythons of this machine, behind a command that is no ssh."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams
from bpipe.protocol.patience import Limits
from bpipe.protocol.wire import Reason
from bpipe.remote.carrier import Errand, Remote, open_pipe
from bpipe.run.join import Join, Outcome

LIMITS = Limits(heartbeat=2.0, connect_timeout=20.0, give_up_after=60.0)
NEWEST = (3, 13)
OLDEST = (3, 9)


@functools.lru_cache
def folder_of(version: tuple[int, int]) -> Path | None:
    """Where there is a python3 of this version; pyenv(1) leaves names that lead nowhere."""
    name = ".".join(map(str, version))
    found = [*map(str, Path.home().glob(f".pyenv/versions/{name}.*/bin/python3"))]
    for each in [*found, shutil.which(f"python{name}")]:
        program = f"import sys; sys.exit(sys.version_info[:2] != {version})"
        if each and not subprocess.run([each, "-c", program], capture_output=True).returncode:
            return Path(each).parent
    return None


def python(version: tuple[int, int]) -> Path:
    """The folder of a ``python3`` of this version; skips where there is none."""
    folder = folder_of(version)
    if folder is None or not (folder / "python3").exists():
        pytest.skip(f"there is no Python {version}")
    return folder


def far_side(version: tuple[int, int], *, noise: str = "") -> list[str]:
    """A command that says ``noise``, and runs what it is given, where python3 is this one."""
    path = f"{python(version)}:/usr/bin:/bin"
    return ["env", f"PATH={path}", "sh", "-c", f'{noise or ":"}\nexec "$@"', "ssh"]


def errand(what: str | Sequence[str], **limits: float) -> Errand:
    """What is to be done there; it is given up early."""
    return Errand(what, **{"give_up_after": 20.0, **limits})  # type: ignore[arg-type]


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(test(*args, **fixtures))

    return run


async def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for what another process does. AssertionError if it takes too long."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not happen")


class Carried:
    """What a far program is given, and what it says, through a pipe and its records."""

    def __init__(self, remote: Remote, limits: Limits = LIMITS) -> None:
        self._remote = remote
        self._limits = limits
        (stdin, self.stdin), (self.stdout, stdout) = os.pipe(), os.pipe()
        self._stderr, stderr = os.pipe()
        self._its_stderr = stderr
        self._ends = Stdio(Streams(stdin, stdout, False, False), Directions(), stderr=stderr)
        self._task: asyncio.Task[Outcome] | None = None

    async def __aenter__(self) -> Carried:
        self.pipe = await open_pipe(self._remote, self._limits)
        join = Join(self.pipe, self._ends, LoopScheduling())
        self._task = asyncio.ensure_future(join.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.pipe.abort(Reason.INTERRUPTED, "the test is over")
        await self.outcome()
        self.end()
        for each in (self.stdout, self._stderr, self._its_stderr):
            os.close(each)

    def write(self, data: bytes) -> None:
        """Into its stdin; not more than a pipe holds."""
        os.write(self.stdin, data)

    def end(self) -> None:
        """Of its stdin. Again: no effect."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    async def read(self) -> bytes:
        """What it has said next; nothing at the end."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.stdout, ready.set)
        try:
            await asyncio.wait_for(ready.wait(), 30)
        finally:
            loop.remove_reader(self.stdout)
        return os.read(self.stdout, 1 << 16)

    async def rest(self) -> bytes:
        """All that it says from now on."""
        found = b""
        while data := await self.read():
            found += data
        return found

    def errors(self) -> bytes:
        """What it has said on stderr by now; there has to be something."""
        return os.read(self._stderr, 1 << 16)

    async def outcome(self) -> Outcome:
        """How it ends."""
        assert self._task is not None
        return await asyncio.wait_for(self._task, 60)
