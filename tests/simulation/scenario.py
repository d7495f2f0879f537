"""One seed: the world that it makes, what must hold in it, and how it has to end.

Phase one has faults, a random choice of them for each seed ("swarm testing": Groce et al., ISSTA
2012). After every step: what was taken is a prefix of what was written, and the cursors of the
two ends are in order. Phase two has none: both ends must finish, and what they report must be so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from bpipe.net.backoff import Backoff
from bpipe.net.bound import Bound
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.ending import Phase
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Hello, Opening, Position, Reason, pack_frame, pack_hello
from bpipe.protocol.wire import Kind as FrameKind
from tests.simulation.course import Course, Log
from tests.simulation.ends import End, Plan, SimulatedConnector
from tests.simulation.judge import Judge, Wrong
from tests.simulation.kinds import Kind, agree, make_plan, make_weather
from tests.simulation.loop import Loop
from tests.simulation.network import ListeningSocket, Network
from tests.simulation.program_ends import ProgramEnd
from tests.simulation.program_judge import ProgramJudge
from tests.simulation.records import RecordsEnd
from tests.simulation.records_judge import RecordsJudge, RemoteJudge
from tests.simulation.remote_ends import RemoteProgramEnd, SshEnd
from tests.simulation.weather import Fate

CALM_WITHIN = 60.0  # seconds of virtual time in which both ends finish once the faults are over
PEACEFUL_WITHIN = 10.0  # seconds: the same, where nothing has ever failed
LATEST = 500.0  # the same, when one end may wait in vain for the other


class Scenario(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 60_000

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 10.0, 40.0, 120.0))
        rng = self.rng
        self.kind = kind = self._choose_kind(seed)
        self.secret = kind.secret
        if kind.slow:
            self.faults_until = self.world.now + 120.0
        self.networks = self._make_networks()
        self.weathers = [each.weather for each in self.networks]
        self.strangers = Loop(self.world, "strangers")
        self.patient = rng.random() < 0.85
        self._finished = False
        self.caller, self.callee = self.ends = self._make_ends()
        self.successor: End | None = None  # a new process where the listener was
        self.former: End | None = None  # a caller that was killed, and after which another comes
        self.elsewhere: End | None = None  # somebody who listens, too, and knows no session
        self._expected = False  # that one has not come yet
        self.judge = self._make_judge()
        self.judge.patient, self.judge.astray = self.patient, kind.astray
        self.judge.peaceful = all(each.peaceful for each in self.weathers)
        self.judge.quick = all(each.quick for each in self.weathers)
        self.judge.smooth = self.judge.quick and all(each.smooth for each in self.weathers)
        if kind.slow:
            self._plan_an_abort()
        else:
            self._plan_disturbances()
        if kind.doubtful:
            self.callee.cue_heard(self._slow_down)
        if kind.astray:
            self.judge.peaceful = False
            self.elsewhere = self._make_elsewhere()
            self.caller.cue_heard(self._lead_astray)
        if log is not None:
            for end in self.ends:
                end.engine.session.trace_to(self._tracer(end))

    def _choose_kind(self, seed: int) -> Kind:
        return Kind.of(seed)

    def _make_networks(self) -> list[Network]:
        """One for each path between the two ends."""
        return [self._make_network(self.kind)]

    def _make_network(self, kind: Kind) -> Network:
        weather = make_weather(self.rng, kind, self.world.now, self.faults_until)
        return Network(self.world, weather, self.note, type(begin(self.secret)))

    def _make_ends(self) -> tuple[End, End]:
        rng = self.rng
        a, b = (make_plan(rng, self.kind, patient=self.patient) for _ in range(2))
        retry_max = rng.choice((0.3, 1.0, 1.0, 5.0))
        seeds = [random.Random(rng.getrandbits(64)) for _ in range(3)]
        backoff = Backoff(retry_max, seeds[2])
        agree(rng, self.kind, a, b)
        callee = self._make_end("listener", a, seeds[0], self._listen)
        caller = self._make_end("caller", b, seeds[1], lambda s: self._dial(s, backoff))
        return caller, callee

    def _make_end(
        self, name: str, plan: Plan, rng: random.Random, source: Callable[[Session], LinkSource]
    ) -> End:
        return self._kind_of_end(plan)(name, self.world, plan, rng, source)

    def _kind_of_end(self, plan: Plan) -> type[End]:
        if plan.manner is not None:
            return RemoteProgramEnd if self.kind.remote else ProgramEnd
        if plan.near is not None:
            return SshEnd
        return RecordsEnd if self.kind.records else End

    def _make_judge(self) -> Judge:
        """Of the ends that there are now."""
        self.caller.face(self.callee)
        self.callee.face(self.caller)
        kind = ProgramJudge if self.kind.programs else Judge
        if self.kind.records:
            kind = RemoteJudge if self.kind.remote else RecordsJudge
        return kind(self.world, self.caller, self.callee)

    def _make_elsewhere(self) -> End:
        plan = Plan(length=0, buffer_size=100, limits=Limits(), secret=self.secret)
        return End("elsewhere", self.world, plan, self.rng, self._stray)

    def _listen(self, session: Session) -> LinkSource:
        return self._accept(session, Network.listen)

    def _stray(self, session: Session) -> LinkSource:
        return self._accept(session, Network.listen_elsewhere)

    def _accept(
        self, session: Session, listen: Callable[[Network, Any], ListeningSocket]
    ) -> LinkSource:
        loop = asyncio.get_running_loop()
        bound = Bound(cast(Any, [listen(each, loop) for each in self.networks]), "simulated")
        clock = self.world.clock
        return Listener(bound, anywhere=True, secret=self.secret, clock=clock).source(session)

    def _dial(self, session: Session, backoff: Backoff) -> LinkSource:
        return Dialer(session, SimulatedConnector(self.networks[0]), backoff, self.world.clock)

    def _tracer(self, end: End) -> Log:
        return lambda prefix, text: self.note(prefix, f"{end.name}: {text}")

    # --- what the seed chooses ---

    def _slow_down(self) -> None:
        """From now on every connection is late, and none fails."""
        for weather in self.weathers:
            weather.faulty, weather.stragglers = 0.0, 1.0

    def _plan_an_abort(self) -> None:
        """It has to be heard soon, however much else is under way."""
        self.judge.broken = True
        aborter, reason = self.rng.choice(self.ends), self.rng.choice(list(Reason)[:3])
        aborter.cue(self.rng.randint(1, 150_000), self._abort, aborter, reason)

    def _lead_astray(self) -> None:
        """The next calls are answered by somebody who does not know the session."""
        rng, since = self.rng, self.world.now
        for _ in range(rng.randint(1, 3)):
            since += rng.choice((0.0, 1.0, 10.0)) * rng.random()
            until = since + rng.choice((1.0, 3.0, 25.0, 25.0))
            self.world.at(since, self._go_astray, until, rng.choice(self.ends))
            since = until

    def _go_astray(self, until: float, end: End) -> None:
        if self.world.now < self.faults_until and self.former is None:
            self._lead(until)
            self._in(end, "force_reconnect")

    def _lead(self, until: float) -> None:
        """Up to this time, whoever calls comes to somebody else."""
        for network in self.networks:
            network.lead_astray(until)

    def _plan_disturbances(self) -> None:
        rng = self.rng
        span = self.faults_until - self.world.now
        for near, far in (self.ends, self.ends[::-1]):
            # Small buffers and bites make many frames: a long stream would not show more of them.
            smallest = min(each.plan.buffer_size for each in self.ends)
            near.plan.length = min(near.plan.length, 15 * smallest + 5, 60 * far.plan.appetite)
        if rng.random() < 0.2:
            self.judge.peaceful = False
            self.judge.paused = True
            for _ in range(rng.randint(1, 3)):
                self._sometime(span, self._pause, rng.choice(self.ends))
        if rng.random() < 0.15:
            for _ in range(rng.randint(1, 5)):
                self._sometime(span, self._stranger)
        if rng.random() < 0.15:
            self.judge.peaceful = False
            self._sometime(span, self._in, rng.choice(self.ends), "force_reconnect")
        if rng.random() < 0.35:
            self._disturb(span)

    def _disturb(self, span: float) -> None:
        rng = self.rng
        end = rng.choice(self.ends)
        kind = rng.choice(
            ("stop", "stop both", "abort", "abort", "kill", "restart", "replace", "leave", "leave")
        )
        if kind in ("stop", "stop both", "leave"):
            kind = self._possible(kind, end)
        if kind.startswith("stop"):
            self.judge.stopped = True
            for each in self.ends if kind == "stop both" else (end,):
                self._sometime(span, self._in, each, "stop")
            return
        if kind == "leave":
            self.judge.stopped = True
            giver = self.callee if end is self.caller else self.caller
            if giver.plan.length and rng.random() < 0.5:
                end.cue(giver.plan.length, self._leave, end)
            else:
                self._sometime(span, self._leave, end)
            return
        self.judge.broken = True
        if kind == "abort":
            reason = rng.choice(list(Reason)[:3])
            self._sometime(span, self._abort, end, reason)
        elif kind == "restart":
            self._sometime(span, self._restart)
            return
        elif kind == "replace":
            self._plan_to_replace()
        else:
            self._sometime(span, end.kill)
        for each in self.ends:  # the other end may never hear of it
            each.session.patience.limits = each.session.patience.limits._replace(
                connect_timeout=30.0, give_up_after=30.0
            )

    def _possible(self, kind: str, end: End) -> str:
        """This, or something else if it cannot happen to this end."""
        if self.kind.programs:
            return kind.split()[0] if end.plan.manner is None else "abort"  # it needs none
        return "abort" if self.kind.remote else kind

    def _sometime(self, span: float, callback: Callable[..., None], *args: object) -> None:
        """Call this at some time, when some of a stream was taken, or when a link is lost."""
        rng = self.rng
        taker, giver = rng.sample(self.ends, 2)
        occasion = rng.random()
        if giver.plan.length and occasion < 0.5:
            taker.cue(rng.randint(1, giver.plan.length), callback, *args)
        elif occasion < 0.7:
            taker.cue_loss(callback, *args)
        else:
            delay = rng.choice((0.0, rng.random(), rng.random() * span))
            self.world.at(self.world.now + delay, callback, *args)

    def _in(self, end: End, method: str, *args: object) -> None:
        early = self.kind.records and end.session.terms.records is None
        if method == "stop" and early:
            return  # it would decide that the streams are bytes, before anybody has called
        if not end.loop.ended:
            self.note("%", f"{end.name}: {method}")
            end.loop.run(getattr(end.pipe, method), *args)

    def _abort(self, end: End, reason: Reason) -> None:
        if end.session.phase is Phase.UP:
            attached = all(each.session.attached for each in self.ends)
            self.judge.aborted(end, reason, attached=attached)
        self._in(end, "abort", reason, "simulated")
        if isinstance(end, ProgramEnd):
            self.world.at(self.world.now + self.rng.choice((0.3, 2.0, 9.0)), end.hurry)

    def _restart(self) -> None:
        """The listener is killed, and somebody starts it again: it knows nothing."""
        if not self.caller.session.established:
            return  # it might open a session with the new one, and rightly so
        self.callee.kill()
        if self.callee.killed:
            plan = self.callee.plan
            self.successor = End("successor", self.world, plan, self.rng, self._listen)
            self.judge.successor = self.successor

    def _leave(self, end: End) -> None:
        self.note("%", f"{end.name}: the consumer leaves with {end.taken} bytes")
        end.leave()
        giver = self.callee if end is self.caller else self.caller
        if end.taken < giver.plan.length and self.rng.random() < 0.3:  # there is more, but not soon
            giver.plan.produce_every = self.rng.choice((5.0, 1000.0))
            if self.rng.random() < 0.5:  # the link is lost when the answer is on its way
                self.judge.peaceful = False
                at = self.world.now + self.rng.uniform(1.9, 3.0)
                self.world.at(at, self._in, end, "force_reconnect")

    def _plan_to_replace(self) -> None:
        """Most interesting is a caller that is heard no more as soon as it has been let in."""
        span = 120.0
        self.faults_until = self.world.now + span
        self.judge.peaceful = False
        if self.rng.random() < 0.7:
            for weather in self.weathers:
                weather.fates = [Fate.DEAF]
                weather.faulty = weather.at_seams = 0.9
        occasion = self.rng.random()
        if self.callee.plan.length and occasion < 0.4:
            self.caller.cue(1, self._replace)
        elif occasion < 0.8:
            self.caller.cue_heard(self._replace)
        else:
            self._sometime(span, self._replace)

    def _replace(self) -> None:
        """The caller is killed, and later somebody else calls, if the listener waits for that."""
        self.caller.kill()
        if self.caller.killed:
            self._expected = True
            self.world.at(self.world.now + self.rng.choice((0.0, 1.0, 40.0)), self._call_again, 9)

    def _call_again(self, tries: int) -> None:
        session = self.callee.session
        if not (session.replaceable or session.established) and tries:  # it has not noticed yet
            self.world.at(self.world.now + 3.0, self._call_again, tries - 1)
            return
        self._expected = False
        if session.replaceable and not self.callee.gone:
            self._come()
        self._finished = self._has_finished()

    def _come(self) -> None:
        """Another caller, with a stream and a consumer of its own."""
        self.former = self.caller
        self._lead(self.world.now)
        if self.rng.random() < 0.5:  # its first link is lost when it has hardly been heard
            self.callee.cue_heard(self._in, self.callee, "force_reconnect")
        self.caller = self._make_end(
            "next caller",
            replace(self.former.plan, limits=self.callee.plan.limits),
            self.rng,
            lambda session: self._dial(session, Backoff(1.0, self.rng)),
        )
        self.callee.forget()
        self.ends = (self.caller, self.callee)
        before, self.judge = self.judge, self._make_judge()
        self.judge.patient, self.judge.paused = before.patient, before.paused
        self.judge.astray = before.astray
        self.judge.peaceful, self.judge.broken, self.judge.stopped = False, True, before.stopped
        self.judge.former = self.former
        if self._log is not None:
            for end in self.ends:
                end.engine.session.trace_to(self._tracer(end))

    def _pause(self, end: End) -> None:
        if self.world.now >= self.faults_until:
            return
        seconds = self.rng.choice((0.5, 5.0, 30.0))
        asleep = self.rng.random() < 0.5
        after = self.rng.choice((0, 0, self.rng.randint(1, 50)))
        self.note("%", f"{end.name}: {'sleeps' if asleep else 'is paused'} for {seconds} s")
        end.loop.pause(seconds, asleep=asleep, after=after)

    def _stranger(self) -> None:
        """Somebody else connects: with junk, with half a greeting, or with one of his own."""
        if self.callee.loop.ended or self.caller.loop.ended:
            return
        rng, network = self.rng, self.networks[0]
        hello = Hello(
            rng.choice(list(Opening)), rng.randbytes(16), rng.randint(1, 9), Position(0, 0, 9)
        )
        packed = begin(self.secret).pack_hello(hello)
        messages = [rng.randbytes(80), packed, packed[:30], b""]
        if self.callee.session.established and self.secret is None:  # else it would be let in
            messages.append(packed + pack_frame(FrameKind.CONFIRM, 0))
        messages += [  # an old greeting, word by word
            bytes(old)
            for old in network.recorded
            if len(old) == network.seams_up[-1] and old[5] == Opening.RESUME
        ]
        if self.secret is not None and self.callee.session.id is not None:
            messages += [self._usurp(self.secret), pack_hello(hello)]
        message = rng.choice(messages)
        self.note("!", f"a stranger says {len(message)} bytes")
        loop = self.strangers

        async def visit() -> None:
            try:
                sock = await network.connect(loop)
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
            self.step()
        self.note("=", "the faults are over")
        calm = max(self.world.now, self.began)
        for weather in self.weathers:
            weather.calm(calm)
        self._lead(calm)
        for end in self.ends:
            end.calm()
            limits = end.session.patience.limits  # the other may have left, and this one waits
            end.session.patience.limits = limits._replace(
                give_up_after=min(limits.give_up_after, 200.0)
            )
            end.loop.run(end.engine.nudge)
        self.judge.calm()
        deadline = calm + self._time_to_finish()
        while not self._finished:
            self.step()
            if self.world.now > deadline and not self._finished and not self._left_alone():
                raise Wrong("not finished in time")
        self.judge.finish()

    def _time_to_finish(self) -> float:
        """How long it takes at most from now on, in seconds."""
        if self.kind.programs or self.kind.remote:
            return LATEST
        if self.successor is not None:
            return CALM_WITHIN
        if not self.patient or self.judge.stopped or self.judge.broken:
            return LATEST
        return PEACEFUL_WITHIN if self.judge.steady else CALM_WITHIN

    def _left_alone(self) -> bool:
        """Whether one end waits for the other, which has left, and may do so for long."""
        gone = [end for end in self.ends if end.gone]
        return len(gone) == 1 and self.world.now < self.faults_until + LATEST

    def _has_finished(self) -> bool:
        if self._expected:
            return False
        if self.caller.loop.ended and not self.callee.session.established:
            return True  # a listener waits for ever for the first caller
        caller, callee = self.ends
        return caller.gone and callee.gone

    def look(self) -> None:
        self.judge.look()
        self._finished = self._has_finished()

    def dispose(self) -> None:
        """Let go of everything."""
        for end in (*self.ends, self.successor, self.former, self.elsewhere):
            if end is not None:
                end.loop.dispose()
        self.strangers.dispose()
