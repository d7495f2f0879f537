"""How long to wait before the next attempt."""

from __future__ import annotations

import random

FIRST_DELAY = 0.05  # seconds
SHORTEST_CAP = 0.01  # seconds: to retry without any pause would only heat the machine


class Backoff:
    """Exponential backoff with jitter: bounds from ``first`` seconds up to ``cap`` seconds.

    A delay is drawn evenly from the upper part of its bound, ``drawn`` of it. All of it, which is
    called full jitter, is what spreads many clients best: M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(
        self,
        cap: float,
        rng: random.Random | None = None,
        *,
        first: float = FIRST_DELAY,
        drawn: float = 1.0,
    ) -> None:
        self.cap = max(cap, SHORTEST_CAP)
        self._rng = rng or random.Random()
        self._first = self._bound = first
        self._drawn = drawn

    def reset(self) -> None:
        """The outage is over."""
        self._bound = self._first

    def next(self) -> float:
        """The next delay in seconds."""
        bound = min(self._bound, self.cap)
        self._bound = bound * 2
        return self._rng.uniform(bound * (1 - self._drawn), bound)
