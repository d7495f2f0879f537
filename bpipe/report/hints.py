"""What somebody who waits would ask after a moment, told once and without being asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bpipe.engine import Engine
from bpipe.report.events import Event, Trying, WaitingForPeer
from bpipe.report.meter import waiting_for_peer
from bpipe.status import State, Status

AFTER: Final = 2.0  # seconds that somebody has waited
LEAST_LEFT: Final = 1.0  # seconds, so that there is something to tell
OVERDUE: Final = 0.1  # seconds that a timer is late if this process was stopped meanwhile
UNANSWERED: Final = ("no answer yet", "silent")
# What does not mend itself.
AT_ONCE: Final = ("address", "no-such-name", "another-user", "secret", "stranger")


class Hints:
    """Looks at a pipe's status after a moment.

    ``waits``: for a caller, who may come at any time.
    """

    def __init__(
        self, tell: Callable[[Event], None], status: Callable[[], Status], *, waits: bool
    ) -> None:
        self._tell = tell
        self._status = status
        self._tries = not waits  # and has not told of it
        self._before: int | None = None  # bytes received, when nothing but the peer was waited for
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(AFTER, self._later)

    def look(self, status: Status) -> None:
        """Something may have changed."""
        if self._tries and status.state is State.CONNECTING and status.cause_code in AT_ONCE:
            self._tell_of_tries(status)

    def _later(self) -> None:
        status = self._status()
        if self._tries and status.state is State.CONNECTING:
            self._tell_of_tries(status)
        waiting = status.state is State.CONNECTED and waiting_for_peer(status)
        if waiting and status.received == self._before:
            self._tell(WaitingForPeer())
            return
        if status.peer_finished or (status.finished and not status.written):
            return
        self._before = status.received if waiting else None
        self._loop.call_later(AFTER, self._later)

    def _tell_of_tries(self, status: Status) -> None:
        if (event := trying(status)) is not None:
            self._tries = False
            self._tell(event)


def trying(status: Status) -> Trying | None:
    """What is wrong with the first connection, if there is still time to mend it."""
    left = status.gives_up_in
    if status.state is not State.CONNECTING or left is None or left < LEAST_LEFT:
        return None
    return Trying(status.peer, *cause(status), left)


def cause(status: Status) -> tuple[str, str]:
    """Why there is no connection, in words and in one word for programs."""
    return status.cause or UNANSWERED[0], status.cause_code or UNANSWERED[1]


class StdinHint:
    """Somebody may wait for an end that will not come, because stdin stays open.

    So ``tell`` is called when the peer's stream was taken to its end, and then nothing came from
    stdin for a moment in which it could.
    """

    def __init__(self, engine: Engine, tell: Callable[[], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Something may have changed."""
        if self._timer is None and self._engine.reader.done:
            self._look_later()

    def _look_later(self) -> None:
        due = self._loop.time() + AFTER
        written = self._engine.writer.written
        self._timer = self._loop.call_at(due, self._consider, written, due)

    def _consider(self, written: int, due: float) -> None:
        engine = self._engine
        if engine.refusing:  # stdin has ended, or is not wanted any more
            return
        stopped = self._loop.time() - due > OVERDUE
        if engine.writer.written > written or stopped or not (engine.connected and engine.spacious):
            self._look_later()  # it is busy, or cannot be
            return
        self._tell()
