"""One seed: the world that it makes, what must hold in it, and how it has to end.

Phase one has faults, a random choice of them for each seed ("swarm testing": Groce et al., ISSTA
2012). After every step: what was taken is a prefix of what was written, and the cursors of the
two ends are in order. Phase two has none: both ends must finish, and what they report must be so.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from bpipe.errors import PeerAborted, PipeClosed, SessionLost
from bpipe.net.listener import Listener
from bpipe.protocol.handshake import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.wire import Hello, Opening, Position, Reason, pack_hello
from tests.simulation.ends import End, Plan, SimulatedDialer, enter, leave
from tests.simulation.loop import World
from tests.simulation.network import Fate, Network, Weather

CALM_WITHIN = 60.0  # seconds of virtual time in which both ends finish once the faults are over
ABORTED_WITHIN = 8.0  # seconds: an abort over a good link is answered
LATEST = 500.0  # the same, when one end may wait in vain for the other
SECRET = Secret(bytes(range(32)))  # of the worlds that are sealed: every fourth
STEPS = 60_000  # more than any good world needs

Log = Callable[[str, str], None]


class Wrong(Exception):
    """Something that must never happen has happened."""


class Scenario:
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    def __init__(self, seed: int, log: Log | None = None) -> None:
        self.rng = rng = random.Random(seed)
        self.world = World()
        enter(self.world)
        self._log = log
        self.began = self.world.now
        self.faults_until = self.world.now + rng.choice((2.0, 10.0, 40.0, 120.0))
        self.secret = SECRET if seed % 4 == 3 else None
        self.weather = self._make_weather()
        handshake = begin(self.secret)
        size = handshake.hello_size + handshake.frame_size
        self.network = Network(self.world, self.weather, self._note, size)
        self.patient = rng.random() < 0.85
        self.disturbed = False  # somebody stops, aborts or is killed
        self.peaceful = self.weather.peaceful
        self.aborted: tuple[End, float] | None = None  # who, while connected, and when
        self._turns = 0  # of both ends, when they were looked at last
        self._finished = False
        self._epoch: tuple[bytes | None, int] = (None, 0)
        a, b = self._make_plan(), self._make_plan()
        retry_max = rng.choice((0.1, 1.0, 1.0, 5.0))
        seeds = [random.Random(rng.getrandbits(64)) for _ in range(3)]
        self.callee = End(
            "listener",
            self.world,
            a,
            seeds[0],
            lambda loop: Listener([self.network.listen(loop)], "simulated"),  # type: ignore[list-item]
        )
        self.caller = End(
            "caller",
            self.world,
            b,
            seeds[1],
            lambda loop: SimulatedDialer(self.network, retry_max, seeds[2]),
        )
        self.ends = (self.caller, self.callee)
        self._directions = (self.ends, self.ends[::-1])
        self._plan_disturbances()
        if log is not None:
            for end in self.ends:
                end.session.trace = self._tracer(end)

    def _note(self, prefix: str, text: str) -> None:
        if self._log is not None:
            self._log(prefix, f"{self.world.now - self.began:9.4f} {text}")

    def _tracer(self, end: End) -> Log:
        return lambda prefix, text: self._note(prefix, f"{end.name}: {text}")

    # --- what the seed chooses ---

    def _make_weather(self) -> Weather:
        rng = self.rng
        latency = rng.choice(((0.0, 0.001), (0.0, 0.001), (0.01, 0.05), (0.1, 0.4)))
        weather = Weather(
            rng,
            latency=latency,
            capacity=rng.choice((256, 4096, 65536)),
            chunky=rng.random() < 0.5,
            faulty=rng.choice((0.0, 0.3, 0.7, 0.95)),
            fates=[fate for fate in Fate if fate is not Fate.CORRUPT and rng.random() < 0.5],
            reach=rng.choice((400, 4000, 20000)),
            stragglers=rng.choice((0.0, 0.0, 0.2)),
            hiccups=rng.choice((0.0, 0.0, 0.0, 0.02, 0.2)),
            purging=rng.random() < 0.3,
        )
        if self.secret is not None and rng.random() < 0.5:
            weather.fates.append(Fate.CORRUPT)
        if rng.random() < 0.4:
            since = self.world.now
            while since < self.faults_until:
                since += rng.expovariate(1 / 5)
                until = since + rng.choice((0.3, 3.0, 10.0, 30.0)) * rng.random()
                weather.away.append((since, until))
                since = until
        return weather

    def _make_plan(self) -> Plan:
        rng = self.rng
        limits = Limits(heartbeat=rng.choice((0.5, 2.0, 2.0, 5.0)), connect_timeout=300.0)
        if not self.patient:
            limits = limits._replace(
                connect_timeout=rng.choice((0.0, 3.0)),
                give_up_after=rng.choice((3.0, 20.0)),
                linger=rng.choice((1.0, 30.0)),
            )
        return Plan(
            length=rng.choice((0, 1, 100, 3000, 10000)),
            buffer_size=rng.choice((1, 17, 600, 5000, 60000)),
            limits=limits,
            secret=self.secret,
            produce_every=rng.choice((0.001, 0.05, 0.5)),
            consume_every=rng.choice((0.001, 0.05, 0.5)),
            appetite=rng.choice((10, 1000, 60000)),
        )

    def _plan_disturbances(self) -> None:
        rng = self.rng
        span = self.faults_until - self.world.now
        for near, far in self._directions:
            # Small buffers and bites make many frames: a long stream would not show more of them.
            smallest = min(each.plan.buffer_size for each in self.ends)
            near.plan.length = min(near.plan.length, 15 * smallest + 5, 60 * far.plan.appetite)
        if rng.random() < 0.2:
            self.peaceful = False
            for _ in range(rng.randint(1, 3)):
                self._at(rng.random() * span, self._pause, rng.choice(self.ends))
        if rng.random() < 0.15:
            for _ in range(rng.randint(1, 5)):
                self._at(rng.random() * span, self._stranger)
        if rng.random() < 0.15:
            self.peaceful = False
            self._at(rng.random() * span, lambda: self._in(self.caller, "force_reconnect"))
        if rng.random() < 0.25:
            self._disturb(span)

    def _disturb(self, span: float) -> None:
        rng = self.rng
        self.disturbed = True
        when = rng.choice((0.0, rng.random(), rng.random() * span))
        end = rng.choice(self.ends)
        kind = rng.choice(("stop", "stop both", "abort", "abort", "kill"))
        if kind.startswith("stop"):
            for each in self.ends if kind == "stop both" else (end,):
                self._at(when, self._in, each, "stop")
        elif kind == "abort":
            reason = rng.choice(list(Reason)[:3])
            self._at(when, self._abort, end, reason)
        else:
            self._at(when, end.kill)
        if not kind.startswith("stop"):
            for each in self.ends:  # the other end may never hear of it
                each.session.patience.limits = each.session.limits._replace(
                    connect_timeout=30.0, give_up_after=30.0
                )

    def _at(self, delay: float, callback: Callable[..., None], *args: object) -> None:
        self.world.at(self.world.now + delay, callback, *args)

    def _in(self, end: End, method: str, *args: object) -> None:
        if not end.loop.ended:
            self._note("%", f"{end.name}: {method}")
            end.loop.run(getattr(end.pipe, method), *args)

    def _abort(self, end: End, reason: Reason) -> None:
        if all(each.session.attached for each in self.ends) and not end.session.done:
            self.aborted = end, self.world.now
        self._in(end, "abort", reason, "simulated")

    def _pause(self, end: End) -> None:
        seconds = self.rng.choice((0.5, 5.0, 30.0))
        asleep = self.rng.random() < 0.5
        self._note("%", f"{end.name}: {'sleeps' if asleep else 'is paused'} for {seconds} s")
        end.loop.pause(seconds, asleep=asleep)

    def _stranger(self) -> None:
        """Somebody else connects: with junk, with half a greeting, or with one of his own."""
        if self.callee.loop.ended or self.caller.loop.ended:
            return
        rng = self.rng
        hello = Hello(
            rng.choice(list(Opening)), rng.randbytes(16), rng.randint(1, 9), Position(0, 0, 9)
        )
        packed = begin(self.secret).pack_hello(hello)
        messages = [rng.randbytes(80), packed, packed[:30], b""]
        messages += [  # an old greeting, word by word
            bytes(old)
            for old in self.network.recorded
            if len(old) == self.network.greeting and old[5] == Opening.RESUME
        ]
        if self.secret is not None and self.callee.session.id is not None:
            messages += [self._usurp(self.secret), pack_hello(hello)]
        message = rng.choice(messages)
        self._note("!", f"a stranger says {len(message)} bytes")
        loop = self.caller.loop

        async def visit() -> None:
            try:
                sock = await self.network.connect(loop)
                if message:
                    sock.sendmsg([memoryview(message)])
            except OSError:
                pass

        loop.run(loop.create_task, visit())

    def _usurp(self, secret: Secret) -> bytes:
        """A greeting by somebody who has the secret and knows the session, but not its own."""
        session = self.callee.session
        assert session.id is not None
        where = Position(session.writer.acked, session.writer.acked, session.writer.window)
        hello = Hello(Opening.RESUME, session.id, session.epoch + 1000, where)
        return begin(secret).pack_hello(hello) + self.rng.randbytes(32)

    # --- running ---

    def run(self) -> None:
        """Run both phases. Raises Wrong."""
        while self.world.now < self.faults_until and not self._finished:
            self._step()
        self._note("=", "the faults are over")
        calm = max(self.world.now, self.began)
        self.weather.calm(calm)
        for end in self.ends:
            end.plan.consume_every = end.plan.produce_every = 0.01
            end.plan.appetite = 60000
            limits = end.session.limits  # the other end may have left, and this one waits for it
            end.session.patience.limits = limits._replace(
                give_up_after=min(limits.give_up_after, 200.0)
            )
            end.loop.run(end.pipe.nudge)
        deadline = calm + (CALM_WITHIN if self.patient and not self.disturbed else LATEST)
        while not self._finished:
            self._step()
            if self.world.now > deadline and not self._finished and not self._left_alone():
                raise Wrong("not finished in time")
        self._judge()

    def _left_alone(self) -> bool:
        """Whether one end waits for the other, which has left, and may do so for long."""
        gone = [end for end in self.ends if end.over_at is not None or end.killed]
        return len(gone) == 1 and self.world.now < self.faults_until + LATEST

    def _has_finished(self) -> bool:
        if self.caller.loop.ended and not self.callee.session.established:
            return True  # a listener waits for ever for the first caller
        return all(end.over_at is not None or end.killed for end in self.ends)

    def _step(self) -> None:
        if self.world.idle:
            raise Wrong("nothing will ever happen any more")
        self.world.step()
        if self.world.steps > STEPS:
            raise Wrong("it goes round in circles")
        turns = self.caller.loop.turns + self.callee.loop.turns
        if turns > self._turns:  # else only the network has moved something
            self._turns = turns
            self._check()
            self._finished = self._has_finished()

    def _check(self) -> None:
        """What holds at any time."""
        for near, far in self._directions:
            writer, reader = near.session.writer, far.session.reader
            if far.wrong:
                raise Wrong(far.wrong)
            if not (
                writer.acked <= reader.delivered <= reader.received <= writer.high <= writer.end
            ):
                raise Wrong(
                    f"{near.name}: acked {writer.acked}, high {writer.high}, end {writer.end};"
                    f" {far.name}: delivered {reader.delivered}, received {reader.received}"
                )
            if writer.room < 0:
                raise Wrong(f"{near.name} holds more than its buffer")
            if reader.buffered > far.plan.buffer_size:
                raise Wrong(f"{far.name} holds more than its buffer")
        for end in self.ends:
            if end.loop.errors:
                raise Wrong(f"{end.name}: {end.loop.errors[0]!r}")
            if end.session.fruitless:
                raise Wrong(f"{end.name}: a protocol error: {end.session.last_cause}")
        epoch = (self.callee.session.id, self.callee.session.epoch)
        if epoch[0] == self._epoch[0] and epoch[1] < self._epoch[1]:
            raise Wrong(f"an old greeting was let in: epoch {epoch[1]} after {self._epoch[1]}")
        self._epoch = epoch

    def dispose(self) -> None:
        """Let go of everything."""
        for end in self.ends:
            end.loop.dispose()
        leave()

    # --- judging ---

    def _judge(self) -> None:
        if self.aborted is not None and self.peaceful:
            end, since = self.aborted
            took = (end.over_at or since) - since
            if took > ABORTED_WITHIN:
                raise Wrong(f"{end.name} took {took:.1f} s to learn that its abort was heard")
            other = self.caller if end is self.callee else self.callee
            if not (other.session.done or isinstance(other.pipe.failure, PeerAborted | PipeClosed)):
                raise Wrong(f"{other.name} never heard of the abort")
        for near, far in self._directions:
            if near.over_at is None:
                continue
            if near.pipe.failure is None:
                self._judge_success(near, far)
            else:
                self._judge_failure(near, far)

    def _judge_success(self, near: End, far: End) -> None:
        """An end reports success only if all of it is true."""
        stopped = far.session.reader.stopped
        if stopped is None:
            if not far.closed or far.taken != near.pipe.writer.written:
                raise Wrong(f"{near.name} reports success, but {far.name} has {far.taken} bytes")
        elif max(near.pipe.writer.written, near.plan.length) > stopped:
            raise Wrong(f"{near.name} reports success, but {far.name} stopped at {stopped}")
        if near.session.reader.stopped is None and not (
            near.closed and near.taken == far.pipe.writer.written
        ):
            raise Wrong(f"{near.name} reports success with {near.taken} bytes taken")
        if far.pipe.writer.written < far.plan.length and near.session.reader.stopped is None:
            raise Wrong(f"{near.name} reports success, but {far.name} had more to send")

    def _judge_failure(self, near: End, far: End) -> None:
        """An end reports a failure only if there was a reason."""
        failure = near.pipe.failure
        text = f"{near.name} reports: {failure!r}"
        if "stands elsewhere" in text or "protocol" in text or "bpipe failed" in text:
            raise Wrong(text)
        if self.disturbed or not self.patient:
            if isinstance(failure, (PeerAborted, PipeClosed)) and not self.disturbed:
                raise Wrong(text)
            return
        left = far.over_at is not None and far.over_at <= (near.over_at or 0)
        if not (isinstance(failure, SessionLost) and left and far.pipe.failure is None):
            raise Wrong(text)


def run_seed(seed: int) -> Scenario:
    """Run one seed to its end. Raises Wrong, with the last events, if a promise is broken."""
    scenario = Scenario(seed)
    try:
        scenario.run()
    except Wrong as error:
        raise Wrong(f"seed {seed}: {error}\n" + "\n".join(last_events(seed))) from None
    finally:
        scenario.dispose()
    return scenario


def last_events(seed: int, count: int = 40) -> list[str]:
    """The log's last lines for a seed that fails."""
    lines: deque[str] = deque(maxlen=count)
    scenario = Scenario(seed, lambda prefix, text: lines.append(f"{prefix} {text}"))
    try:
        scenario.run()
    except Wrong as error:
        lines.append(f"! {error}")
    finally:
        scenario.dispose()
    return list(lines)
