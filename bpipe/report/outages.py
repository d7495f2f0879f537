"""What is told of sessions that call, while they have no connection.

Theory of operation. Behind ``--from`` somebody waits for each session, and whoever has started the
process wants to know why. A session that has no first connection after a moment says what is wrong;
one line for all, if there are many, as it is wrong for all of them. That one has lost its
connection is no news where others have theirs; that all of them have lost it is an outage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.engine import Engine
from bpipe.net.clock import clock
from bpipe.report.events import Event, addressed
from bpipe.report.flood import Flood
from bpipe.report.format import format_duration
from bpipe.report.hints import AT_ONCE, cause, trying
from bpipe.report.reporter import Teller
from bpipe.status import State, Status

AFTER: Final = 2.0  # seconds without a connection after which that is told
EVERY: Final = 10.0  # seconds between two lines about first connections
MOST: Final = 10  # outages in a minute that are told


class AllLost(NamedTuple):
    """No session has a connection any more."""

    sessions: int
    reason: str
    code: str

    def words(self) -> str:
        whose = "the only session" if self.sessions == 1 else f"all {self.sessions} sessions"
        return f"the connection of {whose} is lost: {self.reason}; reconnecting"


class Regained(NamedTuple):
    """After ``AllLost``: one of the sessions has a connection again."""

    outage: float  # since one of them was heard last

    def words(self) -> str:
        return f"connected again after {format_duration(self.outage)}"


class _Call(NamedTuple):
    engine: Engine
    teller: Teller


class Outages:
    """Looks at each session that calls, from ``came`` to ``gone``. In the event loop."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._calls: dict[int, _Call] = {}
        self._tries: set[int] = set()  # of which nothing was told
        self._away: set[int] = set()
        self._next_hint = 0.0  # not before
        self._since = 0.0  # nobody was heard, if that is told
        self._timer: asyncio.TimerHandle | None = None  # runs while all are away
        self._told = False  # that they are
        self._flood = Flood(MOST)

    def came(self, number: int, engine: Engine, teller: Teller) -> None:
        """There is one more."""
        self._calls[number] = _Call(engine, teller)
        self._tries.add(number)
        asyncio.get_running_loop().call_later(AFTER, self._hint, number)

    def look(self, number: int, status: Status) -> None:
        """Something may have changed."""
        if number not in self._calls:
            return
        if status.state.away:
            self._away.add(number)
            if number in self._tries and status.cause_code in AT_ONCE:
                self._hint(number)
        elif status.state is State.CONNECTED:
            self._away.discard(number)
            self._tries.discard(number)
        else:  # it ends, with a connection or without one
            self.gone(number)
        self._consider()

    def gone(self, number: int) -> None:
        """This one has ended; how is told elsewhere."""
        self._calls.pop(number, None)
        self._away.discard(number)
        self._tries.discard(number)
        self._consider()

    def _hint(self, number: int) -> None:
        """It may still have no connection: tell why, unless that was told of another one."""
        if number in self._tries and clock() >= self._next_hint:
            call = self._calls[number]
            if (event := trying(call.engine.status())) is not None:
                self._tries.discard(number)
                self._next_hint = clock() + EVERY
                call.teller.tell(event)

    def _consider(self) -> None:
        """Whether all are away now, or no longer."""
        if self._away and len(self._away) == len(self._calls):
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(AFTER, self._tell_of_loss)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._told and self._calls:
            self._tell(Regained(clock() - self._since))
        self._told = False

    def _tell_of_loss(self) -> None:
        for number in self._away:
            status = self._calls[number].engine.status()
            if status.state is State.RECONNECTING and self._flood.count(clock()):
                reason, code = cause(status)
                self._told, self._since = True, clock() - (status.away or AFTER)
                self._tell(AllLost(len(self._away), addressed(status.peer, reason), code))
                return
