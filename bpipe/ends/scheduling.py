"""Fewer and longer turns on the processor for a thread that moves bulk.

A thread that wakes up takes the processor from the one that runs. For a keystroke that is right.
In bulk the one that runs is often the producer or the consumer, interrupted again and again while
there is little to move yet, and every turn begins with cold caches. Linux has a policy for threads
that need not be prompt, SCHED_BATCH, which is meant to avoid just these preemptions between the
parts of one job (sched(7)). An idle processor is given to them at once anyway.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from bpipe.engine import Engine
from bpipe.net.clock import clock

BULK: Final = 32 << 20  # bytes in a second
PERIOD: Final = 0.05  # seconds over which they are counted


class BatchScheduling:
    """Chooses how one thread is scheduled; ``moved`` returns how many bytes it has moved so far.

    A policy that somebody else has chosen for it stays as it is; so there may be one of these in
    a thread, and no more.
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
        self._choose(bulk)

    def rest(self) -> None:
        """In that thread: there is nothing to move for the time being; what was moved is past."""
        if self._may_choose:
            self._before, self._began = self._moved(), clock()
            self._choose(False)

    def _choose(self, bulk: bool) -> None:
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


class LoopScheduling:
    """The same for the thread of an event loop, where the bytes of all pipes count together."""

    def __init__(self) -> None:
        self._engines: list[Engine] = []
        self._past = 0  # bytes that others have moved, which are not counted any more
        self._scheduling = BatchScheduling(self._moved)

    @contextlib.contextmanager
    def counting(self, engine: Engine) -> Iterator[None]:
        """Meanwhile, count what this pipe moves.

        Threads and processes inherit the policy: so that what is started for this pipe is prompt,
        this thread is, too, when this begins, and when the last pipe has ended.
        """
        self._scheduling.rest()
        self._engines.append(engine)
        engine.observe(self._scheduling.look)
        try:
            yield
        finally:
            self._engines.remove(engine)
            self._past += _moved_by(engine)
            if not self._engines:
                self._scheduling.rest()

    def _moved(self) -> int:
        return self._past + sum(_moved_by(engine) for engine in self._engines)


def _moved_by(engine: Engine) -> int:
    return engine.writer.sent + engine.reader.received
