"""A way for a little at a time from a source's descriptor into the pipe, without its thread.

Theory of operation. What a source's pump reads, the event loop sends: for every piece one thread
wakes the other, and both want the interpreter. For bulk that is nothing; for a single byte it is
most of the time that it takes. So a pump that finds nothing to read lends its descriptor to the
loop, which reads a little at a time and sends it in the same callback. It gives the descriptor
back as soon as there is anything else to do: much to read, an end, an error, no room, or nobody
wanting more; only the pump knows what to do about it. The pump sees each of these again by
itself, except an error, which a socket tells only once: that is handed over.

Ownership. The descriptor and the producer's half of the writer belong to the pump's thread, except
during ``borrow``, from ``_take`` to ``_give_back``, which are both in the loop's thread. The pump
touches neither before ``borrow`` has returned.

Nothing here may block, and the descriptor is inherited, so that it cannot be set non-blocking.
Linux can be asked not to wait in a single read (RWF_NOWAIT), of sockets and of most pipes.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading

from bpipe.ends.local import Source
from bpipe.net.outlet import CANNOT, LITTLE


class Inlet:
    """What the event loop does with a descriptor while the source's pump has nothing to do."""

    def __init__(self, source: Source, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        pollable = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self.possible = pollable and hasattr(os, "RWF_NOWAIT")
        self._source = source
        self._engine = source.engine
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._returned = threading.Event()
        self._borrowed = False
        self._error: OSError | None = None  # which came while it was lent
        self._engine.observe(self._look)

    def borrow(self) -> None:
        """In the pump's thread: leave the descriptor to the event loop until it gives it back.

        Raises the OSError that came meanwhile.
        """
        self._returned.clear()
        self._engine.call(self._take)
        self._returned.wait()
        if self._error is not None:
            raise self._error

    # --- in the event loop's thread ---

    def _take(self) -> None:
        self._borrowed = True
        try:
            self._loop.add_reader(self._descriptor, self._readable)
        except OSError:  # for example the system's limit of what can be waited for
            self.possible = False
            self._give_back()
        self._look()  # it may have been too late

    def _look(self) -> None:
        """Something has happened: does anybody want more?"""
        if self._borrowed and self._engine.refusing:
            self._give_back()

    def _readable(self) -> None:
        views = self._source.lend(LITTLE)
        try:
            count = os.preadv(self._descriptor, views, -1, os.RWF_NOWAIT) if views else 0
        except BlockingIOError:  # another process, which shares the descriptor, was faster
            return
        except OSError as error:
            count = 0
            if error.errno in CANNOT:
                self.possible = False
            else:
                self._error = error
        self._source.wrote(count)
        if not 0 < count < LITTLE:
            self._give_back()
        self._engine.drive()

    def _give_back(self) -> None:
        self._borrowed = False
        self._loop.remove_reader(self._descriptor)
        self._returned.set()
