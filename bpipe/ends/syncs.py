"""Syncs: what was written is brought to the disk every few seconds: a reboot costs only these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpipe.ends.local import End
from bpipe.ends.part import Target
from bpipe.engine import Engine

EVERY: Final = 5.0  # seconds


class Syncs(End):
    """``sync`` belongs to a thread of its own, ``stop`` to that which writes.

    An error of a sync is told by the system once, and so it is kept here.
    """

    def __init__(self, engine: Engine, target: Target, written: Callable[[], int]) -> None:
        super().__init__(engine, target.part_path)
        self.busy = False
        self.error: OSError | None = None
        self.good = 0  # all that lies in the part below this is known to be on the disk
        self._target = target
        self._written = written
        self._last = -1  # how much was written at the last sync
        self._over = False

    def wanted(self) -> bool:
        """Whether the thread is to end."""
        return self._over or self.error is not None or self.engine.failure is not None

    def sync(self) -> bool:
        """Bring to the disk what was written since the last time; returns whether to go on.

        The first time, that is what an earlier run has left. Blocks while the disk does.
        """
        self.busy = True  # said first: after that ``stop`` waits
        if not self.wanted() and (written := self._written()) != self._last:
            try:
                self._target.disk.sync_data(self._target.part)
                self.good = self._last = written
            except OSError as error:
                self.error = error
        self.busy = False
        self.engine.nudge()
        return not self.wanted()

    def stop(self) -> bool:
        """No more of them; returns whether none is under way."""
        self._over = True
        return not self.busy
