"""Where lines go: to stderr (``terminal.py``), or to a log.

Neither may hold up the data, and either may block (a paused terminal, a pipe that nobody reads):
whatever is written is written by a thread of its own, and what that cannot take is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import signal
import threading
from collections.abc import Callable
from typing import Final, Protocol

from bpipe.ends.streams import leave_signals_to_the_main_thread
from bpipe.errors import explain

QUEUED: Final = 1000  # jobs, about as many lines; ``last`` ones come on top
PATIENCE: Final = 2.0  # seconds that the last lines may take


class Output(Protocol):
    """Where lines go: stderr, or a log."""

    def say(self, line: str, *, last: bool = False) -> bool:
        """One line, without its end; returns whether it was not dropped. Does not wait."""

    def close(self) -> None:
        """Wait a moment for the lines to be written."""


class LineThread:
    """A thread for what may block. An OSError ends it: nobody can be told that stderr is gone.

    A terminal that stops background jobs that write to it (``stty tostop``) does not stop this.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], None], *, last: bool = False) -> bool:
        """Have this done after what was asked before; returns whether it was not dropped.

        ``last`` ones are never dropped: there are only a few.
        """
        if self._jobs.qsize() >= QUEUED and not last:
            return False
        self._jobs.put(job)
        return True

    def close(self) -> None:
        """Wait for everything to be done, at most ``PATIENCE`` seconds."""
        self._jobs.put(None)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        leave_signals_to_the_main_thread()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(OSError):
            while (job := self._jobs.get()) is not None:
                job()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, and wait for that even if somebody has set O_NONBLOCK."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class Log:
    """A file that is appended to. Raises OSError if it cannot be opened.

    A new one is for its owner only. A link is not followed, as others may have made it; but those
    of ``/dev/fd`` are the process's own.
    """

    def __init__(self, path: str, on_failure: Callable[[str], None]) -> None:
        # Nonblocking, because nobody may have opened the other end of a named pipe yet.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        if not os.path.realpath(os.path.dirname(path)).startswith("/proc/"):
            flags |= os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._on_failure = on_failure
        self._thread = LineThread("Log")

    def is_in(self, descriptor: int) -> bool:
        """Whether this is the file behind the descriptor."""
        with contextlib.suppress(OSError):
            return os.path.sameopenfile(self._descriptor, descriptor)
        return False

    def say(self, line: str, *, last: bool = False) -> bool:
        """One line, without its end; returns whether it was not dropped. Does not wait."""
        return self._thread.do(lambda: self._write(line), last=last)

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        self._thread.close()

    def _write(self, line: str) -> None:
        try:
            write_all(self._descriptor, f"{line}\n".encode())
        except OSError as error:
            self._on_failure(os.strerror(error.errno or 0).lower())
            raise


class LogError(Exception):
    """The log cannot be opened. Its text is one line for people, ``code`` one word for programs."""

    code = "log"


def open_log(path: str, stdout: int | None, on_failure: Callable[[str], None]) -> Log:
    """The log at this path, which must not be where the data goes. Raises LogError.

    ``on_failure`` is called, in a thread, with what kept it from being written later.
    """
    try:
        log = Log(path, on_failure)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else explain(error)
        raise LogError(f"cannot open the log {path}: {why}") from None
    if stdout is not None and log.is_in(stdout):
        raise LogError(f"the log {path} is where the data goes: name another file")
    return log
