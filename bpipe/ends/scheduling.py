"""Fewer and longer turns on the processor for a thread that moves bulk.

A thread that wakes up takes the processor from the one that runs. For a keystroke that is right.
In bulk the one that runs is often the producer or the consumer, interrupted again and again while
there is little to move yet, and every turn begins with cold caches. Linux has a policy for threads
that need not be prompt, SCHED_BATCH, which is meant to avoid just these preemptions between the
parts of one job (sched(7)). A processor that is idle is given to them at once all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from bpipe.net.clock import clock

BULK: Final = 32 << 20  # bytes in a second
PERIOD: Final = 0.05  # seconds over which they are counted


class Turns:
    """Chooses how one thread is scheduled; ``moved`` returns how many bytes it has moved so far.

    A policy that somebody else has chosen for it stays as it is.
    """

    def __init__(self, moved: Callable[[], int]) -> None:
        self._moved = moved
        self._before = 0  # bytes that had been moved when this period began
        self._began = clock()
        self._bulk = False
        self._may_choose = hasattr(os, "SCHED_BATCH") and hasattr(os, "sched_setscheduler")

    def look(self) -> None:
        """In that thread, after it has moved something: is it bulk?"""
        if not self._may_choose or (now := clock()) - self._began < PERIOD:
            return
        moved = self._moved()
        bulk = moved - self._before > BULK * (now - self._began)
        self._before, self._began = moved, now
        if bulk is not self._bulk:
            self._bulk = bulk
            if bulk:
                self._change(os.SCHED_OTHER, os.SCHED_BATCH)
            else:
                self._change(os.SCHED_BATCH, os.SCHED_OTHER)

    def _change(self, before: int, after: int) -> None:
        try:
            self._may_choose = os.sched_getscheduler(0) == before
            if self._may_choose:
                os.sched_setscheduler(0, after, os.sched_param(0))
        except OSError:  # a sandbox forbids it, or the C library (musl) does not have it
            self._may_choose = False
