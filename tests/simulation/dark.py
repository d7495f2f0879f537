"""One seed of a world in which several paths are known, and so how well they have to be used.

Some go dark in the middle of a stream, or at its end; or all but one are much slower than that one;
or the producer is slower than any. What may be expected then:

* A consumer waits no longer than three round trips of what went dark, 0.3 s, and as long as
  something may be on its way over what is left. Both ends leave in that time, too, and in the
  second that is given to a link to close.
* Paths that are slow do not make a stream slower than it is without them; but its last bytes may
  come over them. Where there is room for all that may be under way, they make it as much faster as
  they are fast.
* What is sent again is bounded.
"""

from __future__ import annotations

import math
import random
from typing import Final

from bpipe.net.farewell import CLOSE_TIMEOUT
from tests.simulation.course import Log
from tests.simulation.judge import Wrong
from tests.simulation.kinds import SECRET
from tests.simulation.limited_ends import End, Task
from tests.simulation.loop import World
from tests.simulation.paths import Flow, Path, Plan

ROUND_TRIPS: Final = 3
BESIDES: Final = 0.3  # seconds
FOR_EVER: Final = 1e5  # seconds
SLOWER: Final = 1.05  # than without the slow paths, at most
MOST: Final = 3_000_000  # bytes of a stream
OFTEN: Final = 0.5  # of the streams may be sent again, where they are faster than a path
SELDOM: Final = 0.25  # the same where they are slower
A_LITTLE: Final = 1 << 16  # bytes that each link may have sent again besides


class Dark:
    """The world of one seed. ``run`` raises Wrong if less is made of the paths than could be."""

    def __init__(self, seed: int, log: Log | None = None) -> None:
        self.rng = random.Random(seed)
        self._seed = seed
        self._log = log
        self._run = self.rng.choice((self._go_dark, self._go_dark, self._be_slow, self._drip))
        self._others: list[Flow] = []
        self.plan = self._make_plan()
        self.flow = Flow(seed, self.plan, log)

    # --- what it is like ---

    def _make_path(self, slowest: float = 0.3e6, fastest: float = 5e6) -> Path:
        latency, rate = self._between(0.001, 0.15), self._between(slowest, fastest)
        capacity = self.rng.choice((1, 2)) * 2 * latency * rate
        return Path(latency, rate, int(max(32768, capacity)))

    def _between(self, least: float, most: float) -> float:
        return math.exp(self.rng.uniform(math.log(least), math.log(most)))

    def _make_plan(self) -> Plan:
        rng = self.rng
        paths = [self._make_path() for _ in range(rng.randint(2, 4))]
        if self._run == self._be_slow:
            paths[1:] = [self._make_path(paths[0].rate / 50, paths[0].rate / 2) for _ in paths[1:]]
        rate = sum(each.rate for each in paths)
        slowest = max(each.queue for each in paths)
        length = int(min(MOST, rng.choice((1.0, 3.0)) * rate))
        task = Task(length, 1 << 16, 0.0, 1 << 18, 0.0, links=len(paths))
        if self._run == self._drip:
            piece = rng.choice((100, 4000, 16000))
            pause = 4 * piece / max(each.rate for each in paths) + rng.choice((0.0, 0.01, 0.1))
            task = task._replace(piece=piece, pause=pause, length=min(length, 200 * piece))
        back = task._replace(length=rng.choice((0, 0, task.length // 3)))
        tasks = (task, back) if rng.random() < 0.5 else (back, task)
        buffer = int(rng.choice((2 * rate * slowest, 4 * rate * slowest, 4 * length)))
        if self._run == self._be_slow and rng.random() < 0.5:
            buffer = int(2 * paths[0].rate * paths[0].queue)
        return Plan(paths, tasks, max(1 << 18, buffer), SECRET if rng.random() < 0.15 else None)

    # --- what is expected of it ---

    def run(self) -> None:
        """Run to the end. Raises Wrong."""
        self._run()

    def _go_dark(self) -> None:
        rng, flow, paths = self.rng, self.flow, self.plan.paths
        count = rng.randint(1, len(paths) - 1)
        dark = rng.sample(range(len(paths)), count)
        taker = 0 if self.plan.tasks[1].length > self.plan.tasks[0].length else 1
        length = self.plan.tasks[1 - taker].length
        at = rng.choice((length, int(length * rng.random())))
        seconds = rng.choice((0.3, 2.0, FOR_EVER))

        def darken() -> None:
            for number in dark:
                flow.darken(number, seconds)

        flow.cue(taker, at, darken)
        flow.run()
        living = [each for number, each in enumerate(paths) if number not in dark]
        self._judge([paths[number] for number in dark], living)

    def _judge(self, dark: list[Path], living: list[Path]) -> None:
        trip, way = max(each.round_trip for each in dark), max(each.queue for each in living)
        both = all(each.length for each in self.plan.tasks)
        limit = ROUND_TRIPS * trip + BESIDES + way * (2 if both else 1)
        if max(self.flow.longest) > limit:
            raise Wrong(f"a consumer has waited for {max(self.flow.longest):.3f} s of {limit:.3f}")
        if self.flow.stayed > limit + CLOSE_TIMEOUT:
            raise Wrong(f"an end has stayed for {self.flow.stayed:.3f} s of {limit:.3f}")
        self._judge_repeats(OFTEN, sum(each.capacity for each in dark))

    def _be_slow(self) -> None:
        flow, (best, *slow) = self.flow, self.plan.paths
        flow.run()
        alone = Flow(self._seed, self.plan.over([best]))
        self._others.append(alone)
        alone.run()
        tail = max(min(each.queue, ROUND_TRIPS * each.round_trip + BESIDES) for each in slow)
        limit = SLOWER * alone.took + 2 * best.queue + tail
        if flow.took > limit:
            raise Wrong(f"{flow.took:.3f} s over all paths, and {alone.took:.3f} over the best")
        self._judge_sum()
        self._judge_repeats(OFTEN)

    def _judge_sum(self) -> None:
        """The paths add up, but for the greetings, and for what fills them and comes last."""
        paths, plan = self.plan.paths, self.plan
        queue = max(each.queue for each in paths)
        least = max(each.length for each in plan.tasks) / plan.rate
        limit = SLOWER * least + 2 * queue + ROUND_TRIPS * max(each.round_trip for each in paths)
        if plan.buffer > 2 * plan.rate * queue and self.flow.took > limit:
            raise Wrong(f"{self.flow.took:.3f} s over paths that need {least:.3f} together")

    def _drip(self) -> None:
        self.flow.run()
        self._judge_repeats(SELDOM)

    def _judge_repeats(self, most: float, lost: int = 0) -> None:
        """``most`` of the streams may be sent again, what is ``lost``, and a little on a link."""
        length = sum(each.length for each in self.plan.tasks)
        if self.flow.repeated > most * length + lost + A_LITTLE * len(self.plan.paths):
            raise Wrong(f"{self.flow.repeated} bytes of {length} were sent again")

    # --- what others want to know of it ---

    @property
    def ends(self) -> list[End]:
        """The two."""
        return self.flow.ends

    @property
    def world(self) -> World:
        """Its time."""
        return self.flow.world

    @property
    def began(self) -> float:
        """When that was."""
        return self.flow.began

    def dispose(self) -> None:
        """Let go of everything."""
        for flow in (self.flow, *self._others):
            flow.dispose()
