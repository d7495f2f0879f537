"""What comes out at a consumer: when, and how many bytes; and what that says of a path."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from tests.bench.processes import PATIENCE, Stuck

STEP: Final = 0.1  # seconds between two beginnings of a window

_LOOK: Final = 0.05  # seconds until an end is noticed


class Arrivals:
    """When something came, by any clock, and how many bytes."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._sums = [0]  # the bytes before each of them

    def add(self, at: float, count: int) -> None:
        """So many came now."""
        self._sums.append(self._sums[-1] + count)
        self._times.append(at)

    @property
    def first(self) -> float | None:
        """When the first byte came."""
        return self._times[0] if self._times else None

    def moved(self, since: float, until: float) -> int:
        """The bytes that came from one time to the other."""
        first, last = (bisect_left(self._times, at) for at in (since, until))
        return self._sums[last] - self._sums[first]

    def windows(self, since: float, until: float, seconds: float) -> list[int]:
        """The bytes that came in so many seconds, wherever these begin between both times."""
        count = max(0, int((until - since - seconds) / STEP + 1e-6)) + 1
        starts = (since + STEP * number for number in range(count))
        return [self.moved(start, start + seconds) for start in starts]

    def gap(self, since: float, until: float) -> float:
        """The longest time in which nothing came."""
        first, last = (bisect_left(self._times, at) for at in (since, until))
        return max(b - a for a, b in pairwise([since, *self._times[first:last], until]))

    def after(self, when: float) -> float:
        """How soon something came from then on, in seconds; infinite: nothing did."""
        number = bisect_left(self._times, when)
        return self._times[number] - when if number < len(self._times) else math.inf


@contextlib.contextmanager
def arriving(descriptors: Sequence[int]) -> Iterator[Arrivals]:
    """What comes out of all these, by ``time.monotonic()``, as long as the ``with`` goes on."""
    arrivals, over = Arrivals(), threading.Event()
    thread = threading.Thread(target=_read, args=[arrivals, set(descriptors), over], daemon=True)
    thread.start()
    try:
        yield arrivals
    finally:
        over.set()
        thread.join()


def _read(arrivals: Arrivals, descriptors: set[int], over: threading.Event) -> None:
    with contextlib.suppress(OSError):  # what is read late looks as if it had come late
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    while descriptors and not over.is_set():
        for descriptor, _ in poll.poll(_LOOK * 1000):
            if data := os.read(descriptor, 1 << 18):
                arrivals.add(time.monotonic(), len(data))
            else:
                poll.unregister(descriptor)
                descriptors.remove(descriptor)


def wait_first(arrivals: Arrivals) -> float:
    """Wait for the first byte; returns when it came."""
    until = time.monotonic() + PATIENCE
    while (at := arrivals.first) is None:
        if time.monotonic() > until:
            raise Stuck("nothing comes out")
        time.sleep(_LOOK)
    return at
