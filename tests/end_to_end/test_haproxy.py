"""The manual's lines for HAProxy, as they stand: each session comes back to its own listener."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import Consumer, pattern, until
from tests.end_to_end.helpers import Bpipe, Program, Start, finish
from tests.end_to_end.recipes import (
    Shell,
    answers,
    blocks,
    free_port,
    listening,
    need,
    other,
    resets,
)

pytestmark = pytest.mark.slow

STEP = 300_000  # bytes, which go to the listener and back
CALLERS = 4  # at least


class Balancer:
    """HAProxy, in front of these listeners."""

    def __init__(self, start: Start, folder: Path, *listeners: Program) -> None:
        [lines] = blocks("Many listeners")
        self.port = free_port()
        places = {"bind :7000": f"bind 127.0.0.1:{self.port}"}
        for number, each in enumerate(listeners, 1):
            places[f"10.0.0.{number}:7000"] = f"127.0.0.1:{listening(each)}"
        self._start = start
        self._file = folder / "haproxy.cfg"
        self._file.write_text(other(lines, places))
        self._process = self._begin()

    def _begin(self) -> Program:
        process = self._start.program("/usr/sbin/haproxy", "-db", "-f", str(self._file))
        until(lambda: answers(self.port), lambda: f"HAProxy: {process.lines}")
        return process

    def restart(self) -> None:
        """It forgets everything."""
        self._process.signal(signal.SIGKILL)
        self._process.wait()
        self._process = self._begin()


class Session:
    """A caller whose bytes come back, after the name of the listener that sends them."""

    def __init__(self, start: Start, address: str, *options: str) -> None:
        where = start.proxy(address, resets(3, STEP)).address
        self.bpipe: Bpipe = start.bpipe(
            *("connect", where, "-v", "--retry-max", "20ms", *options), stdin=PIPE, stdout=PIPE
        )
        self.listener = ""
        self._sent = 0
        self._echo: Consumer

    def begin(self) -> None:
        """It has a listener."""
        self.listener = os.read(self.bpipe.stdout.fileno(), 4).decode()
        self._echo = self.bpipe.drain()

    def send(self) -> None:
        """Some more."""
        self.bpipe.stdin.write(pattern(self._sent, STEP))
        self._sent += STEP

    def hear(self) -> None:
        """All of it, from the same program."""
        self._echo.wait_count(self._sent)
        assert self._echo.wrong is None

    def end(self) -> None:
        """Everything has come back."""
        self.bpipe.stdin.close()
        assert self._echo.wait_end() == self._sent


@pytest.mark.parametrize("sealed", [True])
def test_each_session_comes_back_to_its_own_listener(
    start: Start, shell: Shell, key: Path, sealed: bool
) -> None:
    need("haproxy")
    options = ("--secret", str(key)) if sealed else ()
    balancer = Balancer(
        start,
        shell.folder,
        *(
            start.bpipe("listen", "127.0.0.1:0", "-k", *options, "--", "sh", "-c", script)
            for script in ("echo one; exec cat", "echo two; exec cat")
        ),
    )
    address = f"127.0.0.1:{balancer.port}"
    sessions = [Session(start, address, *options) for _ in range(CALLERS)]
    for each in sessions:  # and more of them, until both listeners have some
        each.begin()
        if each is sessions[-1] and len({each.listener for each in sessions}) < 2:
            sessions.append(Session(start, address, *options))

    for _ in range(3):
        for each in sessions:
            each.send()
            each.bpipe.signal(signal.SIGUSR2)
        for each in sessions:
            each.hear()
    balancer.restart()
    for each in sessions:
        each.send()
        each.hear()
        each.end()
    assert finish(*(each.bpipe for each in sessions)) == [0] * len(sessions)
    assert {each.listener for each in sessions} == {"one\n", "two\n"}
    for each in sessions:
        assert each.bpipe.text.count("connected again to") >= 3
        assert "does not know this session" not in each.bpipe.text
