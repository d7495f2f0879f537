"""So much is to happen, in runs that have numbers: several threads play them until it has."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable


class Quota:
    """What has happened, by kind, and what was wrong; used by several threads.

    ``line`` says where it stands; it is printed after each hundred.
    """

    def __init__(self, wanted: int, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.runs = 0
        self.wrong: list[str] = []
        self.seed = seed
        self._wanted = wanted
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._shown = 0

    def next(self) -> int | None:
        """The number of the next run; None if enough has happened, or much is wrong."""
        with self._lock:
            enough = self.happened.total() >= self._wanted or len(self.wrong) > 5
            return None if enough else next(self._numbers)

    def fail(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.wrong.append(what)

    @property
    def seconds(self) -> float:
        """Since it has begun."""
        return time.monotonic() - self._began

    def line(self) -> str:
        """Where it stands."""
        raise NotImplementedError

    def _show(self) -> None:
        """With the lock held: perhaps it is time to say where it stands."""
        if self.happened.total() >= self._shown + 100:
            self._shown = self.happened.total() // 100 * 100
            print(self.line(), flush=True)

    def play(self, run: Callable[[int], None], jobs: int, only: int | None = None) -> None:
        """Play runs, so many at once, until there is enough; or one of them, again."""

        def work() -> None:
            while (number := self.next()) is not None:
                run(number)

        if only is not None:
            run(only)
            return
        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
