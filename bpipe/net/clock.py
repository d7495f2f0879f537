"""The one clock of bpipe."""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def clock() -> float:
        """Seconds on a clock that runs on while the machine sleeps.

        So a laptop that wakes up knows at once that its link is old.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    clock = time.monotonic
