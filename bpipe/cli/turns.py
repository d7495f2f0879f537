"""Fewer and longer turns on the processor for a thread that moves bulk.

A thread that wakes up takes the processor from the one that runs. For a keystroke that is right.
In bulk the one that runs is often the producer or the consumer, interrupted again and again while
there is little to move yet, and every turn begins with cold caches. Linux has a policy for threads
that need not be prompt, SCHED_BATCH, which is meant to avoid just these preemptions between the
parts of one job (sched(7)). A processor that is idle is given to them at once all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from bpipe.net.clock import clock

BULK: Final = 32 << 20  # bytes in a second
PERIOD: Final = 0.05  # seconds over which they are counted


class Turns:
    """The turns of one thread. ``moved`` is the number of bytes that it has moved so far.

    A policy that somebody else has chosen for it stays as it is.
    """

    def __init__(self, moved: Callable[[], int]) -> None:
        self._moved = moved
        self._before = 0  # bytes that had been moved when this period began
        self._began = clock()
        self._bulk = False
        self._free = hasattr(os, "SCHED_BATCH")  # to choose

    def look(self) -> None:
        """In that thread, after it has moved something: is it bulk?"""
        now = clock()
        if now - self._began < PERIOD or not self._free:
            return
        moved = self._moved()
        bulk = moved - self._before > BULK * (now - self._began)
        self._before, self._began = moved, now
        if bulk is not self._bulk:
            self._bulk = bulk
            prompt, patient = os.SCHED_OTHER, os.SCHED_BATCH
            self._change(*((prompt, patient) if bulk else (patient, prompt)))

    def _change(self, before: int, after: int) -> None:
        self._free = os.sched_getscheduler(0) == before
        if self._free:
            with contextlib.suppress(OSError):  # a sandbox; the next change finds nothing changed
                os.sched_setscheduler(0, after, os.sched_param(0))
