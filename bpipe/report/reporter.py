"""Events, told to people in words and to programs as JSON.

Neither stderr nor a log may hold up the data, and either may block (a paused terminal, a pipe
that nobody reads): whatever is written is written by a thread of its own, and what that cannot
take is dropped, and counted.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from bpipe.ends.streams import leave_signals_to_the_main_thread
from bpipe.report.events import Dropped, Event, to_json
from bpipe.report.settings import Level
from bpipe.report.totals import Done

QUEUED: Final = 1000  # jobs, about as many lines; the few last ones are not counted
PATIENCE: Final = 2.0  # seconds that the last lines may take


class Writer:
    """A thread for what may block. An OSError ends it: nobody can be told that stderr is gone.

    A terminal that stops background jobs that write to it (``stty tostop``) does not stop this.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], None], *, last: bool = False) -> bool:
        """Have this done after what was asked before; returns whether it was not dropped.

        Of those at the ``last``, none is: there are only a few.
        """
        if self._jobs.qsize() >= QUEUED and not last:
            return False
        self._jobs.put(job)
        return True

    def close(self) -> None:
        """Wait a moment for everything to be done."""
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


class Output(Protocol):
    """Where lines go: stderr, or a log."""

    def say(self, line: str, *, last: bool = False) -> bool:
        """One line, without its end; returns whether it was not dropped. Does not wait."""

    def close(self) -> None:
        """Wait a moment for the lines to be written."""


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
        self._writer = Writer("Log")

    def is_in(self, descriptor: int) -> bool:
        """Whether this is the file behind the descriptor."""
        with contextlib.suppress(OSError):
            return os.path.sameopenfile(self._descriptor, descriptor)
        return False

    def say(self, line: str, *, last: bool = False) -> bool:
        """One line, without its end; returns whether it was not dropped. Does not wait."""
        return self._writer.do(lambda: self._write(line), last=last)

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        self._writer.close()

    def _write(self, line: str) -> None:
        try:
            write_all(self._descriptor, f"{line}\n".encode())
        except OSError as error:
            self._on_failure(os.strerror(error.errno or 0).lower())
            raise


class Channel:
    """An output, and the form in which events go there. Tells how many it has not taken."""

    def __init__(self, output: Output, phrase: Callable[[Event], str]) -> None:
        self.output = output
        self._phrase = phrase
        self._dropped = 0  # since the last that was told

    def tell(self, event: Event) -> None:
        """Something has happened. The end of the run is never dropped."""
        last = isinstance(event, Done)
        if self._dropped and self._say(Dropped(self._dropped), last):
            self._dropped = 0
        if not self._say(event, last):
            self._dropped += 1

    def _say(self, event: Event, last: bool) -> bool:
        return self.output.say(self._phrase(event), last=last)


class Reporter:
    """Tells events: in words on stderr, from a level on; as JSON to a log, if there is one."""

    def __init__(self, level: Level, stderr: Output) -> None:
        self._level = level
        self._words = Channel(stderr, lambda event: f"bpipe: {event.words()}")
        self._log: Channel | None = None

    def log_to(self, output: Output) -> None:
        """Write a log from now on; one on stderr takes the place of the words."""
        run = os.urandom(6).hex()
        self._log = Channel(output, lambda event: to_json(event, run, time.time()))

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        """Something has happened; people hear of it from this level on."""
        if self._log is not None:
            self._log.tell(event)
        if not self._log_is_stderr and self._level >= level:
            self._words.tell(event)

    @property
    def _log_is_stderr(self) -> bool:
        return self._log is not None and self._log.output is self._words.output

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        if self._log is not None and not self._log_is_stderr:
            self._log.output.close()
        self._words.output.close()
