"""One seed of a world in which many call at one address, and each has a session of its own.

As in ``scenario.py``: first there are faults, then there are none, and everybody has to finish.
Here it is the production server that listens; a few sessions are all that it allows. Callers come
when they like, more of them than there is room for; some are killed, also when they were let in
and not heard yet; some abort; strangers come, too. The server may be stopped, or start anew.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from bpipe.net.ways import Links
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.wire import MOST_LINKS, Hello, Opening, Position, pack_frame
from bpipe.protocol.wire import Kind as FrameKind
from bpipe.server import Terms
from tests.simulation.course import Course, Log
from tests.simulation.crowd_judge import CrowdJudge
from tests.simulation.host import Host
from tests.simulation.judge import Wrong
from tests.simulation.kinds import SECRET, Kind, make_weather
from tests.simulation.loop import Loop
from tests.simulation.network import Network
from tests.simulation.visitors import MANNERS, Caller, Order
from tests.simulation.weather import Weather

FINISHED_WITHIN = 600.0  # seconds: all callers, once the faults are over; few take 130
ENDED_WITHIN = 400.0  # seconds: a server that was stopped, after its last caller has left
AFTERWARDS = 3.0  # seconds in which what was refused has gone, too
GIVE_UP_AFTER = 200.0  # seconds, once the faults are over: longer than there were any

PERIOD = 60  # of so many seeds, one makes such a world:
PLACE = 49  # so it is 9 of 20, in which no other world is special, and never sealed by its number


def is_crowded(seed: int) -> bool:
    """Whether many call in the world of this seed."""
    return seed % PERIOD == PLACE


class Crowd(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 400_000

    links = Links(MOST_LINKS)  # that each session may have here

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 10.0, 40.0, 120.0))
        rng = self.rng
        self.secret = SECRET if rng.random() < 0.25 else None
        self.kind = Kind.of(seed)._replace(secret=self.secret)
        self.peaceful = rng.random() < 0.2
        self.patient = rng.random() < 0.8
        self.most = rng.randint(1, 4)
        self.counts: Counter[str] = Counter()  # of what is rare, to see that it happens
        self._weathers: list[Weather] = []
        self.networks = self._make_networks(rng.randint(2, 6))
        self.ends = [self._make_caller(number) for number in range(len(self.networks))]
        self.strangers = Loop(self.world, "strangers")
        self.hosts: list[Host] = []
        self._fatal: dict[Caller, Callable[[], None]] = {}  # what is done when it was let in
        self._listen()
        self.judge = CrowdJudge(self.world, self.ends, self.hosts)
        self.judge.patient, self.judge.peaceful = self.patient, self.peaceful
        self.judge.roomy = self.peaceful and len(self.ends) <= self.most
        self._plan_for_callers()
        self._plan_for_the_server()

    # --- who is there ---

    def _make_networks(self, count: int) -> list[Network]:
        """The paths of the callers: each of its own, or all of one weather."""
        handshake = type(begin(self.secret))
        apart = self.rng.random() < 0.5
        networks = []
        for number in range(count):
            if apart or not number:
                self._weathers.append(self._make_weather())
            weather = self._weathers[-1]
            networks.append(Network(self.world, weather, self.note, handshake))
        return networks

    def _make_weather(self) -> Weather:
        weather = make_weather(self.rng, self.kind, self.world.now, self.faults_until)
        if self.peaceful:
            weather.faulty = weather.hiccups = weather.stragglers = 0.0
            weather.latency = min(weather.latency, (0.01, 0.05))
            weather.away = []
        return weather

    def _make_limits(self) -> Limits:
        rng = self.rng
        limits = Limits(heartbeat=rng.choice((0.5, 2.0)), connect_timeout=100.0)
        if self.patient:
            return limits
        return limits._replace(
            connect_timeout=rng.choice((3.0, 30.0)),
            give_up_after=rng.choice((3.0, 20.0)),
            linger=rng.choice((1.0, 30.0)),
        )

    def _make_caller(self, number: int) -> Caller:
        rng = self.rng
        buffer_size = rng.choice((17, 600, 5000, 60000))
        span = self.faults_until - self.world.now
        delay = rng.choice((0.0, 0.0, rng.random(), rng.random() * span))
        order = Order(
            number=number,
            length=min(rng.choice((0, 1, 100, 3000, 10000)), 15 * buffer_size),
            manner=rng.choice(list(MANNERS)),
            comes_at=self.world.now + delay,
            buffer_size=buffer_size,
            limits=self._make_limits(),
            secret=self.secret,
            retry_max=rng.choice((0.3, 1.0, 5.0)),
            pause=rng.choice((0.01, 0.5)),
            links=self._links(),
        )
        return Caller(self.world, order, self.networks[number], random.Random(rng.getrandbits(64)))

    def _links(self) -> int:
        """How many a caller would have at once."""
        return 1

    def _listen(self) -> None:
        """Somebody begins to serve, who knows nobody."""
        rng = self.rng
        buffer_size = rng.choice((600, 5000, 60000))
        terms = Terms(secret=self.secret, insecure=True, buffer_size=buffer_size)
        terms = terms._replace(limits=self._make_limits(), links=self.links)
        host = Host(f"server {len(self.hosts)}", self.world, self.most, terms, self.ends)
        host.let_in = self._let_in
        if self.world.now >= self.faults_until:
            host.give_up_after(GIVE_UP_AFTER)
        self.hosts.append(host)
        for network in self.networks:
            network.lead_to(host.listening)

    # --- what the seed chooses ---

    def _sometime(self, since: float, callback: Callable[[], None]) -> None:
        rng = self.rng
        span = max(0.0, self.faults_until - since)
        delay = rng.choice((0.0, rng.random() * 0.2, rng.random(), rng.random() * span))
        self.world.at(since + delay, callback)

    def _plan_for_callers(self) -> None:
        rng = self.rng
        for caller in self.ends:
            if rng.random() > 0.45:
                continue
            what = rng.choice(("kill", "kill unheard", "kill unheard", "abort", "reconnect"))
            if what == "kill unheard":
                self._fatal[caller] = self._do("kill", caller, caller.kill)
                continue
            act = {"kill": caller.kill, "abort": caller.abort, "reconnect": caller.reconnect}[what]
            for _ in range(rng.randint(1, 3) if what == "reconnect" else 1):
                self._sometime(caller.order.comes_at, self._do(what, caller, act))

    def _do(self, what: str, process: Caller | Host, act: Callable[[], None]) -> Callable[[], None]:
        def do() -> None:
            self.note("%", f"{process.name}: {what}")
            self.counts[what] += 1
            act()

        return do

    def _let_in(self, id: bytes | None) -> None:
        """A caller was just let in: its READY is on the way."""
        for caller, act in list(self._fatal.items()):
            if caller.session.id == id:
                del self._fatal[caller]
                self.world.at(self.world.now, act)

    def _plan_for_the_server(self) -> None:
        rng, host = self.rng, self.hosts[0]
        now = self.world.now
        if rng.random() < 0.3 and not self.judge.roomy:
            for _ in range(rng.randint(1, 5)):
                self._sometime(now, self._stranger)
        what = rng.random()
        if what < 0.2:
            self._sometime(now, self._do("stop", host, host.stop))
        elif what < 0.35:
            self._sometime(now, self._do("start anew", host, self._start_anew))
        elif what < 0.42:
            self._sometime(now, self._do("leave", host, host.leave))
        self.judge.roomy = self.judge.roomy and what >= 0.42
        if not self.peaceful and rng.random() < 0.15:
            seconds = rng.choice((0.5, 5.0, 30.0))
            asleep = rng.random() < 0.5
            if now + 1.0 + seconds < self.faults_until:
                self.world.at(now + rng.random(), lambda: self._pause(seconds, asleep=asleep))

    def _pause(self, seconds: float, *, asleep: bool) -> None:
        self.hosts[-1].pause(seconds, asleep=asleep)

    def _start_anew(self) -> None:
        host = self.hosts[-1]
        if host.stopped:
            return
        host.kill()
        delay = self.rng.choice((0.0, 0.5, 10.0))
        self.world.at(self.world.now + delay, self._listen)

    # --- strangers ---

    def _stranger(self) -> None:
        """Somebody connects who is no caller: with junk, with greetings, or with old ones."""
        if self.hosts[-1].gone:
            return
        rng = self.rng
        hello = Hello(
            rng.choice(list(Opening)), rng.randbytes(16), rng.randint(1, 9), Position(0, 0, 9)
        )
        packed = begin(self.secret).pack_hello(hello)
        messages = [rng.randbytes(80), packed, packed[:30], b"", *self._replays()]
        messages += self._usurpers()
        if self.secret is None:
            opening = begin(None).pack_hello(hello._replace(opening=Opening.OPEN))
            confirmed = opening + pack_frame(FrameKind.CONFIRM, 0)
            messages += [confirmed, confirmed, confirmed + rng.randbytes(50)]
            messages.append(confirmed + pack_frame(FrameKind.PING, 0))  # it is heard, and stays
        message = rng.choice(messages)
        self.note("!", f"a stranger says {len(message)} bytes")
        network, loop = rng.choice(self.networks), self.strangers

        async def visit() -> None:
            try:
                sock = await network.connect(loop)
                if message:
                    sock.sendmsg([memoryview(message)])
            except OSError:
                pass

        loop.run(loop.create_task, visit())

    def _replays(self) -> list[bytes]:
        """Old greetings, word by word."""
        return [
            bytes(old)
            for network in self.networks
            for old in network.recorded
            if len(old) == network.seams_up[-1] and old[5] == Opening.RESUME
        ]

    def _usurpers(self) -> list[bytes]:
        """Greetings that ask for somebody's session.

        Sealed: by who has the secret, and not the session's own. Else without a CONFIRM.
        """
        found = []
        for guest in self.hosts[-1].guests:
            session = guest.session
            if session.id is None or session.over or not session.established:
                continue
            where = Position(session.writer.acked, session.writer.acked, session.writer.window)
            hello = Hello(Opening.RESUME, session.id, session.epoch + 1000, where)
            junk = self.rng.randbytes(32) if self.secret is not None else b""
            found.append(begin(self.secret).pack_hello(hello) + junk)
        return found

    # --- running ---

    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong."""
        while self.world.now < self.faults_until and not self._all_gone():
            self.step()
        self._calm()
        deadline = self.world.now + FINISHED_WITHIN
        while not self._all_gone() or self.hosts[-1].killed:
            self.step()
            if self.world.now > deadline:
                raise Wrong("not finished in time")
        host = self.hosts[-1]
        self.note("=", "all callers have left")
        host.stop()
        deadline = self.world.now + ENDED_WITHIN
        while not host.gone:
            self.step()
            if self.world.now > deadline:
                raise Wrong("a server that was stopped does not end")
        until = self.world.now + AFTERWARDS
        while self.world.now < until and not self.world.idle:
            self.step()
        self.judge.finish()
        self._count()

    def _calm(self) -> None:
        self.note("=", "the faults are over")
        for weather in self._weathers:
            weather.calm(self.world.now)
        self.judge.calm_at = self.world.now
        host = self.hosts[-1]
        processes: list[Caller | Host] = [*self.ends, host]
        for process in processes:
            process.give_up_after(GIVE_UP_AFTER)
        host.loop.stay_awake()

    def _all_gone(self) -> bool:
        return all(caller.gone for caller in self.ends)

    def look(self) -> None:
        self.judge.look()

    def _count(self) -> None:
        """What has happened here."""
        callers = self.ends
        self.counts += Counter(
            {
                "worlds": 1,
                "sealed": self.secret is not None,
                "peaceful": self.peaceful,
                "callers": len(callers),
                "served": sum(caller.visit is not None for caller in callers),
                "success": sum(
                    caller.over_at is not None and not caller.error for caller in callers
                ),
                "refusals for a limit": sum(caller.full for caller in callers),
                "sessions that gave way": sum(len(host.gave_way) for host in self.hosts),
                "links": sum(caller.session.history.links for caller in callers),
            }
        )
        self.counts += Counter(type(each.error).__name__ for each in callers if each.error)

    def dispose(self) -> None:
        """Let go of everything."""
        ends, hosts = self.ends, self.hosts
        for loop in (*(each.loop for each in ends), *(each.loop for each in hosts)):
            loop.dispose()
        self.strangers.dispose()
