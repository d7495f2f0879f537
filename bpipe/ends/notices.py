"""What is odd about a program, so that somebody has to see to it; each is told once.

* ``output-held``: it has ended, and somebody else still has its stdout.
* ``program-stopped``: somebody has stopped it with SIGSTOP.
* ``out-of-reach``: it, or one that it has started, is to be ended, and may not be signalled by us.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bpipe.ends.child import Child
from bpipe.ends.guard import Guard
from bpipe.ends.program_streams import HOLDERS_LINGER
from bpipe.net.processes import name_of, numbers, writes

Tell = Callable[[str, int, str], None]  # which of these, of which process, and its name

EVERY: Final = 2.0  # seconds between two looks


class NoticedChild(Child):
    """A program of which it is told what is odd about it; ``tell`` is called in the event loop."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended: Callable[[], None],
        guard: Guard,
        tell: Tell,
    ) -> None:
        self._tell = tell
        self._told: set[tuple[str, int]] = set()
        self._inform = ended
        super().__init__(argv, environment, self._has_ended, guard)
        found = os.fstat(self.stdout)
        self._output = (found.st_dev, found.st_ino)
        asyncio.get_running_loop().call_later(EVERY, self._look)

    def _has_ended(self) -> None:
        # Before what waits as long, and closes the output then.
        asyncio.get_running_loop().call_later(HOLDERS_LINGER, self._look_for_holders)
        self._inform()

    def _look(self) -> None:
        if not self.ending and self.stopped is not None:
            self._notice("program-stopped", self.pid)
        for pid in self.immune:
            self._notice("out-of-reach", pid)
        if self.result is None or self.ending:
            asyncio.get_running_loop().call_later(EVERY, self._look)

    def _look_for_holders(self) -> None:
        if self.stdout < 0:  # its end was seen
            return
        for pid in numbers():
            if writes(pid, self._output):
                self._notice("output-held", pid)
                return

    def _notice(self, what: str, pid: int) -> None:
        if (what, pid) not in self._told:
            self._told.add((what, pid))
            self._tell(what, pid, name_of(pid))
