"""When a loop, a process or a whole machine stood still: what wakes every 20 ms has woken late.

So that this is not taken for a fault of what is tried. ``python -m tests.support.pulse`` beats in a
process that does nothing else, until its stdin ends, and then says when it woke late.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Final

STEP: Final = 0.02  # seconds
LATE: Final = 0.05  # seconds more, after which it is noted


class Pulse:
    """Notes when a beat was late."""

    def __init__(self) -> None:
        self.late: list[tuple[float, float]] = []  # time.monotonic(), from one beat to the next
        self._last = time.monotonic()

    def beat(self) -> None:
        """Call this every 20 ms."""
        before, self._last = self._last, time.monotonic()
        if self._last - before > STEP + LATE:
            self.late.append((before, self._last))

    def within(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat in this loop, from one of its callbacks on, as long as it runs."""
        self.beat()
        loop.call_later(STEP, self.within, loop)

    def until(self, over: threading.Event) -> None:
        """Beat here, until then."""
        while not over.wait(STEP):
            self.beat()

    def longest(self, since: float, until: float) -> float:
        """The longest time between two beats, as far as it is between these."""
        return max((0.0, *(min(b, until) - max(a, since) for a, b in self.late)))


class Pulses:
    """That of this process, and that of the machine, within ``with``."""

    def __init__(self) -> None:
        self.own, self.machine = Pulse(), Pulse()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self.own.until, args=[self._over], daemon=True)
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Pulses:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        said, _ = self._process.communicate()
        self.machine.late = [(began, woke) for began, woke in json.loads(said)]


def main() -> None:
    """Until stdin ends."""
    pulse, over = Pulse(), threading.Event()
    thread = threading.Thread(target=pulse.until, args=[over])
    thread.start()
    sys.stdin.read()
    over.set()
    thread.join()
    print(json.dumps(pulse.late))


if __name__ == "__main__":
    main()
