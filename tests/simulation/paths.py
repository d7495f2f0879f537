"""Two ends, and several paths of known speed and delay between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from bpipe.net.bound import Bound
from bpipe.net.dialers import Dialers
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.ending import Phase
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from tests.simulation.course import Course, Log
from tests.simulation.debts import Books
from tests.simulation.ends import SeededManners, SimulatedConnector
from tests.simulation.judge import Wrong
from tests.simulation.limited_ends import End, Process, Task
from tests.simulation.network import Network
from tests.simulation.weather import Weather

LIMITS: Final = Limits(heartbeat=2.0, connect_timeout=100.0, give_up_after=1e6)


class Path(NamedTuple):
    """What one is like."""

    latency: float  # seconds, one way
    rate: float  # bytes a second
    capacity: int  # bytes that a connection holds

    @property
    def queue(self) -> float:
        """For how many seconds something may be on its way."""
        return self.capacity / self.rate + self.latency

    @property
    def round_trip(self) -> float:
        """Seconds, where nothing is in the way."""
        return 2 * self.latency


class Plan(NamedTuple):
    """What two ends do: that which calls, and that which listens."""

    paths: list[Path]  # one for each link
    tasks: tuple[Task, Task]
    buffer: int  # bytes
    secret: Secret | None = None

    @property
    def rate(self) -> float:
        """Bytes a second, over all paths."""
        return sum(each.rate for each in self.paths)

    def over(self, paths: list[Path]) -> Plan:
        """The same over these paths only."""
        tasks = [task._replace(links=len(paths)) for task in self.tasks]
        return self._replace(paths=paths, tasks=(tasks[0], tasks[1]))


class Quiet(End):
    """An end that nobody listens to."""

    def _trace(self, sign: str, text: str) -> None:
        pass


class Flow(Course):
    """The streams of a plan, from their beginning to their end. ``run`` raises Wrong."""

    STEPS = 400_000

    def __init__(self, seed: int, plan: Plan, log: Log | None = None) -> None:
        super().__init__(seed, log, (1e9,))
        self.plan = plan
        self.networks = [self._make_network(each) for each in plan.paths]
        self.ends = [self._make_end(number) for number in range(2)]
        self.taken_at = [self.began, self.began]  # when each end has taken something
        self.longest = [0.0, 0.0]  # seconds between two of these
        self._taken = [0, 0]
        self._dark = False  # some path is, or was
        self._cues: list[tuple[int, int, Callable[[], None]]] = []
        caller, callee = self.ends
        caller.peer, callee.peer = callee, caller
        callee.begin(self.world, self._accept, calls=False)
        caller.begin(self.world, self._dial, calls=True)
        self.books = Books(caller.session, callee.session, self.networks)
        for end in self.ends:
            end.session.trace = None if log is None else self._tracer(end)

    def _tracer(self, end: End) -> Log:
        return lambda prefix, text: self.note(prefix, f"{end.name}: {text}")

    def _make_network(self, path: Path) -> Network:
        weather = Weather(self.rng, (path.latency, path.latency), path.capacity, rate=path.rate)
        return Network(self.world, weather, self.note, type(begin(self.plan.secret)))

    def _make_end(self, number: int) -> End:
        plan = self.plan
        process = Process(("caller", "callee")[number], self.world, None)
        network, task = self.networks[0], plan.tasks[number]
        return Quiet(process, network, task, LIMITS, plan.buffer, plan.secret, self.fork())

    def _accept(self, session: Session) -> LinkSource:
        loop = cast(Any, asyncio.get_running_loop())
        bound = Bound(cast(Any, [each.listen(loop) for each in self.networks]), "simulated")
        secret, clock = self.plan.secret, self.world.clock
        return Listener(bound, anywhere=True, secret=secret, clock=clock).source(session)

    def _dial(self, session: Session) -> LinkSource:
        manners = [SeededManners.of(self.fork()) for _ in self.networks]
        pairs = zip(self.networks, manners, strict=True)
        connectors = [SimulatedConnector(network, each) for network, each in pairs]
        return Dialers(session, connectors, 1.0, self.world.clock)

    def cue(self, number: int, taken: int, callback: Callable[[], None]) -> None:
        """Call this as soon as this end has taken so many bytes, or the other one has ended."""
        self._cues.append((number, taken, callback))

    def darken(self, number: int, seconds: float) -> None:
        """From now on nothing moves on this path, for so long."""
        self.note("!", f"path {number} is dark for {seconds:.1f} s")
        self._dark = True
        now = self.world.now
        self.networks[number].weather.away.append((now, now + seconds))

    # --- running ---

    def run(self) -> None:
        """To the end of both. Raises Wrong."""
        while not all(each.gone for each in self.ends):
            self.step()
        for end in self.ends:
            if end.error is not None:
                raise Wrong(f"{end.name} reports: {end.error!r}")

    def look(self) -> None:
        now = self.world.now
        for number, end in enumerate(self.ends):
            if end.wrong or end.process.loop.errors:
                raise Wrong(end.wrong or repr(end.process.loop.errors[0]))
            if end.session.phase is Phase.UP and not self._dark:
                self._look_for_failures(end)
            if end.taken != self._taken[number]:
                if self._taken[number]:
                    gap = now - self.taken_at[number]
                    self.longest[number] = max(self.longest[number], gap)
                self._taken[number], self.taken_at[number] = end.taken, now
        if wrong := self.books.look():
            raise Wrong(wrong)
        for cue in self._cues[:]:
            if self._taken[cue[0]] >= cue[1]:
                self._cues.remove(cue)
                cue[2]()

    def _look_for_failures(self, end: End) -> None:
        history = end.session.history
        slots = [history.slot(each) for each in range(end.session.terms.slots)]
        causes = [history.last_cause, *(each.cause for each in slots)]
        if any(causes):
            raise Wrong(f"{end.name}: {causes}, although nothing fails")

    @property
    def took(self) -> float:
        """Seconds from the beginning until all was there."""
        return max(self.taken_at) - self.began

    @property
    def repeated(self) -> int:
        """Bytes that were sent again."""
        return sum(each.session.history.replayed for each in self.ends)

    @property
    def stayed(self) -> float:
        """Seconds from then to the end of both."""
        return max(end.over_at or 0.0 for end in self.ends) - max(self.taken_at)

    def dispose(self) -> None:
        """Let go of everything."""
        for end in self.ends:
            end.process.loop.dispose()
