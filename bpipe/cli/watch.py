"""What is seen of one run: its events, its status line, its log, and how it ended."""

from __future__ import annotations

import asyncio
from functools import partial

from bpipe.cli.events import (
    Done,
    Exposed,
    Frame,
    Listening,
    Progress,
    Totals,
    WaitingForStdin,
    totals,
)
from bpipe.cli.report import Log, Narrator, Reporter
from bpipe.cli.status import Meter
from bpipe.cli.streams import Streams, reads_stdin, remaining
from bpipe.cli.terminal import REDRAW, Terminal, same_terminal, wants_status
from bpipe.cli.values import Level, Usage, When
from bpipe.errors import BpipeError, NotConnected, SessionLost, explain
from bpipe.net.address import parse
from bpipe.net.clock import clock
from bpipe.pipe import BackedPipe, State, Status


class LogError(BpipeError):
    """The log cannot be opened."""


class Watch:
    """Tells what happens to a pipe. ``open`` comes first, and ``close`` in any case."""

    def __init__(self, usage: Usage, streams: Streams) -> None:
        sends = reads_stdin(streams, usage)
        self.draws = wants_status(usage)
        # Where the terminal shows the data, or what is typed, it shows the status line only after.
        careful = usage.status is When.AUTO
        self._after_output = careful and not usage.send_only and same_terminal(streams.stdout)
        self._after_input = careful and sends and same_terminal(streams.stdin)
        self._usage = usage
        self._terminal = Terminal()
        self._reporter = Reporter(usage.level, self._terminal)
        of_stdin = usage.size is None and sends
        size = remaining(streams.stdin) if of_stdin else usage.size
        self._meter = Meter(size, clock(), of_stdin=of_stdin)
        self._shown: State | None = None  # what the status line says
        self._occasion: tuple[object, ...] = ()  # what was told of last
        self._stdin_is_terminal = streams.stdin_is_terminal

    def open(self) -> None:
        """Open the log, if there is to be one; LogError if that cannot be."""
        path = self._usage.log_json
        if path == "-":
            self._reporter.log_to(self._terminal)
        elif path is not None:
            try:
                self._reporter.log_to(Log(path, self._log_failed))
            except OSError as error:
                raise LogError(f"cannot open the log {path}: {explain(error)}") from None

    def _log_failed(self, why: str) -> None:
        self._terminal.say(f"bpipe: {self._usage.log_json}: {why}; nothing more is logged")

    def begin(self, pipe: BackedPipe, *, listens: bool) -> None:
        """From now on, tell what happens to this pipe."""
        tell, usage = self._reporter.tell, self._usage
        if listens:
            name = pipe.status().peer
            tell(Listening(name, parse(name).port))
            if pipe.exposed:
                tell(Exposed(name))
        if usage.level >= Level.TRACE:
            pipe.trace(lambda sign, text: tell(Frame(sign, text), Level.TRACE))
        self._narrator = Narrator(self._reporter, pipe.status())
        pipe.observe(partial(self._look, pipe))
        if self.draws:
            self._show_often(pipe)
        if usage.log_interval is not None:
            level = Level.VERBOSE if usage.log_json else Level.NORMAL
            self._report_later(pipe, usage.log_interval, level)

    def _look(self, pipe: BackedPipe) -> None:
        """Something may have changed: tell it, above a status line that knows of it."""
        if (occasion := pipe.occasion) == self._occasion:
            return
        self._occasion = occasion
        status = pipe.status()
        self._meter.note(status, clock())
        if self.draws and status.state is not self._shown:
            self._show(status)
        self._narrator.look(status)

    def _show(self, status: Status) -> None:
        self._shown = status.state
        view = self._meter.view(status, clock())
        output = status.peer_finished and status.received == status.delivered
        if (output or not self._after_output) and (status.finished or not self._after_input):
            self._terminal.show(view)

    def _show_often(self, pipe: BackedPipe) -> None:
        self._show(pipe.status())
        asyncio.get_running_loop().call_later(REDRAW, self._show_often, pipe)

    def _report_later(self, pipe: BackedPipe, interval: float, level: Level) -> None:
        def report() -> None:
            self.report(pipe, level)
            self._report_later(pipe, interval, level)

        asyncio.get_running_loop().call_later(interval, report)

    def report(self, pipe: BackedPipe, level: Level) -> None:
        """Tell where things stand."""
        status = pipe.status()
        progress = Progress(
            state=status.state,
            peer=status.peer,
            outage=status.outage,
            round_trip=status.round_trip,
            totals=self._totals(status),
        )
        self._reporter.tell(progress, level)

    def waiting_for_stdin(self) -> None:
        """Tell that the peer has finished, and only stdin has not."""
        self._reporter.tell(WaitingForStdin(self._stdin_is_terminal))

    def clear(self) -> None:
        """Erase the status line until it is drawn the next time."""
        self._terminal.clear()

    def refuse(self, status: int, reason: str) -> int:
        """Tell that there is nothing to run; returns the exit status."""
        self._reporter.tell(Done(status=status, reason=reason), Level.QUIET)
        return status

    def conclude(self, pipe: BackedPipe, exit_status: int, level: Level) -> None:
        """Tell how it ended, from this level on."""
        status, reason = pipe.status(), None
        if pipe.failure is not None:
            reason = str(pipe.failure)
            if isinstance(pipe.failure, NotConnected | SessionLost) and status.peer not in reason:
                reason = f"{status.peer}: {reason}"
        self._reporter.tell(Done(exit_status, reason, self._totals(status)), level)

    def close(self) -> None:
        """Erase the status line, and wait a moment until everything is written."""
        self._reporter.close()

    def _totals(self, status: Status) -> Totals:
        return totals(status, self._meter.elapsed(clock()))
