"""What is seen of a process that has one pipe, between its own stdin and stdout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bpipe.ends.streams import Directions, Streams, reads_stdin, remaining
from bpipe.engine import Engine
from bpipe.errors import SessionEnded
from bpipe.net.clock import clock
from bpipe.protocol.ring import Views
from bpipe.report.events import Event, WaitingForStdin
from bpipe.report.flood import Strangers
from bpipe.report.hints import Hints, StdinHint
from bpipe.report.line import line
from bpipe.report.meter import Meter
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level, Settings, When
from bpipe.report.story import Look, Story
from bpipe.report.terminal import REDRAW, same_terminal
from bpipe.report.watch import Watch, repeat
from bpipe.status import State, Status

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome


class PipeWatch(Watch):
    """Tells what happens to a pipe, and how it ended."""

    ends = "both ends"  # what is to be started again after a failure
    far = "the peer"  # who is at the other end

    def __init__(self, settings: Settings, streams: Streams, directions: Directions) -> None:
        sends = reads_stdin(streams, directions)
        of_stdin = settings.size is None and sends
        size = remaining(streams.stdin) if of_stdin else settings.size
        super().__init__(settings, streams.stdout, size)
        # Where the terminal shows the data, or what is typed, the status line goes out of the way.
        careful = settings.status_line is When.AUTO
        self._shares = not directions.send_only and same_terminal(streams.stdout)
        self._after_output = careful and self._shares
        self._after_input = careful and sends and same_terminal(streams.stdin)
        self._meter = Meter(size, clock(), of_stdin=of_stdin)
        self._shown: tuple[State, int] | None = None  # what the status line says
        self._stdin_is_terminal = streams.stdin_is_terminal
        self._waits_for_stdin = sends and not directions.send_only  # then it is what is waited for
        self._hinted = False  # that may be told
        self._goes_on: Callable[[], bool] = lambda: False  # over one of several links

    def begin(self, engine: Engine, *, listens: bool) -> None:
        """From now on, tell what happens to this pipe. In the event loop."""
        looks: list[Look] = []
        if listens:
            sealed = engine.session.secret is not None
            exposed = engine.source.exposed
            self._introduce(engine.status().peer, exposed=exposed, sealed=sealed)
            strangers = Strangers(self._reporter.tell)
            looks.append(lambda status: strangers.look(status.refused))
        if self._aside is not None:
            looks.append(self._look_for_data)
        self._looks, self._listens = looks, listens
        self._tell_of(engine)
        if self.draws:
            self._draw()
            repeat(self._draw, REDRAW)
        self._report_every_so_often(self.report)

    def follow(self, engine: Engine) -> None:
        """That pipe was superseded: tell what happens to this one in its place."""
        self._story.give_way()
        self._meter = Meter(self._size, clock())
        self._tell_of(engine)

    def _look_for_data(self, status: Status) -> None:
        if status.received or status.peer_finished:
            self._data()

    def _tell_of(self, engine: Engine) -> None:
        self._engine, teller = engine, self._teller()
        self._goes_on = lambda: engine.connected and engine.session.terms.slots > 1
        before = [self._show_change] if self.draws else []
        after = [*self._looks, *self._hints(teller.tell, engine, listens=self._listens)]
        of_links = self._of_links
        self._story = Story(engine, teller, self._meter, before, after, self.ends, of_links)

    @property
    def _of_carrier(self) -> Level:
        """Where others go on, what one of several has said is for who asks."""
        return Level.VERBOSE if self._goes_on() else Level.NORMAL

    def _teller(self) -> Teller:
        """Who is told what happens."""
        return self._reporter

    @property
    def _of_links(self) -> Level:
        """From which level on it is told that some of several links are down."""
        return Level.NORMAL

    def _hints(self, tell: Callable[[Event], None], engine: Engine, *, listens: bool) -> list[Look]:
        """Those who look for what somebody who waits would ask."""
        hints: list[Look] = [Hints(tell, engine.status, waits=listens).look]
        if not listens and engine.session.terms.links > 1:
            from bpipe.report.links import Limited  # most pipes have one link

            hints.append(Limited(tell, engine.session.terms.links).look)
        return [*hints, self._hint_at_stdin] if self._waits_for_stdin else hints

    def _hint_at_stdin(self, status: Status) -> None:
        if status.peer_finished and status.tally is None and not self._hinted:
            self._hinted = True
            hint = StdinHint(self._engine, self._tell_of_stdin)
            self._engine.observe(hint.look)

    def _tell_of_stdin(self) -> None:
        self._reporter.tell(WaitingForStdin(self._stdin_is_terminal))

    def tell_of_stdin_unread(self) -> None:
        """There is something on stdin, and what comes goes to a file."""
        from bpipe.report.files import StdinUnread  # most streams become no file

        self._reporter.tell(StdinUnread())

    # --- the status line ---

    def _draw(self) -> None:
        self._show(self._engine.status())

    def _show_change(self, status: Status) -> None:
        """What is told next is told above a status line that knows of it."""
        if (status.state, status.up) != self._shown:
            self._show(status)

    def _show(self, status: Status) -> None:
        self._shown = status.state, status.up
        view = self._meter.view(status, clock())._replace(far=self.far, allowed=self._limit)
        if self._may_draw(status):
            self._terminal.show(partial(line, view))
        else:
            self._terminal.hide()

    def _may_draw(self, status: Status) -> bool:
        """Whether there is something to show, and nothing else that the terminal shows now."""
        away = status.state.away
        output = status.received == status.delivered and (
            away or status.peer_finished or not status.received
        )
        typed = away or status.finished
        free = (output or not self._after_output) and (typed or not self._after_input)
        asks = status.asks and status.state is State.CONNECTING
        return free and not asks and status.state is not State.OVER

    def make_way(self, data: Views) -> None:
        """This is about to be written to stdout, by the thread that calls."""
        if self._shares:
            self._terminal.make_way(data)

    def make_way_for_errors(self, data: Views) -> None:
        """The same for what a far program says, and what is about to be written to stderr."""
        self._terminal.make_way(data)

    # --- where it stands, and the end ---

    def report(self, level: Level) -> None:
        """Tell where things stand, if it is not told yet how they ended."""
        if not self._story.concluded:
            self._reporter.tell(self._story.progress(), level)

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
        if failure is not None and not status.received:
            self._no_data()
        self._story.conclude(failure, status, exit_status, interrupted=interrupted, filed=filed)
