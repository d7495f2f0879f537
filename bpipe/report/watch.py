"""What is seen of one run: its events, its status line, its log, and how it ended."""

from __future__ import annotations

import asyncio
import os

from bpipe import __version__
from bpipe.ends.streams import Directions, Streams, reads_stdin, remaining
from bpipe.engine import Engine
from bpipe.errors import NotConnected, SessionEnded, SessionLost
from bpipe.net.address import EVERYWHERE, parse
from bpipe.net.clock import clock
from bpipe.protocol.ring import Views
from bpipe.report.events import (
    Exposed,
    Frame,
    Invitation,
    Listening,
    Started,
    WaitingForStdin,
    addressed,
)
from bpipe.report.hints import Hints, StdinHint
from bpipe.report.meter import Meter
from bpipe.report.narrator import Narrator
from bpipe.report.output import open_log
from bpipe.report.reporter import Reporter
from bpipe.report.settings import Level, Settings, When
from bpipe.report.terminal import REDRAW, Terminal, same_terminal, wants_status
from bpipe.report.totals import Done, Progress, Totals, advice, totals
from bpipe.status import State, Status


class Watch:
    """Tells what happens to a pipe. ``open`` comes first, and ``close`` in any case."""

    def __init__(self, settings: Settings, streams: Streams, directions: Directions) -> None:
        sends = reads_stdin(streams, directions)
        self.draws = wants_status(settings)
        # Where the terminal shows the data, or what is typed, the status line goes out of the way.
        careful = settings.status_line is When.AUTO
        self._shares = not directions.send_only and same_terminal(streams.stdout)
        self._after_output = careful and self._shares
        self._after_input = careful and sends and same_terminal(streams.stdin)
        self._settings = settings
        self._stdout = streams.stdout
        self._terminal = Terminal()
        self._reporter = Reporter(settings.level, self._terminal)
        of_stdin = settings.size is None and sends
        size = remaining(streams.stdin) if of_stdin else settings.size
        self._meter = Meter(size, clock(), of_stdin=of_stdin)
        self._shown: State | None = None  # what the status line says
        self._change = -1  # what was told of last
        self._stdin_is_terminal = streams.stdin_is_terminal
        self._waits_for_stdin = sends and not directions.send_only  # then it is what is waited for
        self._hinted = False  # that may be told
        self._concluded = False

    def open(self, address: str, *, listens: bool) -> None:
        """Open the log, if there is to be one; LogError if that cannot be. Tell that it starts."""
        path = self._settings.log
        if path == "-":
            self._reporter.log_to(self._terminal)
        elif path is not None:
            self._reporter.log_to(open_log(path, self._stdout, self._log_failed))
        role = "listen" if listens else "connect"
        started = Started(role, __version__, os.getpid(), address, self._meter.size)
        self._reporter.tell(started, Level.VERBOSE)

    def _log_failed(self, why: str) -> None:
        self._terminal.say(f"bpipe: {self._settings.log}: {why}; nothing more is logged")

    def begin(self, engine: Engine, *, listens: bool) -> None:
        """From now on, tell what happens to this pipe. In the event loop."""
        self._engine = engine
        tell, settings = self._reporter.tell, self._settings
        if listens:
            self._introduce()
        if settings.level >= Level.TRACE:
            engine.session.trace_to(lambda sign, text: tell(Frame(sign, text), Level.TRACE))
        self._narrator = Narrator(self._reporter, engine.status())
        self._hints = Hints(tell, engine.status, waits=listens)
        engine.observe(self._look)
        if self.draws:
            self._show_often()
        if settings.log_interval is not None:
            level = Level.VERBOSE if settings.log else Level.NORMAL
            self._report_later(settings.log_interval, level)

    def _introduce(self) -> None:
        """Tell where the listener can be called, and how."""
        engine = self._engine
        tell, name = self._reporter.tell, engine.status().peer
        address, port = parse(name), parse(name).port
        sealed = self._settings.credentials not in ("", "--insecure")
        reach = "user" if address.path else "network" if engine.source.exposed else "machine"
        tell(Listening(name, port if not address.path else None, reach, sealed))
        if engine.exposed:
            tell(Exposed(name))
        if engine.source.exposed:
            host = name if address.host not in ("", EVERYWHERE, "::", "0.0.0.0") else f"HOST:{port}"
            tell(Invitation(f"bpipe connect {host} {self._settings.credentials}".rstrip()))

    def _look(self) -> None:
        """Something may have changed: tell it, above a status line that knows of it."""
        if (change := self._engine.change) == self._change:
            return
        self._change = change
        status = self._engine.status()
        self._meter.note(status, clock())
        if self.draws and status.state is not self._shown:
            self._show(status)
        unsteady = self._narrator.losses.untold
        self._narrator.look(status)
        self._hints.look(status)
        if self._narrator.losses.untold and not unsteady:
            due_in = self._narrator.losses.due_in(clock())
            asyncio.get_running_loop().call_later(due_in, self._narrator.sum_up)
        if status.peer_finished and self._waits_for_stdin and not self._hinted:
            self._hinted = True
            hint = StdinHint(self._engine, self._tell_of_stdin)
            self._engine.observe(hint.look)

    def _tell_of_stdin(self) -> None:
        self._reporter.tell(WaitingForStdin(self._stdin_is_terminal))

    def _show(self, status: Status) -> None:
        self._shown = status.state
        view = self._meter.view(status, clock())
        if self._may_draw(status):
            self._terminal.show(view)
        else:
            self._terminal.hide()

    def _may_draw(self, status: Status) -> bool:
        """Whether there is something to show, and nothing else that the terminal shows now."""
        away = status.state in (State.CONNECTING, State.RECONNECTING)
        output = status.received == status.delivered and (
            away or status.peer_finished or not status.received
        )
        typed = away or status.finished
        free = (output or not self._after_output) and (typed or not self._after_input)
        return free and status.state is not State.OVER

    def make_way(self, data: Views) -> None:
        """This is about to be written to stdout, by the thread that calls."""
        if self._shares:
            self._terminal.make_way(data)

    def _show_often(self) -> None:
        self._show(self._engine.status())
        asyncio.get_running_loop().call_later(REDRAW, self._show_often)

    def _report_later(self, interval: float, level: Level) -> None:
        def report() -> None:
            self.report(level)
            self._report_later(interval, level)

        asyncio.get_running_loop().call_later(interval, report)

    def report(self, level: Level) -> None:
        """Tell where things stand, if it is not told yet how they ended."""
        if self._concluded:
            return
        status = self._engine.status()
        view = self._meter.view(status, clock())
        away = status.state in (State.CONNECTING, State.RECONNECTING)
        progress = Progress(
            state=status.state,
            peer=status.peer,
            outage=status.away if away else None,
            round_trip=status.round_trip,
            size=view.size,
            rate=int(view.rate),
            totals=self._totals(status),
        )
        self._reporter.tell(progress, level)

    def clear(self) -> None:
        """Erase the status line until it is drawn the next time."""
        self._terminal.clear()

    def refuse(self, status: int, reason: str, code: str) -> int:
        """Tell that there is nothing to run; returns the exit status."""
        self._reporter.tell(Done(status, reason, code), Level.QUIET)
        return status

    def conclude(
        self, failure: SessionEnded | None, status: Status, exit_status: int, *, interrupted: bool
    ) -> None:
        """Tell how it ended; failures that nobody has asked for, to those who want quiet, too."""
        self._concluded = True
        self._narrator.sum_up()
        self._narrator.look(status)
        size, totals = self._meter.size, self._totals(status)
        if failure is None:
            self._reporter.tell(Done(exit_status, None, None, size, totals))
            return
        reason = str(failure)
        if isinstance(failure, NotConnected | SessionLost):
            reason = addressed(status.peer, reason)
        more = advice(failure, totals, interrupted=interrupted)
        done = Done(exit_status, reason, failure.code, size, totals, more)
        self._reporter.tell(done, Level.NORMAL if interrupted else Level.QUIET)

    def close(self) -> None:
        """Erase the status line, and wait until everything is written.

        Of the log and of stderr, each may take two seconds.
        """
        self._reporter.close()

    def _totals(self, status: Status) -> Totals:
        return totals(status, self._meter.elapsed(clock()))
