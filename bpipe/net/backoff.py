"""How long to wait before the next attempt."""

from __future__ import annotations

import random

FIRST_DELAY = 0.05  # seconds
SHORTEST_CAP = 0.01  # seconds: to retry without any pause would only heat the machine


class Backoff:
    """Exponential backoff with full jitter, from 50 ms up to ``cap`` seconds.

    Full jitter (a delay drawn evenly from zero to the bound) is what spreads many clients best:
    M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, cap: float, rng: random.Random | None = None) -> None:
        self._cap = max(cap, SHORTEST_CAP)
        self._rng = rng or random.Random()
        self._bound = FIRST_DELAY

    def reset(self) -> None:
        """The outage is over."""
        self._bound = FIRST_DELAY

    def next(self) -> float:
        """The next delay in seconds."""
        bound = min(self._bound, self._cap)
        self._bound = bound * 2
        return self._rng.uniform(0, bound)
