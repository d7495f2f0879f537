"""The one clock of bpipe."""

from __future__ import annotations

import time
from functools import partial

# In seconds, on a clock that runs on while the machine sleeps, where there is one: so a laptop
# that wakes up knows at once that its link is old.
clock = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)
