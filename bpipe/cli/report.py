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
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from bpipe.cli.events import (
    Connected,
    Done,
    Dropped,
    Event,
    Lost,
    PeerFinished,
    Refused,
    Resumed,
    Retrying,
    to_json,
)
from bpipe.cli.streams import leave_signals_to_the_main_thread
from bpipe.cli.values import Level
from bpipe.net.clock import clock
from bpipe.pipe import State, Status

QUEUED: Final = 1000  # jobs, about as many lines; the few last ones are not counted
STRANGERS_EVERY: Final = 60.0  # seconds between two lines about callers that were refused
PATIENCE: Final = 2.0  # seconds that the last lines may take


class Writer:
    """A thread for what may block. An OSError ends it: nobody can be told that stderr is gone."""

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
    """A file that is appended to. Raises OSError if it cannot be opened."""

    def __init__(self, path: str, on_failure: Callable[[str], None]) -> None:
        # Nonblocking, because nobody may have opened the other end of a named pipe yet.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o666)
        self._on_failure = on_failure
        self._writer = Writer("Log")

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
        self._log = Channel(output, lambda event: to_json(event, time.time()))

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


class Narrator:
    """Compares each status of a pipe with the one before, and tells what is new."""

    def __init__(self, reporter: Reporter, first: Status) -> None:
        self._tell = reporter.tell
        self._last = self._told = first  # the last one, and that of the last connection
        self._outage_since: float | None = None  # the time when the last one began
        self._refused = 0  # the callers that were told of
        self._refusals_at = 0.0  # when to tell of more

    def look(self, now: Status) -> None:
        """Something may have changed."""
        last, told = self._last, self._told
        if now.state is State.RECONNECTING and now.outage is not None:
            self._outage_since = clock() - now.outage
        if now.state is State.CONNECTED and now.links > told.links:
            replayed = now.replayed - told.replayed
            outage = None if self._outage_since is None else clock() - self._outage_since
            again = Resumed(now.peer, outage, replayed) if told.links else None
            self._tell(again or Connected(now.peer))
            self._told, self._outage_since = now, None
        elif now.state is State.RECONNECTING and last.state is State.CONNECTED:
            self._tell(Lost(now.cause))
        elif now.state in (State.CONNECTING, State.RECONNECTING) and _worth_telling(now, last):
            self._tell(Retrying(now.cause, now.attempts, now.retry_in or 0.0), Level.VERBOSE)
        if now.peer_finished and not last.peer_finished:
            self._tell(PeerFinished(now.received), Level.VERBOSE)
        self._count_strangers(now.refused)
        self._last = now

    def _count_strangers(self, refused: int) -> None:
        """Not a line for each: they would fill the disk."""
        if refused > self._refused and clock() >= self._refusals_at:
            self._tell(Refused(refused - self._refused))
            self._refused, self._refusals_at = refused, clock() + STRANGERS_EVERY


def _worth_telling(now: Status, last: Status) -> bool:
    """Whether a failed attempt is news: the cause is, or it is the 2nd, 4th, 8th... attempt."""
    doubled = now.attempts.bit_length() > last.attempts.bit_length() and now.attempts > 1
    return now.cause != "" and (now.cause != last.cause or doubled)
