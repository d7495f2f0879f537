"""SourcePump: reads a descriptor that may block, and puts what it reads on the stream."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final

from bpipe.ends.gate import Gate
from bpipe.ends.inlet import Inlet
from bpipe.ends.local import Source
from bpipe.ends.pumps import Pump, report_hang_up
from bpipe.ends.scheduling import BatchScheduling
from bpipe.engine import Engine
from bpipe.net.outlet import LITTLE

LARGEST_READ: Final = 1 << 20  # bytes in one system call
SMALL_READS: Final = 16  # in a row, after which the descriptor is lent to the event loop


class SourcePump(Source):
    """Reads until the end of file, or until nobody wants more; then closes the descriptor."""

    def __init__(self, engine: Engine, descriptor: int, name: str) -> None:
        super().__init__(engine, name)
        self._descriptor = descriptor
        self._full = False
        self._small = SMALL_READS  # reads in a row that were small; as if there had been some
        self._inlet = Inlet(self, descriptor)
        self._gate = Gate(descriptor, select.POLLIN, self._wanted)
        self._scheduling = BatchScheduling(lambda: engine.writer.written)
        Pump(self, self._gate, self._run)

    def _wanted(self) -> bool:
        return self.refused or (self._full and self.spacious)

    def _run(self) -> None:
        try:
            while not self.refused and self._move():
                self._scheduling.look()
        except OSError as error:
            if not report_hang_up(self, self._descriptor):
                self.failed(error)
        more = self._has_more()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self.ended(more=more)

    def _move(self) -> bool:
        """Wait for room and for bytes, and read them; returns whether there may be more."""
        if self._small >= SMALL_READS and self._inlet.possible:
            self._small = 0
            self._inlet.borrow()
            return True
        views = self.lend(LARGEST_READ)
        self._full = not views
        if not self._gate.wait(beside=bool(views)):
            return True
        try:
            count = os.readv(self._descriptor, views)
        except BlockingIOError:  # another process, which shares the descriptor, was faster
            return True
        self._small = self._small + 1 if count < LITTLE else 0
        self.wrote(count)
        self.engine.nudge()
        if not count:
            report_hang_up(self, self._descriptor)
        return count > 0

    def _has_more(self) -> bool:
        """Whether there are bytes that nobody will take; looks without waiting."""
        if self.engine.writer.stopped is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        with contextlib.suppress(OSError):
            return bool(poll.poll(0)) and os.read(self._descriptor, 1) != b""
        return False
