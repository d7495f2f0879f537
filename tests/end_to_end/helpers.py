"""What the end-to-end tests share: processes, data that is known, and a proxy in a thread.

A test starts everything through the fixture ``start``, which ends it again. Nothing here waits
by sleeping for a time: it waits for a condition, and fails when that does not come.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from bpipe.demo.faults import Cut, FaultProxy, Tamper, leave
from tests.end_to_end.data import PATIENCE, Consumer, Producer, until
from tests.support.pulse import Pulse

File = int | IO[bytes]
T = TypeVar("T")


class Program:
    """A process of a test. What it says on stderr is read all the time, unless that is given."""

    def __init__(
        self,
        command: list[str],
        *,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
        stderr: File = subprocess.PIPE,
    ) -> None:
        self.lines: list[str] = []  # of stderr
        self._threads: list[threading.Thread] = []
        self.popen = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0)
        self.pid = self.popen.pid
        if self.popen.stderr is not None:
            self._in_thread(self._listen)

    def _in_thread(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        assert self.popen.stderr is not None
        rest = b""
        while data := os.read(self.popen.stderr.fileno(), 1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode() for line in lines]
        self.lines += [rest.decode()] if rest else []

    @property
    def text(self) -> str:
        """Everything that it has said so far."""
        return "\n".join(self.lines)

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

    def feed(self, total: int | None, offset: int = 0, pause: float = 0.0) -> Producer:
        """Write test data to its stdin; see ``Producer``."""
        producer = Producer(self.stdin, total, offset, pause)
        self._threads.append(producer.thread)
        return producer

    def drain(self, offset: int = 0) -> Consumer:
        """Read test data from its stdout."""
        consumer = Consumer(self.stdout, offset)
        self._threads.append(consumer.thread)
        return consumer

    def read_all(self) -> bytes:
        """Its stdout up to the end."""
        found: list[bytes] = []

        def read() -> None:
            with self.stdout as file:
                while data := file.read(1 << 18):
                    found.append(data)

        self._in_thread(read)
        self._threads[-1].join(PATIENCE)
        assert not self._threads[-1].is_alive(), "stdout has no end"
        return b"".join(found)

    def wait_line(self, expression: str, patience: float = PATIENCE, *, times: int = 1) -> str:
        """Wait until a line of its stderr matches, the n-th time; returns that line."""

        def find() -> list[str]:
            return [line for line in self.lines if re.search(expression, line)]

        def look() -> bool:
            ended = self.popen.poll() is not None
            return len(find()) >= times or (ended and not self._threads[0].is_alive())

        until(look, lambda: f"{expression!r} in {self.lines}", patience)
        found = find()
        assert len(found) >= times, f"ended without {expression!r}: {self.lines}"
        return found[times - 1]

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end, and for all that it said; returns its exit status."""
        status = self.wait_whatever(patience)
        assert "Traceback" not in self.text
        return status

    def wait_whatever(self, patience: float = PATIENCE) -> int:
        """The same for one that is to fail inside."""
        try:
            status = self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {patience} s; said {self.lines}") from None
        if self.popen.stderr is not None:
            self._threads[0].join(PATIENCE)
        return status

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    @property
    def peak_memory(self) -> int:
        """The most memory that was resident so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def end(self) -> None:
        """End it in any case."""
        self.popen.kill()  # no effect on one that was waited for
        self.popen.wait()
        for thread in self._threads:
            thread.join(PATIENCE)
        for file in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if file is not None:
                file.close()


class Bpipe(Program):
    """A bpipe."""

    @property
    def address(self) -> str:
        """Where a listener listens."""
        where = self.address_line.removeprefix("bpipe: listening on ")
        return where.partition(", for this ")[0]

    @property
    def address_line(self) -> str:
        """What a listener says first."""
        return self.wait_line("^bpipe: listening on ")

    def wait_connected(self) -> None:
        """Wait for the first link."""
        self.wait_line("^bpipe: connected to ")

    def wait_lost(self, patience: float = PATIENCE, *, times: int = 1) -> None:
        """Wait until it says that a link was lost."""
        self.wait_line("^bpipe: connection lost: ", patience, times=times)

    def wait_back(self, patience: float = PATIENCE, *, times: int = 1) -> None:
        """Wait until it says that there is a link again."""
        self.wait_line("^bpipe: connected again to ", patience, times=times)


class Proxy:
    """The fault proxy, in a thread with an event loop of its own."""

    def __init__(
        self,
        target: str,
        cuts: Iterable[Cut] = (),
        path: Path | None = None,
        tamper: Tamper = leave,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = ""
        self.faults = self._run(self._open(target, cuts, path, tamper))

    async def _open(
        self, target: str, cuts: Iterable[Cut], path: Path | None, tamper: Tamper
    ) -> FaultProxy:
        host, _, port = target.rpartition(":")
        goal = port if host == "unix" else (host, int(port))
        proxy = FaultProxy(goal, cuts, tamper=tamper)
        where = proxy.start(None if path is None else str(path))
        self.address = f"unix:{where}" if isinstance(where, str) else "{}:{}".format(*where)
        return proxy

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def freeze(self) -> None:
        """The path is away."""

        async def freeze() -> None:
            self.faults.freeze()

        self._run(freeze())

    def thaw(self) -> None:
        """The path is back."""

        async def thaw() -> None:
            self.faults.thaw()

        self._run(thaw())

    def watch(self, pulse: Pulse) -> None:
        """Let this beat in its loop, so that one sees when that stood still."""
        self._loop.call_soon_threadsafe(pulse.within, self._loop)

    def wait_relayed(self, count: int) -> None:
        """Wait until so many bytes went through, both ways together."""
        until(lambda: self.faults.relayed >= count, f"{count} bytes through the proxy")

    def end(self) -> None:
        """Close everything."""
        self._run(self.faults.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Start:
    """Starts what a test needs, and ends it with the test, also when that fails."""

    def __init__(self) -> None:
        self._started: list[Program | Proxy] = []

    def __enter__(self) -> Start:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each in self._started:
            if isinstance(each, Program):
                each.popen.kill()  # all of them first: they may feed each other
        for each in self._started:
            each.end()

    def program(
        self,
        *command: str,
        stdin: File | Program = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> Program:
        """Start another program than bpipe; a program as ``stdin`` pipes its stdout into it."""
        program = Program(list(command), stdin=_readable(stdin), stdout=stdout)
        self._adopt(program, stdin)
        return program

    def bpipe(
        self,
        *arguments: str,
        stdin: File | Program = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
        stderr: File = subprocess.PIPE,
        shell: str = 'exec "$@"',
        python: Iterable[str] = (),
    ) -> Bpipe:
        """Start a bpipe; ``shell`` may redirect its streams, ``python`` has options for Python."""
        command = [sys.executable, *python, "-m", "bpipe", *arguments]
        if shell != 'exec "$@"':
            command = ["sh", "-c", shell, "sh", *command]
        program = Bpipe(command, stdin=_readable(stdin), stdout=stdout, stderr=stderr)
        self._adopt(program, stdin)
        return program

    def _adopt(self, program: Program, stdin: File | Program) -> None:
        self._started.append(program)
        if isinstance(stdin, Program):
            stdin.stdout.close()  # the new process has it

    def proxy(
        self,
        target: str,
        cuts: Iterable[Cut] = (),
        path: Path | None = None,
        tamper: Tamper = leave,
    ) -> Proxy:
        """Start a fault proxy in front of this address, at a free port or at this path."""
        proxy = Proxy(target, cuts, path, tamper)
        self._started.append(proxy)
        return proxy


def _readable(stdin: File | Program) -> File:
    return stdin.stdout if isinstance(stdin, Program) else stdin


def finish(*programs: Program, patience: float = PATIENCE) -> list[int]:
    """Wait for all of them; returns their exit statuses."""
    return [program.wait(patience) for program in programs]
