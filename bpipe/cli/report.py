"""Messages for people: one plain line on stderr per change of state.

stderr may block (a paused terminal), and what is said there must never hold up the data: a
thread of its own writes the lines, and those that it cannot take are dropped.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Final

from bpipe.cli.streams import leave_signals_to_the_main_thread
from bpipe.cli.values import Level, format_duration, format_size
from bpipe.net.clock import clock
from bpipe.pipe import State, Status

QUEUED: Final = 100  # lines
STRANGERS_EVERY: Final = 60.0  # seconds between two lines about callers that were refused
PATIENCE: Final = 0.5  # seconds that the last lines may take


class Reporter:
    """Writes lines to stderr, beside everything else."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=QUEUED)
        self._thread = threading.Thread(target=self._write, name="Reporter", daemon=True)
        self._thread.start()

    def say(self, line: str, level: Level = Level.NORMAL) -> None:
        """One line, from the given level on."""
        if self.level >= level:
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(line)

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=PATIENCE)
            self._thread.join(PATIENCE)

    def _write(self) -> None:
        leave_signals_to_the_main_thread()
        with contextlib.suppress(OSError):  # nobody can be told that stderr is gone
            while (line := self._lines.get()) is not None:
                _write_all(2, f"bpipe: {line}\n".encode(errors="replace"))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class Narrator:
    """Looks at a pipe whenever it has changed, and tells what is new."""

    def __init__(self, reporter: Reporter, status: Callable[[], Status]) -> None:
        self._say = reporter.say
        self._status = status
        self._last = status()
        self._told = 0  # the links that were told of
        self._refused = 0  # the strangers that were told of
        self._refusals_at = 0.0  # when to tell of more

    def look(self) -> None:
        """Something may have changed."""
        now, last = self._status(), self._last
        if now.state is State.CONNECTED and now.links > self._told:
            again = f" again to {now.peer}{_price(now, last)}" if self._told else f" to {now.peer}"
            self._say(f"connected{again}")
            self._told = now.links
        elif now.state is State.RECONNECTING and last.state is State.CONNECTED:
            self._say(f"connection lost: {now.cause}; reconnecting")
        elif now.cause != last.cause and now.state in (State.CONNECTING, State.RECONNECTING):
            self._say(now.cause, Level.VERBOSE)
        self._count_strangers(now.refused)
        self._last = now

    def _count_strangers(self, refused: int) -> None:
        """Not a line for each: they would fill the disk."""
        if refused > self._refused and clock() >= self._refusals_at:
            self._say(f"refused callers: {refused - self._refused} (another secret, or not bpipe)")
            self._refused, self._refusals_at = refused, clock() + STRANGERS_EVERY


def _price(now: Status, last: Status) -> str:
    """What an interruption has cost, in words."""
    outage = f" after {format_duration(last.outage)}" if last.outage is not None else ""
    again = now.replayed - last.replayed
    return outage + (f", {format_size(again)} sent again" if again else "")


def describe(status: Status) -> str:
    """One line that says where a pipe stands."""
    parts = [f"{status.state} {status.peer}"]
    if status.outage is not None:
        parts.append(f"no progress for {format_duration(status.outage)}")
    parts.append(f"sent {format_size(status.written)}, {format_size(status.confirmed)} confirmed")
    parts.append(
        f"received {format_size(status.received)}, {format_size(status.delivered)} delivered"
    )
    parts.append(f"{max(0, status.links - 1)} reconnects")
    return "; ".join(parts)
