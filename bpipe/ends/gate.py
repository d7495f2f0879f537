"""Where a thread waits for the event loop.

Theory of operation. A thread that has nothing to do says that it waits, and parks at a pipe of its
own. With every event the loop asks whether there is something to do now (``look``), and wakes the
thread only then. The thread asks once more after it has said that it waits, since it may have
happened just before; so it may be woken for a wait that is over, and stays where it is then.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable


class Gate:
    """A thread waits here, perhaps for an event of ``descriptor``, if there is one, as well.

    ``wanted`` says, in either thread, whether one that waits has something to do.
    """

    def __init__(self, descriptor: int | None, events: int, wanted: Callable[[], bool]) -> None:
        self._receiver, self._sender = os.pipe()
        os.set_blocking(self._receiver, False)
        os.set_blocking(self._sender, False)
        self._descriptor = descriptor
        self._wanted = wanted
        self._poll = select.poll()
        self._poll.register(self._receiver, select.POLLIN)
        self._poll_both = select.poll()
        self._poll_both.register(self._receiver, select.POLLIN)
        if descriptor is not None:
            self._poll_both.register(descriptor, events)
        self._waiting = False  # set by the thread, cleared by whoever ends the wait
        self._parked = False  # the thread is here, and does not leave while it waits

    def wait(self, *, beside: bool) -> int:
        """Block until the thread is wanted, or until an event of the descriptor, which is returned.

        ``beside``: wait for that, too.
        """
        self._waiting = True
        if self._wanted():  # it may have happened just before the loop could know of the wait
            self._waiting = False
            return 0
        self._parked = True
        events = 0
        while self._waiting and not events:  # else it was opened for the last wait
            events = self._pass(beside=beside)
        self._waiting = self._parked = False
        return events

    def rest(self, seconds: float) -> None:
        """Block until the thread is wanted, or so long; perhaps less."""
        self._waiting = True
        if not self._wanted():
            self._parked = True
            self._pass(beside=False, longest=seconds)
        self._waiting = self._parked = False

    def _pass(self, *, beside: bool, longest: float | None = None) -> int:
        events = 0
        milliseconds = None if longest is None else 1000 * longest
        for ready, what in (self._poll_both if beside else self._poll).poll(milliseconds):
            if ready == self._descriptor:
                events = what
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._receiver, 64)
        return events

    # --- in the event loop's thread; these do not block ---

    def look(self) -> None:
        """Something has happened; does the thread wait for it?"""
        if self._waiting and self._wanted():
            self._waiting = False
            with contextlib.suppress(BlockingIOError):  # it was woken often enough
                os.write(self._sender, b"\0")

    def idle(self) -> bool:
        """Whether the thread touches nothing before the loop wakes it.

        Only a descriptor that is broken can wake it meanwhile.
        """
        return self._waiting and self._parked

    def close(self) -> None:
        """The thread has ended."""
        os.close(self._receiver)
        os.close(self._sender)
