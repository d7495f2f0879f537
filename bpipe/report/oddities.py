"""What is odd about a program, as events: see ``ends/notices``, which tells of it."""

from __future__ import annotations

from typing import Final, NamedTuple

from bpipe.report.events import Event, name


class OutputHeld(NamedTuple):
    """A program has ended, and its output is closed in spite of somebody who could still write."""

    process: int
    command: str

    def words(self) -> str:
        holder = f"process {self.process} ({self.command})"
        return f"the program has ended, but {holder} holds its output; no more of that is sent"


class ProgramStopped(NamedTuple):
    """Somebody has stopped a program, which nobody here lets go on."""

    process: int
    command: str

    def words(self) -> str:
        where = f"process {self.process} ({self.command})"
        return f"the program is stopped: {where}; kill -CONT {self.process} lets it go on"


class OutOfReach(NamedTuple):
    """A program, or what it has started, cannot be ended, as it is another user's."""

    process: int
    command: str

    def words(self) -> str:
        whose = f"process {self.process} ({self.command}) is another user's"
        return f"{whose}: it cannot be ended, and is waited for"


_KINDS: Final = {name(each): each for each in (OutputHeld, ProgramStopped, OutOfReach)}


def oddity(what: str, process: int, command: str) -> Event:
    """The event with this name."""
    return _KINDS[what](process, command)
