"""What a command says on stderr, line by line, and whether it is worth telling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

LONGEST: Final = 4096  # bytes of a line; a longer one is told in parts
REMEMBERED: Final = 1000  # lines of one run


class Utterance:
    """The lines of one run; ``tell`` is called with each that the run before has not said.

    So the first run is told whole, and one that fails as the last one did is not told again.
    """

    def __init__(self, tell: Callable[[str], None], before: Utterance | None = None) -> None:
        self._tell = tell
        self._before: Sequence[str] = () if before is None else before.lines
        self._part = b""  # of a line that has no end yet
        self._hushed = False
        self.lines: list[str] = []  # what was said, as far as it is remembered

    def heard(self, data: bytes) -> None:
        """These bytes were said."""
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self._part) > LONGEST:
            self._say(self._part[:LONGEST])
            self._part = self._part[LONGEST:]

    def flush(self) -> None:
        """A line without an end is one: a question, or the last word."""
        part, self._part = self._part, b""
        self._say(part)

    def hush(self) -> None:
        """The run is not needed any more: what it says from now on is not told."""
        self._hushed = True

    def _say(self, data: bytes) -> None:
        line = data.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
        if self._hushed or not line.strip():
            return
        if len(self.lines) < REMEMBERED:
            self.lines.append(line)
        if line not in self._before:
            self._tell(line)
