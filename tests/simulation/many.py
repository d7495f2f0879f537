"""One seed of a world in which many call at one address, and may have several links each.

As in ``crowd.py``; the listener may allow fewer links than a caller would have.
"""

from __future__ import annotations

import random

from bpipe.net.ways import Links
from tests.simulation.course import Log
from tests.simulation.crowd import Crowd


class Many(Crowd):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    def __init__(self, seed: int, log: Log | None = None) -> None:
        self.links = Links(random.Random(seed).choice((8, 8, 4, 2, 1)))
        super().__init__(seed, log)

    def _links(self) -> int:
        return self.rng.choice((1, 2, 2, 3, 4))
