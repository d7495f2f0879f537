"""What happens to one pipe, told as it happens, where it stands, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bpipe.engine import Engine
from bpipe.errors import NotConnected, SessionEnded, SessionLost
from bpipe.net.clock import clock
from bpipe.report.events import Frame, Superseded, addressed
from bpipe.report.meter import Meter
from bpipe.report.narrator import Narrator
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level
from bpipe.report.totals import Done, Progress, Totals, advice, origin, totals
from bpipe.status import State, Status

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome
    from bpipe.report.links import LinkNarrator

Look = Callable[[Status], None]


class Story:
    """Tells what happens to a pipe, from now on. In the event loop.

    Others look at each status in which something may have changed, ``before`` it is told and
    ``after``. People hear from the level ``of_links`` on that some of several links are down.
    """

    def __init__(
        self,
        engine: Engine,
        reporter: Teller,
        meter: Meter,
        before: Sequence[Look] = (),
        after: Sequence[Look] = (),
        ends: str = "both ends",
        of_links: Level = Level.NORMAL,
    ) -> None:
        self.concluded = False
        self._engine = engine
        self._reporter = reporter
        self._meter = meter
        self._ends = ends  # what can be started again
        self._change = -1  # what was told of last
        if reporter.level >= Level.TRACE:
            engine.session.trace_to(self._trace)
        # Nobody was told of a connection, which a session may have already.
        first = replace(engine.status(), state=State.CONNECTING, links=0, beside=0)
        self._narrator = Narrator(reporter, first)
        self._of_links = of_links
        self._links: LinkNarrator | None = None  # where there may be several
        self._looks = (*before, self._narrate, *after)
        engine.observe(self._look)

    def _trace(self, sign: str, text: str) -> None:
        self._reporter.tell(Frame(sign, text), Level.TRACE)

    def _look(self) -> None:
        """Something may have changed."""
        if (change := self._engine.change) == self._change:
            return
        self._change = change
        status = self._engine.status()
        self._meter.note(status, clock())
        for look in self._looks:
            look(status)

    def _narrate(self, status: Status) -> None:
        if status.slots:
            self._narrate_links(status)
        losses = self._narrator.losses
        unsteady = losses.untold
        self._narrator.look(status)
        if losses.untold and not unsteady:
            due_in = losses.due_in(clock())
            asyncio.get_running_loop().call_later(due_in, self._narrator.sum_up)

    def _narrate_links(self, status: Status) -> None:
        if self._links is None:
            from bpipe.report.links import LinkNarrator  # most pipes have one link

            self._links = LinkNarrator(self._reporter, self._engine.status, self._of_links)
        self._links.look(status)

    def status(self) -> Status:
        """What the pipe is doing now."""
        return self._engine.status()

    def progress(self) -> Progress:
        """Where it stands."""
        status = self._engine.status()
        view = self._meter.view(status, clock())
        away = status.state.away
        return Progress(
            state=status.state,
            peer=status.peer,
            outage=status.away if away else None,
            round_trip=status.round_trip,
            size=view.size,
            rate=int(view.rate),
            totals=self._totals(status),
            up=status.up if status.slots else None,
            slots=len(status.slots) or None,
        )

    def conclude(
        self,
        failure: SessionEnded | None,
        status: Status,
        exit_status: int,
        *,
        interrupted: bool,
        filed: FileOutcome | None = None,
    ) -> None:
        """Tell how it ended; failures that nobody has asked for, to those who want quiet, too."""
        self._finish(status)
        size, totals = self._meter.size, self._totals(status)
        done = Done(exit_status, None, None, size, totals)
        if failure is not None:
            reason = str(failure)
            if isinstance(failure, NotConnected | SessionLost):
                reason = addressed(status.peer, reason)
            more = advice(failure, totals, interrupted=interrupted, ends=self._ends)
            done = Done(exit_status, reason, failure.code, size, totals, more, origin(failure))
        done = done.over(status)
        if status.tally is not None or filed is not None:
            from bpipe.report.files import told  # most streams become no file

            done = told(done, failure, status, filed, "" if interrupted else self._ends)
        quiet = failure is not None and not interrupted
        self._reporter.tell(done, Level.QUIET if quiet else Level.NORMAL)

    def give_way(self) -> None:
        """Another pipe takes the place of this one: tell that."""
        status = self._engine.status()
        self._finish(status)
        self._reporter.tell(Superseded(self._totals(status)))

    def _finish(self, status: Status) -> None:
        """Tell what happened before the end."""
        self.concluded = True
        self._narrator.sum_up()
        self._narrator.look(status)

    def _totals(self, status: Status) -> Totals:
        return totals(status, self._meter.elapsed(clock()))
