"""One seed of a world in which processes have a rate, one for all of their sessions.

A hub has one session or several, each with a peer in a process of its own. The hub has a rate, or
its peers have, or both; it is changed in the middle of the streams, to none and from none, too.
In some worlds nothing else is the limit, and nothing fails: there it is looked whether the rate is
also reached, and shared fairly. In the others everything fails as everywhere, and is over one day.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

from bpipe.net.backoff import Backoff
from bpipe.net.bound import Bound
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import SLOWEST
from bpipe.protocol.session import Session
from tests.simulation.course import Course, Log
from tests.simulation.ends import SimulatedConnector
from tests.simulation.judge import Wrong
from tests.simulation.kinds import SECRET, Kind, make_weather
from tests.simulation.limited_ends import End, Process, Task
from tests.simulation.limited_judge import LimitedJudge
from tests.simulation.network import Network, Socket
from tests.simulation.weather import Weather

PERIOD: Final = 60  # of so many seeds, one makes such a world:
PLACE: Final = 9  # so it is 9 of 20, in which no other world is special, and never sealed by that

FASTEST: Final = 10 << 20  # bytes a second
MOST: Final = 8 << 20  # bytes of all streams together
A_WHILE: Final = (30.0, 30.0, 3600.0)  # seconds
FINISHED_WITHIN: Final = 500.0  # seconds, once the faults are over, and what the rate makes of it


def has_a_rate(seed: int) -> bool:
    """Whether there is one in the world of this seed."""
    return seed % PERIOD == PLACE


class Limited(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 600_000
    END: ClassVar[type[End]] = End
    JUDGE: ClassVar[type[LimitedJudge]] = LimitedJudge

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 10.0, 40.0))
        rng = self.rng
        self.secret = SECRET if rng.random() < 0.3 else None
        self.plenty = rng.random() < 0.5
        self.sleepy = rng.random() < 0.2
        self._waiting: list[tuple[Process, int]] = []  # whose rate changes when a frame has begun
        self._weathers: list[Weather] = []
        self._ways: dict[Network, list[Network]] = {}  # by the first of them
        self._kind = Kind.of(seed)._replace(secret=self.secret)
        self.rate = int(SLOWEST * (FASTEST / SLOWEST) ** rng.random())
        self._seconds = rng.choice((2.0, 5.0, 15.0))  # for the streams of a process
        count = rng.choice((1, 1, 1, 2, 3, 4))
        self.hub, self.peers = self._make_processes(count)
        self.processes = [self.hub, *self.peers]
        self.ends = self._make_ends()
        self.judge = self.JUDGE(self.processes, self.world, plenty=self.plenty)
        self._begin()
        self._plan()

    # --- who is there ---

    def _make_processes(self, count: int) -> tuple[Process, list[Process]]:
        """Somebody has a rate; the hub's is for all, and so higher."""
        rng = self.rng
        whose = rng.choice(("hub", "hub", "peers", "both", "both"))
        rates = [
            rng.choice((0, self.rate, self.rate, min(FASTEST, 3 * self.rate))) for _ in range(count)
        ]
        none = None if rng.random() < 0.5 else 0
        hub = Process("hub", self.world, none if whose == "peers" else rng.choice((self.rate, 0)))
        peers = [
            Process(f"peer {number}", self.world, none if whose == "hub" else rate)
            for number, rate in enumerate(rates)
        ]
        return hub, peers

    def _make_ends(self) -> list[End]:
        rng, ends = self.rng, []
        heartbeat = 20.0 if self.sleepy else rng.choice((0.5, 2.0, 5.0))
        if self.secret is not None and not self.plenty:  # else a frame may come, byte by byte
            heartbeat = min(heartbeat, 2.0)
        limits = Limits(heartbeat=heartbeat, connect_timeout=500.0, give_up_after=1e6)
        for peer in self.peers:
            if not self._weathers or rng.random() < 0.5:
                self._weathers.append(self._make_weather())
            network = self._make_network(self._weathers[-1])
            self._ways[network] = self._make_ways(network)
            buffers = [self._buffer() for _ in range(2)]
            pair = [
                self.END(each, network, self._task(buffer, self._weathers[-1]), limits, buffer,
                    self.secret, random.Random(rng.getrandbits(64)))
                for each, buffer in zip((self.hub, peer), buffers, strict=True)
            ]  # fmt: skip
            for near, far in (pair, pair[::-1]):
                near.peer = far
            ends += pair
        return ends

    def _make_network(self, weather: Weather) -> Network:
        return Network(self.world, weather, self.note, type(begin(self.secret)))

    def _make_ways(self, network: Network) -> list[Network]:
        """All that lead from one end to the other, of which this is one."""
        return [network]

    def _buffer(self) -> int:
        if self.plenty:
            return self.rng.choice((1, 4)) * max(self.rate, 1 << 16)
        return self.rng.choice((17, 600, 5000, 60000, 1 << 20))

    def _task(self, buffer: int, weather: Weather) -> Task:
        rng = self.rng
        length = int(self._seconds * self.rate / len(self.peers))
        if self.plenty:
            length = min(length, MOST // (2 * len(self.peers)))
            task = Task(rng.choice((0, length, length)), 1 << 16, 0.0, 1 << 18, 0.0)
        else:
            length = min(length, 15 * buffer, 60 * weather.capacity, 60 * weather.reach)
            task = Task(
                rng.choice((0, 1, length, length)), max(2000, length // 3),
                rng.choice((0.0, 0.01, 0.5)), rng.choice((1000, 60000)), rng.choice((0.0, 0.01)),
            )  # fmt: skip
            task = task._replace(length=min(task.length, 60 * task.appetite))
        if self.sleepy and task.length > 1 and rng.random() < 0.7:
            sleeps_at, sleeps = rng.randint(1, task.length), rng.choice(A_WHILE)
            if len(self.peers) > 1:  # an hour of many costs seconds
                sleeps = min(A_WHILE)
            task = task._replace(sleeps_at=sleeps_at, sleeps=sleeps)
        return task

    def _make_weather(self) -> Weather:
        weather = make_weather(self.rng, self._kind, self.world.now, self.faults_until)
        if self.plenty:
            weather.faulty = weather.hiccups = weather.stragglers = 0.0
            weather.latency, weather.away, weather.capacity = (0.0, 0.001), [], 1 << 20
        return weather

    def _begin(self) -> None:
        hub_calls = self.rng.random() < 0.5
        for end in self.ends:
            end.watcher = self.judge
        for near, far in zip(self.ends[::2], self.ends[1::2], strict=True):
            callee, caller = (far, near) if hub_calls else (near, far)
            self._tap(near.network, caller, callee)
            callee.begin(self.world, self._accept(callee), calls=False)
            caller.begin(self.world, self._dial(caller), calls=True)

    def _tap(self, network: Network, caller: End, callee: End) -> None:
        def left(sock: Socket, count: int) -> None:
            (caller if sock.calls else callee).put(sock, count)

        network.left = left

    def _accept(self, end: End) -> Callable[[Session], LinkSource]:
        def accept(session: Session) -> LinkSource:
            loop = cast(Any, asyncio.get_running_loop())
            socks = [each.listen(loop) for each in self._ways[end.network]]
            bound = Bound(cast(Any, socks), "simulated")
            clock = self.world.clock
            return Listener(bound, anywhere=True, secret=self.secret, clock=clock).source(session)

        return accept

    def _dial(self, end: End) -> Callable[[Session], LinkSource]:
        backoff = Backoff(self.rng.choice((0.3, 1.0)), self.fork())
        return lambda session: Dialer(
            session, SimulatedConnector(end.network), backoff, self.world.clock
        )

    # --- what the seed chooses ---

    def _plan(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            when, midway = rng.random() * min(self._seconds, 20.0), rng.random() < 0.5
            self._at(when, self._wait if midway else self._change, *self._other_rate())
        if not self.plenty and rng.random() < 0.4:
            for _ in range(rng.randint(1, 3)):
                self._at(rng.random() * self._seconds, rng.choice(self.ends).reconnect)
        for process in self.processes:  # in the end it is not for ever
            if process.bucket is not None:
                self._at(min(self._seconds, 20.0), self._change, process, max(self.rate, 1 << 15))

    def _at(self, delay: float, callback: Callable[..., None], *args: Any) -> None:
        self.world.at(self.began + delay, callback, *args)

    def _other_rate(self) -> tuple[Process, int]:
        rng = self.rng
        process = rng.choice([each for each in self.processes if each.bucket is not None])
        faster, slower = min(FASTEST, 9 * self.rate), max(SLOWEST, self.rate // 9)
        return process, rng.choice((faster, slower, slower, SLOWEST, self.rate, 0))

    def _wait(self, process: Process, rate: int) -> None:
        """Change it when a frame has begun, a little later."""
        self._waiting.append((process, rate))

    def _look_who_waits(self) -> None:
        for process, rate in self._waiting[:]:
            senders = [*process.ends, *(each.peer for each in process.ends)]
            if any(each.midway for each in senders):
                self._waiting.remove((process, rate))
                self._change(process, rate)

    def _change(self, process: Process, rate: int) -> None:
        if process.bucket is not None and not process.gone and rate != process.rate:
            self.note("%", f"{process.name}: the rate is {rate}")
            process.bucket.change(rate)
            self.judge.changed(process)
            process.drive()

    # --- running ---

    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong."""
        while self.world.now < self.faults_until and not self._all_gone():
            self.step()
        self.note("=", "the faults are over")
        for weather in self._weathers:
            weather.calm(self.world.now)
        for end in self.ends:
            end.calm()
        slept = sum(each.task.sleeps for each in self.ends)
        deadline = max(self.world.now, self.began + 20.0) + slept + FINISHED_WITHIN
        deadline += sum(each.task.length for each in self.ends) / max(self.rate, 1 << 15)
        while not self._all_gone():
            self.step()
            if self.world.now > deadline:
                raise Wrong("not finished in time")
        self.judge.finish()

    def _all_gone(self) -> bool:
        return all(each.gone for each in self.processes)

    def look(self) -> None:
        self.judge.look()
        if self._waiting:
            self._look_who_waits()

    def dispose(self) -> None:
        """Let go of everything."""
        for each in self.processes:
            each.loop.dispose()
