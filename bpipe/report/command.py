"""What is seen of a process that takes the place of ssh: whose ends are a command's, far away.

ssh says nothing as long as all is well, and those who start it rely on that. So people are told of
what goes well only where they watch it: where one of stdin and stdout is a terminal, and bytes of
a file or of a program go through the other, or into a file of our own. An outage is told in any
case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.ends.streams import Directions, Streams
from bpipe.engine import Engine
from bpipe.errors import PipeClosed
from bpipe.report.events import Connected, Event, PeerFinished, Trying
from bpipe.report.hints import LEAST_LEFT
from bpipe.report.pipe import PipeWatch
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level, Settings, When
from bpipe.report.story import Look
from bpipe.report.totals import Done
from bpipe.status import State, Status

DENIED: Final = "Permission denied ("  # so ssh says it, and in brackets what it has tried


class MayNotAsk(NamedTuple):
    """A later connection was refused, as it would have needed an answer that nobody is asked for.

    Told once.
    """

    peer: str
    advice: str = "to come back"  # for people: what for it would be needed

    def words(self) -> str:
        return (
            f"{self.peer}: only the first connection may ask for a password or a touch;"
            f" {self.advice}, ssh needs a key that it can use alone, or an agent"
        )


class CommandTeller:
    """Tells events; of what goes well only ``loud``, or to those who want to hear more."""

    def __init__(self, teller: Teller, *, loud: bool) -> None:
        self.level = teller.level
        self._teller = teller
        self._loud = loud

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        """Something has happened; people hear of it from this level on, or later."""
        if isinstance(event, Done):
            level = self._of_the_end(event, level)
        elif isinstance(event, Connected | PeerFinished):
            level = Level.VERBOSE
        self._teller.tell(event, level)

    def _of_the_end(self, done: Done, level: Level) -> Level:
        """A failure of bpipe is told; of its own one the command tells, and head(1) is none."""
        if done.part is not None and level is Level.QUIET:
            return level  # the command may have said why, but not what has become of the file
        if done.from_ == "bpipe" and level is Level.QUIET:  # nobody has interrupted it
            return Level.VERBOSE if done.code == PipeClosed.code else level
        return Level.NORMAL if self._loud else Level.VERBOSE


class CommandHints:
    """Tells once that it is tried again, and once that nobody can be asked any more."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._tries = False  # told
        self._away = ""  # who is looked for again, or over more links
        self._more = False  # the latter
        self._denied = False  # told

    def look(self, status: Status) -> None:
        """Something may have changed."""
        self._more = status.state is State.CONNECTED and status.up < len(status.slots)
        again = status.state is State.RECONNECTING or self._more
        self._away = status.peer if again else ""
        left = status.gives_up_in or 0.0
        tries = status.state is State.CONNECTING and status.cause and left >= LEAST_LEFT
        if tries and not self._tries:
            self._tries = True
            self._tell(Trying(status.peer, status.cause, status.cause_code, left))

    def heard(self, line: str) -> None:
        """What connects has said this."""
        if DENIED in line and self._away and not self._denied:
            self._denied = True
            why = {"advice": "for more than one link"} if self._more else {}
            self._tell(MayNotAsk(self._away, **why))


class CommandWatch(PipeWatch):
    """Tells what happens to the pipe to a command, and how that ended."""

    ends = "it"  # there is one thing to start again
    far = "the command"

    def __init__(self, settings: Settings, streams: Streams, directions: Directions) -> None:
        super().__init__(settings, streams, directions)
        typed = streams.stdin_is_terminal, streams.stdout_is_terminal
        to_file = directions.send_only  # in the place of stdout
        self._loud = any(typed) and (to_file or not all(typed))
        self._always = settings.status_line is When.ALWAYS

    def _teller(self) -> Teller:
        return CommandTeller(self._reporter, loud=self._loud)

    def _hints(self, tell: Callable[[Event], None], engine: Engine, *, listens: bool) -> list[Look]:
        """A command that runs on, or that reads no stdin, is as it should be: no word of that."""
        self._of_ssh = CommandHints(tell)
        return [self._of_ssh.look]

    @property
    def _of_links(self) -> Level:
        """Only who watches it: nothing has stopped."""
        return Level.NORMAL if self._loud else Level.VERBOSE

    def _of_file(self, *, in_place: bool) -> Level:
        """Only who watches it; but what a disk had is lost."""
        return Level.NORMAL if self._loud or in_place else Level.VERBOSE

    def tell_of_carrier(self, line: str) -> None:
        """Also what it means."""
        super().tell_of_carrier(line)
        self._of_ssh.heard(line)

    def _may_draw(self, status: Status) -> bool:
        """Not while somebody may be asked for a password; of what goes well as ``loud``."""
        if status.state is State.CONNECTING:
            return False
        shown = self._loud or self._always or status.state is State.RECONNECTING
        return shown and super()._may_draw(status)
