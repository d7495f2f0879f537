"""Pumps: threads that do what may block, between a descriptor and the pipe.

Theory of operation. stdin and stdout may be anything, and inherited: they can neither be set
non-blocking (that would leak to every process that shares them) nor all be given to the event
loop (regular files cannot be polled there). So each has a thread that does blocking calls on
memory lent by the rings; no byte is copied here.

Threads. The pump of a source is the only producer of the writer's ring, that of a sink the only
consumer of the reader's; while it waits, each may lend that to the event loop (``inlet.py``,
``outlet.py``). Everything else they ask the event loop to do. The loop wakes a pump through its
``Gate``, and only if it waits for something that is there; a pump that is blocked in a read or a
write of its own is left behind when the process ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import threading
from collections.abc import Callable

from bpipe.ends.gate import Gate
from bpipe.ends.local import End
from bpipe.ends.streams import leave_signals_to_the_main_thread
from bpipe.protocol.wire import Reason


class Pump(threading.Thread):
    """The thread of an end, which waits at this gate. It begins at once.

    If it fails, ``threading.excepthook`` has to let ``end`` give up. Raises RuntimeError where the
    system refuses a thread.
    """

    def __init__(self, end: End, gate: Gate, work: Callable[[], None]) -> None:
        super().__init__(name=type(end).__name__, daemon=True)
        self.end = end
        self._gate = gate
        self._work = work
        end.engine.observe(gate.look)
        self.start()

    def run(self) -> None:
        """What the thread does."""
        leave_signals_to_the_main_thread()
        try:
            self._work()
        finally:
            self.end.engine.call(self._gate.close)


def report_hang_up(end: End, descriptor: int) -> bool:
    """Give up if this is a terminal that is gone, which is no end of a stream; returns whether.

    The system tells the foreground by SIGHUP, perhaps later; whoever is not told tells itself.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    with contextlib.suppress(OSError):  # it may be closed already
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and poll.poll(0):
            os.kill(os.getpid(), signal.SIGHUP)
            end.give_up("its terminal has hung up", Reason.INTERRUPTED)  # SIGHUP may be ignored
            return True
    return False
