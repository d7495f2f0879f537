"""One seed of a world in which a machine is told when its way to the other goes, and is back.

TCP is as patient here as it is: a connection sends again when its timer says so, and the timer
doubles. What may be expected then, of streams that never have to wait for a producer for long:

* With one link, something comes soon after the way is back: a greeting takes three round trips, and
  it begins at once where the end that calls was told. Where the other one was told, it may have to
  find out that nothing comes, and the caller calls when it hears a reset; if both had given the
  link up before, it calls again and again.
* With several, no consumer waits for the way that is away, where both ends were told.

In some of these worlds the kernels tell what is not so. Then all has to be right, in any time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.net.lookout import PROOF
from bpipe.net.routes import SHORTEST, use
from bpipe.net.schedule import OVERLAP
from bpipe.protocol.greeting import begin
from bpipe.protocol.liveness import SILENCE
from tests.simulation.course import Log
from tests.simulation.judge import Wrong
from tests.simulation.kernels import Kernel, Subnet
from tests.simulation.kinds import SECRET
from tests.simulation.limited_ends import End, Task
from tests.simulation.network import Network
from tests.simulation.paths import LIMITS, Flow, Path, Plan
from tests.simulation.weather import Weather

GREETING: Final = 4  # round trips until bytes flow over a new connection
RESET: Final = 1  # one more until the other end has heard of a reset
ROUND_TRIPS: Final = 3  # until a link is doubted of which nobody tells, or
DOUBT: Final = 0.3  # seconds
PAUSE: Final = 0.05  # seconds that a producer waits, at most
BESIDES: Final = 8 * SHORTEST  # seconds: for what is in the way
SETTLED: Final = 1.5  # seconds from one outage to the next, at least
PERIOD: Final = 60  # of so many seeds, one makes such a world:
PLACE: Final = 41  # so it is 1 of 20, in which no other world is special, and never sealed by that
GIVEN_UP: Final = SILENCE * LIMITS.heartbeat  # seconds after which a link is lost


def is_told(seed: int) -> bool:
    """Whether the world of this seed is such a one."""
    return seed % PERIOD == PLACE


class Outage(NamedTuple):
    """One, of one path. Seconds."""

    path: int
    since: float
    until: float


class Told(Flow):
    """The world of one seed. ``run`` raises Wrong."""

    def __init__(self, seed: int, log: Log | None = None) -> None:
        self._numbers = iter(range(8))
        super().__init__(seed, _make_plan(random.Random(seed)), log)
        rng = self.rng
        self.kernels = [Kernel(end.process.loop) for end in self.ends]
        for end, kernel in zip(self.ends, self.kernels, strict=True):
            end.process.loop.run(use, kernel.opened)
        self._knowing = rng.choice(((0,), (1,), (0, 1)))  # which ends are told
        self._lying = rng.random() < 0.3
        self._waits: list[float | None] = [None, None]  # since when a consumer does,
        self._until = [0.0, 0.0]  # and until when it may
        self.world.at(self.began + 1.0, self._lose)

    def _make_network(self, path: Path) -> Network:
        weather = Weather(self.rng, (path.latency, path.latency), path.capacity, rate=path.rate)
        weather.patient = True
        handshake = type(begin(self.plan.secret))
        return Subnet(self.world, weather, self.note, handshake).named(next(self._numbers))

    # --- what happens ---

    def _lose(self) -> None:
        """A path goes, if there is still something to bring."""
        rng, now = self.rng, self.world.now
        if all(end.taken == end.peer.task.length for end in self.ends):
            return
        seconds = rng.choice((0.3, 0.7, 2.0, 4.0, 9.0)) * rng.uniform(0.8, 1.2)
        outage = Outage(rng.randrange(len(self.networks)), now, now + seconds)
        if self._lying and rng.random() < 0.5:
            self._lie(outage)
        else:
            self.darken(outage.path, seconds)
            for each in self._knowing:
                self.ends[each].process.loop.run(self.kernels[each].lose, outage.path)
            if len(self.networks) > 1:
                self._expect(now, [self._sooner(outage, taker) for taker in range(2)])
        self.world.at(outage.until, self._restore, outage)

    def _lie(self, outage: Outage) -> None:
        """One machine is told what is not so."""
        kernel = self.rng.choice(self.kernels)
        tell = self.rng.choice((kernel.lose, kernel.flap))
        self.note("!", f"path {outage.path}: a lie")
        self._in(kernel, tell, outage.path)

    def _in(self, kernel: Kernel, tell: Callable[[int], None], path: int) -> None:
        loop = self.ends[self.kernels.index(kernel)].process.loop
        if not loop.ended:
            loop.run(tell, path)

    def _restore(self, outage: Outage) -> None:
        self.note("!", f"path {outage.path} is back")
        for kernel in self.kernels:
            self._in(kernel, kernel.restore, outage.path)
        if len(self.networks) == 1:
            self._expect(self.world.now, [self._later(outage)] * 2)
        pause = SETTLED * self.rng.uniform(1, 2)
        self.world.at(self.world.now + pause, self._lose)

    # --- what is expected of it ---

    def _look_for_failures(self, end: End) -> None:
        """Who was lied to may believe it."""
        if not self._lying:
            super()._look_for_failures(end)

    def _later(self, outage: Outage) -> float:
        """So many seconds after the way is back something comes over the only link."""
        round_trip = self.plan.paths[0].round_trip
        if 0 in self._knowing:
            return GREETING * round_trip + BESIDES
        if outage.until - outage.since < GIVEN_UP - 1:
            return PROOF + (GREETING + RESET) * round_trip + BESIDES
        return OVERLAP + GREETING * round_trip + BESIDES

    def _sooner(self, outage: Outage, taker: int) -> float:
        """So many seconds after a path has gone something comes over the other."""
        living, gone = self.plan.paths[1 - outage.path], self.plan.paths[outage.path]
        known = 1 - taker in self._knowing  # who has sent what is lost
        doubt = 0.0 if known else max(DOUBT, ROUND_TRIPS * gone.round_trip)
        return doubt + living.queue + PAUSE + BESIDES

    def _expect(self, now: float, limits: list[float]) -> None:
        """From now on consumers may wait for so long."""
        if self._lying:
            return
        for taker, limit in enumerate(limits):
            if self.ends[taker].taken < self.ends[taker].peer.task.length:
                self._waits[taker], self._until[taker] = now, now + limit

    def look(self) -> None:
        super().look()
        for taker, since in enumerate(self._waits):
            if since is None:
                continue
            if self.taken_at[taker] > since:
                self._waits[taker] = None
            elif self.world.now > self._until[taker]:
                waited = self.world.now - since
                raise Wrong(f"{self.ends[taker].name} waits for {waited:.3f} s after the news")


def _make_plan(rng: random.Random) -> Plan:
    count = rng.choice((1, 1, 2))
    paths = [Path(rng.choice((0.0005, 0.005, 0.03)), 2e6, 1 << 17) for _ in range(count)]
    task = Task(rng.choice((150_000, 400_000)), 2000, PAUSE, 1 << 16, 0.0, links=count)
    back = task._replace(length=rng.choice((0, task.length)))
    tasks = (task, back) if rng.random() < 0.5 else (back, task)
    return Plan(paths, tasks, 1 << 18, SECRET if rng.random() < 0.15 else None)
