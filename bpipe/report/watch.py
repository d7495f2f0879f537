"""What is seen of a process: its lines and its status line on stderr, and its log."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable

from bpipe import __version__
from bpipe.net.address import EVERYWHERE, parse
from bpipe.report.events import CarrierSaid, Event, Exposed, Invitation, Listening, Started
from bpipe.report.output import open_log
from bpipe.report.reporter import Reporter
from bpipe.report.settings import Level, Settings
from bpipe.report.terminal import Terminal, wants_status
from bpipe.report.totals import Done


class Watch(ABC):
    """Tells what happens in a process. ``open`` comes first, and ``close`` in any case.

    ``stdout``, if it carries data, must not be the log; ``size`` is what is expected to be moved.
    """

    def __init__(self, settings: Settings, stdout: int | None, size: int | None) -> None:
        self.draws = wants_status(settings)
        self._settings = settings
        self._stdout = stdout
        self._size = size
        self._aside: int | None = None
        self._terminal = Terminal()
        self._reporter = Reporter(settings.level, self._terminal)

    def open(self, address: str, *, listens: bool) -> None:
        """Open the log, if there is to be one; LogError if that cannot be. Tell that it starts."""
        path = self._settings.log
        if path == "-":
            self._reporter.log_to(self._terminal)
        elif path is not None:
            self._reporter.log_to(open_log(path, self._stdout, self._log_failed))
        role = "listen" if listens else "connect"
        started = Started(role, __version__, os.getpid(), address, self._size, self._limit)
        self._reporter.tell(started, Level.VERBOSE)

    @property
    def _limit(self) -> int | None:
        """The bytes a second that each end may send."""
        bucket = self._settings.rate
        return None if bucket is None else bucket.rate or None

    def _log_failed(self, why: str) -> None:
        self._terminal.say(f"bpipe: {self._settings.log}: {why}; nothing more is logged")

    def tell(self, event: Event) -> None:
        """This has happened to the process."""
        self._reporter.tell(event)

    def _introduce(self, name: str, *, exposed: bool, sealed: bool) -> None:
        """Tell where the listener can be called, and how."""
        tell, address = self._reporter.tell, parse(name)
        port = address.port
        reach = "user" if address.path else "network" if exposed else "machine"
        tell(Listening(name, port if not address.path else None, reach, sealed))
        if not exposed:
            return
        if not sealed:
            tell(Exposed(name))
        host = name if address.host not in ("", EVERYWHERE, "::", "0.0.0.0") else f"HOST:{port}"
        tell(Invitation(f"bpipe connect {host} {self._settings.credentials}".rstrip()))

    def _report_every_so_often(self, report: Callable[[Level], None]) -> None:
        """Have this called as often as the log is to have it. In the event loop."""
        if (interval := self._settings.log_interval) is not None:
            level = Level.VERBOSE if self._settings.log else Level.NORMAL
            repeat(lambda: report(level), interval)

    def keep_aside(self, stderr: int | None) -> None:
        """This was stderr before it was silenced, if it was: the data goes there, too."""
        self._aside = stderr

    def _no_data(self) -> None:
        """It failed before there was any, and none will come: what is said now is heard."""
        aside, self._aside = self._aside, None
        if aside is not None:
            self._terminal.turn_to(aside)

    def _data(self) -> None:
        """There is some, or its end: nothing but stdout itself must hold that open."""
        aside, self._aside = self._aside, None
        if aside is not None:
            os.close(aside)

    @abstractmethod
    def report(self, level: Level) -> None:
        """Tell where things stand, to people from this level on."""

    def tell_of_program(self, what: str, process: int, command: str) -> None:
        """Something is odd about a program: the name of an event, and of whom it tells."""
        from bpipe.report.oddities import oddity  # most runs have no program

        self._reporter.tell(oddity(what, process, command))

    def tell_of_file(self, file: str, base: int, *, in_place: bool, told: bool | None) -> None:
        """What comes goes there, where so many bytes lie already; or over what is on a disk.

        ``told``: the other end hears what lies there; None if that is not known yet.
        """
        from bpipe.report.files import Writing  # most streams become no file

        self._reporter.tell(Writing(file, base, in_place, told), self._of_file(in_place=in_place))

    def _of_file(self, *, in_place: bool) -> Level:
        """Who hears of that."""
        return Level.NORMAL

    def tell_of_carrier(self, line: str) -> None:
        """The command whose run is the connection has said this on its stderr."""
        self._reporter.tell(CarrierSaid(line), self._of_carrier)

    @property
    def _of_carrier(self) -> Level:
        """Who hears of that."""
        return Level.NORMAL

    def clear(self) -> None:
        """Erase the status line until it is drawn the next time."""
        self._terminal.clear()

    def refuse(self, status: int, reason: str, code: str) -> int:
        """Tell that there is nothing to run; returns the exit status."""
        self._no_data()
        self._reporter.tell(Done(status, reason, code, from_="bpipe"), Level.QUIET)
        return status

    def close(self) -> None:
        """Erase the status line, and wait until everything is written.

        Of the log and of stderr, each may take two seconds.
        """
        self._reporter.close()


def repeat(action: Callable[[], None], interval: float) -> None:
    """Call this in so many seconds, and again and again, for as long as the event loop runs."""

    def act() -> None:
        action()
        repeat(action, interval)

    asyncio.get_running_loop().call_later(interval, act)
