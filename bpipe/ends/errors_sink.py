"""ErrorsSink: writes what a far program says to stdout and to stderr where that belongs.

One thread writes both, in the order in which they come: a stderr that nobody takes stops stdout, as
with ssh. And as with ssh, a stdout that nobody reads any more is noticed when there is more for it:
until then the program's stderr goes on, and its exit status counts. A stderr that cannot be written
is no reason to end anything: what was for it is gone.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import ClassVar

from bpipe.ends.sink_pump import SinkPump
from bpipe.engine import Engine
from bpipe.protocol.records import Record
from bpipe.protocol.ring import Views


class Errors:
    """What is said to stderr, a descriptor that may block, and stays open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = False  # it cannot be written

    def write(self, views: Views) -> int:
        """Some of this; returns how many bytes, and of one that is lost all of them."""
        if not self._lost:
            try:
                return os.writev(self._descriptor, views)
            except BlockingIOError:  # somebody else has set O_NONBLOCK
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
                return 0
            except OSError:
                self._lost = True
        return sum(map(len, views))


class ErrorsSink(SinkPump):
    """As ``SinkPump``, for a session with records; ``stderr`` is a descriptor that stays open."""

    kinds: ClassVar = frozenset({Record.DATA, Record.ERRORS})
    watchful: ClassVar = False

    def __init__(
        self,
        engine: Engine,
        stdout: int,
        stderr: int,
        name: str,
        before: Callable[[Views], None] = lambda data: None,
    ) -> None:
        self._errors = Errors(stderr)
        super().__init__(engine, stdout, name, before)

    def _write(self, views: Views, descriptor: int) -> int:
        if self._records.kind is Record.DATA:
            return super()._write(views, descriptor)
        return self._errors.write(views)
