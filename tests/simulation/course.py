"""What all simulated worlds have: dice, a clock that goes from one event to the next, and a log."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from tests.simulation.judge import Wrong
from tests.simulation.loop import World

Log = Callable[[str, str], None]


class Course(ABC):
    """How a world goes, from its seed on. ``faults``: for how many seconds there may be some."""

    STEPS: ClassVar[int]  # more than any good world needs

    def __init__(self, seed: int, log: Log | None, faults: Sequence[float]) -> None:
        self.rng = random.Random(seed)
        self.world = World()
        self.began = self.world.now
        self.faults_until = self.began + self.rng.choice(faults)
        self._log = log
        self._turns = 0  # of all processes, when they were looked at last

    def note(self, prefix: str, text: str) -> None:
        """For the log."""
        if self._log is not None:
            self._log(prefix, f"{self.world.now - self.began:9.4f} {text}")

    def fork(self) -> random.Random:
        """Another source of what is random."""
        return random.Random(self.rng.getrandbits(64))

    @abstractmethod
    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong if a promise is broken."""

    @abstractmethod
    def look(self) -> None:
        """A process has done something: is it right? Raises Wrong."""

    def step(self) -> None:
        """Let one thing happen."""
        if self.world.idle:
            raise Wrong("nothing will ever happen any more")
        self.world.step()
        if self.world.steps > self.STEPS:
            raise Wrong("it goes round in circles")
        if self.world.turns > self._turns:  # else only the network has moved something
            self._turns = self.world.turns
            self.look()
