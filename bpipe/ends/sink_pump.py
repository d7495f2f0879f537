"""SinkPump: takes what has come, and writes it to a descriptor that may block."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import ClassVar, Final

from bpipe.ends.consumer import (
    BROKEN,
    GONE,
    LOOKS,
    UNREAD_FOR,
    broken,
    close_writing,
    has_left_bytes,
    unread,
)
from bpipe.ends.gate import Gate
from bpipe.ends.local import Sink
from bpipe.ends.pumps import Pump, report_hang_up
from bpipe.ends.scheduling import BatchScheduling
from bpipe.engine import Engine
from bpipe.net.clock import clock
from bpipe.net.outlet import Outlet
from bpipe.protocol.ring import Views

LARGEST_WRITE: Final = 1 << 18  # smaller: a write counts as delivered when all of it returned


class SinkPump(Sink):
    """Writes until the end of the stream, closes the descriptor, and says that it is delivered.

    ``before`` is called in this pump's thread with what is going to be written.
    """

    watchful: ClassVar = True  # a consumer that leaves is noticed before there is more for it

    def __init__(
        self,
        engine: Engine,
        descriptor: int,
        name: str,
        before: Callable[[Views], None] = lambda data: None,
    ) -> None:
        super().__init__(engine, name)
        self._descriptor = descriptor
        self._before = before
        self._gate = Gate(descriptor, 0, self._wanted)
        self._scheduling = BatchScheduling(lambda: engine.reader.delivered)
        # Before the thread starts, which may close it at once. Only bytes may pass this process.
        if not engine.session.terms.records and Outlet.possible(descriptor):
            engine.use_outlet(Outlet(descriptor, self._gate.idle))
        Pump(self, self._gate, self._run)

    def _wanted(self) -> bool:
        return self.half.ready or self.engine.ending.failure is not None

    def _run(self) -> None:
        try:
            while self.engine.failure is None and self._move():
                self._scheduling.look()
        except OSError as error:
            if report_hang_up(self, self._descriptor):
                return
            if error.errno in GONE:
                unread_bytes = unread(self._descriptor)
                self.left(unread_bytes, untaken=has_left_bytes(self._descriptor, error))
            else:
                self.failed(error)

    def _move(self) -> bool:
        """Write what there is, or wait for it; returns whether there may be more."""
        if views := self.lend(LARGEST_WRITE):
            self._before(views)
            self.took(self._write(views, self._descriptor))
            self.engine.nudge()
        elif self.half.drained:
            self._wait_until_read()
            close_writing(self._descriptor)
            self.ended()
            return False
        elif self._gate.wait(beside=self.watchful) & BROKEN:
            raise broken(self._descriptor)
        return True

    def _write(self, views: Views, descriptor: int) -> int:
        try:
            return os.writev(descriptor, views)
        except BlockingIOError:  # somebody else has set O_NONBLOCK
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
            return 0

    def _wait_until_read(self) -> None:
        """Wait until the consumer has read all that lies in its pipe, as long as it does read.

        One that waits for the end of this process first gets no further, so it is not waited for.
        Raises BrokenPipeError if the consumer goes before.
        """
        poll = select.poll()
        poll.register(self._descriptor, 0)
        pause, longest = LOOKS
        left, since = unread(self._descriptor), clock()
        while left and clock() - since < UNREAD_FOR:
            if poll.poll(1000 * pause):
                raise broken(self._descriptor)
            pause = min(2 * pause, longest)
            if (now_left := unread(self._descriptor)) < left:
                left, since = now_left, clock()
