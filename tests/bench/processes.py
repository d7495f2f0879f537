"""The processes of a benchmark: they are started, watched, ended again, and what they cost is read.

Linux only: the costs come from /proc, and from the clock that the kernel keeps for each process.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple

File = int | IO[bytes]

PATIENCE: Final = 30.0  # seconds for what takes less than one on an idle machine
_POLL: Final = 0.001  # seconds between two looks at what cannot be waited for

_LISTENING: Final = "0A"  # in /proc/net/tcp
_ACCEPTING: Final = 0x10000  # a flag in /proc/net/unix


class Stuck(Exception):
    """A program did not do its part; the round does not count."""


class Line(NamedTuple):
    """What a process said on stderr, and when."""

    at: float  # time.monotonic()
    text: str


class Child:
    """One process. What it says on stderr is kept."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> None:
        self.lines: list[Line] = []
        self.popen = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, bufsize=0
        )
        self.pid = self.popen.pid
        self.peak_memory = 0  # bytes resident, as of the last ``look``
        self._ended = os.pidfd_open(self.pid)
        self._began_at = 0.0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(Line(time.monotonic(), line.decode(errors="replace").rstrip()))

    @property
    def stdin(self) -> IO[bytes]:
        """Where its stdin can be written."""
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where its stdout can be read."""
        assert self.popen.stdout is not None
        return self.popen.stdout

    @property
    def said(self) -> str:
        """The end of what it said, for a message."""
        return "; ".join(line.text for line in self.lines[-3:]) or "nothing"

    @property
    def cpu(self) -> float:
        """CPU seconds so far, of all its threads."""
        return time.clock_gettime(~self.pid << 3 | 2)  # see clock_getcpuclockid(3)

    @property
    def descriptors(self) -> int:
        """How many are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, name: str) -> int:
        """Bytes, by the name of a line: ``VmRSS`` and ``VmHWM`` (its peak), or ``Pss``."""
        file = "smaps_rollup" if name == "Pss" else "status"
        found = re.search(rf"^{name}:\s+(\d+) kB", _read(f"/proc/{self.pid}/{file}"), re.MULTILINE)
        return int(found[1]) << 10 if found else 0  # it has just ended

    def look(self) -> None:
        """Note its memory. The kernel's own record would count the harness that it came from."""
        self.peak_memory = max(self.peak_memory, self.memory("VmHWM"))

    def mark(self) -> None:
        """What it has cost so far does not count."""
        self._began_at = self.cpu

    def ended(self, timeout: float) -> bool:
        """Whether it ends within this time."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ended, number)

    def reap(self) -> float:
        """Wait for its end, or else end it; returns the CPU seconds since ``mark``."""
        if self.popen.returncode is not None:
            raise ValueError("it was waited for")
        if not self.ended(1.0):
            self.signal(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime - self._began_at

    def close(self) -> None:
        """End it in any case."""
        self.popen.kill()  # of no effect on one that was waited for
        self.popen.wait()
        self._thread.join(PATIENCE)
        os.close(self._ended)
        for file in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if file is not None:
                file.close()


class Children:
    """Starts processes, and ends them all at the end of a ``with``."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self._all:
            child.popen.kill()  # all of them first: they may feed each other
        for child in self._all:
            child.close()

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: File | Child = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> Child:
        """Start one; another one as ``stdin`` pipes its stdout into it."""
        source = stdin.stdout if isinstance(stdin, Child) else stdin
        child = Child(command, stdin=source, stdout=stdout)
        self._all.append(child)
        if isinstance(stdin, Child):
            stdin.stdout.close()  # the new process has it
        return child


def wait_listening(child: Child, *, port: int = 0, path: str = "") -> None:
    """Wait until somebody in the child's network listens there. Nothing connects to find out:
    most tools take one connection only."""
    until = time.monotonic() + PATIENCE
    while not (_listens_at_path(child, path) if path else _listens_at_port(child, port)):
        if child.ended(_POLL) or time.monotonic() > until:
            raise Stuck(f"{child.popen.args!r} does not listen; it said: {child.said}")


def _listens_at_port(child: Child, port: int) -> bool:
    for table in ("tcp", "tcp6"):
        for line in _read(f"/proc/{child.pid}/net/{table}").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def _listens_at_path(child: Child, path: str) -> bool:
    for line in _read(f"/proc/{child.pid}/net/unix").splitlines()[1:]:
        fields = line.split()
        if fields[-1] == path and int(fields[3], 16) & _ACCEPTING:
            return True
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""  # it has just ended


def read_byte(child: Child) -> None:
    """Wait for one byte of its stdout."""
    descriptor = child.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(PATIENCE * 1000) or not os.read(descriptor, 1):
        raise Stuck(f"nothing comes out of {child.popen.args!r}; it said: {child.said}")
