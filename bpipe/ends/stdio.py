"""The process's own stdin and stdout as the ends of a pipe; and stderr, where that is carried."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from bpipe.ends.errors_sink import ErrorsSink
from bpipe.ends.sink_pump import SinkPump
from bpipe.ends.source_pump import SourcePump
from bpipe.ends.streams import Directions, Streams, reads_stdin
from bpipe.engine import Engine
from bpipe.protocol.ring import Views


class Stdio:
    """Both, or the one that is wanted; each has a pump. See ``Ends``.

    ``before`` is called, in the thread of the pump, with what is about to be written to stdout; or,
    where there are records, to ``stderr``, a descriptor, which stays open.
    """

    def __init__(
        self,
        streams: Streams,
        directions: Directions,
        before: Callable[[Views], None] = lambda data: None,
        stderr: int = 2,
    ) -> None:
        self.sends = reads_stdin(streams, directions)
        self.receives = not directions.send_only
        self._streams = streams
        self._before = before
        self._stderr = stderr

    result: Final = None  # nobody knows what is behind them
    outcome: Final = None

    def hurry(self) -> bool:
        """There is nothing."""
        return False

    async def wait(self) -> None:
        """A pump that is blocked is left behind."""

    def start(self, engine: Engine) -> None:
        """Move the bytes from now on; a stdin that is not read is closed."""
        if self.sends:
            SourcePump(engine, self._streams.stdin, "stdin")
        else:
            os.close(self._streams.stdin)
        if engine.session.terms.records:
            stdout = self._streams.stdout if self.receives else os.open(os.devnull, os.O_WRONLY)
            ErrorsSink(engine, stdout, self._stderr, "stdout", self._before)
        elif self.receives:
            SinkPump(engine, self._streams.stdout, "stdout", self._before)
