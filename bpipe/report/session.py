"""What is told of one session of several: with its number for people, and its ID for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from bpipe.engine import Engine
from bpipe.errors import SessionEnded
from bpipe.net.clock import clock
from bpipe.report.events import Event, Lost, OfSession, Resumed, Unsteady, addressed
from bpipe.report.meter import Meter
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level
from bpipe.report.story import Look, Story
from bpipe.report.totals import Done, advice, origin
from bpipe.status import State, Status

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome

# What explains something, and is no news of a process that has many sessions.
_EXPLAINS: Final = (Lost, Resumed, Unsteady)


class Ending(NamedTuple):
    """How a session ended."""

    done: Done
    muted: bool  # nobody was told that it has begun
    interrupted: bool


class SessionTeller:
    """Tells events of one session. Of one that is ``muted``, people hear with -vv only."""

    def __init__(self, teller: Teller, engine: Engine, number: int, *, muted: bool) -> None:
        self.level = teller.level
        self.muted = muted
        self._teller = teller
        self._session = engine.session
        self._number = number

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        """Something has happened to this session: people who want it quiet do not hear of it."""
        least = Level.VERBOSE if isinstance(event, _EXPLAINS) else Level.NORMAL
        self.insist(event, max(level, Level.TRACE if self.muted else least))

    def insist(self, event: Event, level: Level) -> None:
        """The same, to people from exactly this level on."""
        session = self._session.id
        named = OfSession(event, self._number, None if session is None else session.hex())
        self._teller.tell(named, level)


class SessionStory(Story):
    """Tells what happens to a session that has begun. In the event loop.

    ``ended`` is called with how it did, and returns from which level on people hear of that.
    """

    def __init__(
        self,
        engine: Engine,
        teller: SessionTeller,
        ended: Callable[[Ending], Level],
        after: Sequence[Look] = (),
    ) -> None:
        meter, of_links = Meter(None, clock()), Level.VERBOSE
        super().__init__(engine, teller, meter, [self._know], after, of_links=of_links)
        self._teller = teller
        self._ended = ended
        self._peer = engine.status().peer  # the last one that was known
        self._look()

    def _know(self, status: Status) -> None:
        """Without a link, the status has our own address for the peer's."""
        if status.state is State.CONNECTED:
            self._peer = status.peer

    def report(self, level: Level) -> None:
        """Tell where it stands."""
        self._teller.insist(self.progress()._replace(peer=self._peer), level)

    def conclude(
        self,
        failure: SessionEnded | None,
        status: Status,
        exit_status: int,
        *,
        interrupted: bool,
        filed: FileOutcome | None = None,
    ) -> None:
        """Tell how it ended; ``interrupted``: because the whole process is to end."""
        self._finish(status)
        done = Done(exit_status, None, totals=self._totals(status))
        if failure is not None:
            done = done._replace(
                reason=addressed(self._peer, str(failure)),
                code=failure.code,
                advice=advice(failure, done.totals, interrupted=True),
                from_=origin(failure),
            )
        done = done.over(status)
        if status.tally is not None or filed is not None:
            from bpipe.report.files import told  # most streams become no file

            done = told(done, failure, status, filed, "")
        level = self._ended(Ending(done, self._teller.muted, interrupted))
        self._teller.insist(done, level)
