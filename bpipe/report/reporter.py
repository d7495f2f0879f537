"""Events, told to people in words and to programs as JSON; what is dropped is counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

from bpipe.report.events import Dropped, Event, to_json
from bpipe.report.output import Output
from bpipe.report.settings import Level
from bpipe.report.totals import Done


class Handler:
    """An output, and the form in which events go there. Tells how many it has not taken."""

    def __init__(self, output: Output, phrase: Callable[[Event], str]) -> None:
        self.output = output
        self._phrase = phrase
        self._dropped = 0  # since the last that was told

    def tell(self, event: Event) -> None:
        """Something has happened. The end of the run is never dropped."""
        last = isinstance(event, Done)
        if self._dropped and self._say(Dropped(self._dropped), last):
            self._dropped = 0
        if not self._say(event, last):
            self._dropped += 1

    def _say(self, event: Event, last: bool) -> bool:
        return self.output.say(self._phrase(event), last=last)


class Teller(Protocol):
    """Who tells events."""

    @property
    def level(self) -> Level:
        """What people want to hear."""

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        """Something has happened; people hear of it from this level on."""


class Reporter:
    """Tells events: in words on stderr, from a level on; as JSON to a log, if there is one."""

    def __init__(self, level: Level, stderr: Output) -> None:
        self.level = level
        self._words = Handler(stderr, lambda event: f"bpipe: {event.words()}")
        self._log: Handler | None = None

    def log_to(self, output: Output) -> None:
        """Write a log from now on; one on stderr takes the place of the words."""
        run = os.urandom(6).hex()
        self._log = Handler(output, lambda event: to_json(event, run, time.time()))

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        """Something has happened; people hear of it from this level on."""
        if self._log is not None:
            self._log.tell(event)
        if not self._log_is_stderr and self.level >= level:
            self._words.tell(event)

    @property
    def _log_is_stderr(self) -> bool:
        return self._log is not None and self._log.output is self._words.output

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        if self._log is not None and not self._log_is_stderr:
            self._log.output.close()
        self._words.output.close()
