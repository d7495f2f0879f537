"""What is seen of a process that serves many sessions.

Theory of operation. Each session has a number, for people, and its ID, for programs, and what is
told of it has them. A person is told of the beginning and of the end of a session; what becomes of
its connection explains something only to who asks (-v). A minute has a bounded number of
lines, whoever calls and whatever fails: of sessions that begin beyond it nothing is told, and of
failures beyond it only how many there were. A log has everything.

The numbers of all sessions together are counted when somebody looks (``census.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bpipe.engine import Engine
from bpipe.net.address import parse
from bpipe.net.clock import clock
from bpipe.report.census import Census, ServerView
from bpipe.report.events import (
    Crowded,
    Draining,
    Event,
    Forwarding,
)
from bpipe.report.flood import Flood, Strangers
from bpipe.report.outages import Outages
from bpipe.report.reporter import Teller
from bpipe.report.service_line import outage, service_line
from bpipe.report.session import Ending, SessionStory, SessionTeller
from bpipe.report.settings import Level, Settings
from bpipe.report.story import Look
from bpipe.report.totals import Done, Listener
from bpipe.report.watch import Watch, repeat

if TYPE_CHECKING:
    from bpipe.report.links import Limited

REDRAW: Final = 0.5  # seconds between two counts of all sessions
MOST: Final = 20  # sessions that begin within a minute and are told; also: that fail


class ServiceWatch(Watch):
    """Tells what happens to the sessions of a process, and to all of them together."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, None, None)
        self._address = ""
        self._listens = True
        self._source: ServerView | None = None
        self._sessions: dict[int, SessionStory] = {}
        self._number = 0  # of the last one
        self._census = Census(clock())
        self._strangers = Strangers(self._reporter.tell)
        self._outages = Outages(self._reporter.tell)
        self._begun = Bound(self._reporter, lambda untold: Crowded(untold, 0))
        self._failures = Bound(self._reporter, lambda untold: Crowded(0, untold))
        self._limited: Limited | None = None  # once there may be several links
        self._draining = self._concluded = False

    def open(self, address: str, *, listens: bool) -> None:
        """Open the log, if there is to be one; LogError if that cannot be. Tell that it starts.

        ``listens``: peers call; otherwise local connections come, for a peer at this address.
        """
        self._address, self._listens = address, listens
        super().open(address, listens=listens)

    def begin(self, source: ServerView) -> None:
        """It can be called from now on. In the event loop."""
        self._source = source
        if self._listens:
            self._introduce(source.address, exposed=source.reachable, sealed=source.sealed)
        else:
            user = parse(source.address).path is not None
            reach = "user" if user else "network" if source.reachable else "machine"
            self._reporter.tell(Forwarding(source.address, self._address, reach))
        if self.draws:
            self._draw()
            repeat(self._draw, REDRAW)
        self._report_every_so_often(self._sum_up)

    def came(self, engine: Engine) -> SessionStory:
        """A session has begun; what happens to it is told until it is concluded."""
        self._number += 1
        number, muted = self._number, not self._begun.count()
        teller = SessionTeller(self._reporter, engine, number, muted=muted)
        looks: list[Look] = []
        if not self._listens:
            self._outages.came(number, engine, teller)
            looks.append(partial(self._outages.look, number))
            if engine.session.terms.links > 1:
                looks.append(self._look_at_links(engine.session.terms.links))
        story = SessionStory(engine, teller, partial(self._forget, number), looks)
        self._sessions[number] = story
        return story

    def _look_at_links(self, wanted: int) -> Look:
        """Tells once, for all sessions, if there may be fewer."""
        if self._limited is None:
            from bpipe.report.links import Limited  # most have one

            self._limited = Limited(self._reporter.tell, wanted)
        return self._limited.look

    def _forget(self, number: int, ending: Ending) -> Level:
        """This one has ended; returns from which level on people hear of it."""
        del self._sessions[number]
        self._outages.gone(number)
        failed = ending.done.reason is not None
        self._census.end(ending.done.totals, failed=failed)
        if failed and ending.interrupted:
            return Level.VERBOSE  # who has interrupted all of them hears how many there were
        told = self._failures.count() if failed else not ending.muted
        return Level.NORMAL if told else Level.TRACE

    # --- all together ---

    def _count(self) -> Listener | None:
        if self._source is None or self._concluded:
            return None
        statuses = [story.status() for story in self._sessions.values()]
        return self._census.take(self._source, statuses, clock(), draining=self._draining)

    def _draw(self) -> None:
        if any(story.status().asks for story in self._sessions.values()):
            self._terminal.hide()  # who has the terminal now
        elif (listener := self._count()) is not None:
            out = outage([story.status() for story in self._sessions.values()])
            self._terminal.show(partial(service_line, listener, out))

    def _sum_up(self, level: Level) -> None:
        if (listener := self._count()) is not None:
            self._reporter.tell(listener, level)

    def report(self, level: Level) -> None:
        """Tell where things stand, of all together and of each."""
        self._sum_up(level)
        if not self._concluded:
            for story in self._sessions.values():
                story.report(level)

    def note_refused(self, callers: int) -> None:
        """So many strangers have called, in all."""
        self._strangers.look(callers)

    def draining(self, seconds: float) -> None:
        """No more sessions are taken; those that there are may go on for so long."""
        self._draining = True
        self._reporter.tell(Draining(len(self._sessions), seconds))
        if self.draws:
            self._draw()

    def conclude(
        self,
        exit_status: int,
        reason: str | None = None,
        code: str | None = None,
        *,
        interrupted: bool = False,
    ) -> None:
        """The run is over; a failure that nobody has asked for is told to all."""
        self._begun.sum_up()
        self._failures.sum_up()
        listener = self._count()
        self._concluded = True
        self._terminal.hide()
        done = Done(exit_status, reason, code, from_=None if reason is None else "bpipe")
        if listener is not None:
            self._reporter.tell(listener, Level.TRACE)
            done = done._replace(totals=listener.totals, advice=listener.served_in_all())
        quiet = reason is not None and not interrupted
        self._reporter.tell(done, Level.QUIET if quiet else Level.NORMAL)


class Bound:
    """So many a minute are told, and then how many more there were."""

    def __init__(self, teller: Teller, sum_of: Callable[[int], Event]) -> None:
        self._tell = teller.tell
        self._sum_of = sum_of
        self._flood = Flood(MOST)

    def count(self) -> bool:
        """One more; returns whether it is to be told. In the event loop."""
        flood, now = self._flood, clock()
        before = flood.untold
        told = flood.count(now)
        if flood.untold and not before:
            asyncio.get_running_loop().call_later(flood.due_in(now), self.sum_up)
        return told

    def sum_up(self) -> None:
        """Tell how many were not told."""
        if untold := self._flood.sum_up(clock()):
            self._tell(self._sum_of(untold))
