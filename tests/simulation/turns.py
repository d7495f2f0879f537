"""One seed of a world in which one sender comes after the other to where a file is received.

Who receives is production code, but for the file: with -k, or without; then the next session is
begun by itself. Each sender is a command that is killed, or gives up, and is typed again after a
while, beside those of others. Strangers come, too. As everywhere, there are no faults in the end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, cast

from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.wire import Hello, Kind, Opening, Position, pack_frame
from tests.simulation.course import Course, Log
from tests.simulation.judge import Wrong
from tests.simulation.kinds import SECRET, make_weather
from tests.simulation.kinds import Kind as WorldKind
from tests.simulation.loop import Loop
from tests.simulation.network import ListeningSocket, Network
from tests.simulation.turn_ends import Receiver, Sender
from tests.simulation.turn_judge import TurnJudge

PERIOD: Final = 60  # of so many seeds, one makes such a world:
PLACE: Final = 58  # so it is 18 of 20, in which no other world is special, and never sealed by that

FINISHED_WITHIN = 500.0  # seconds, once the faults are over: some give up after 300
MOST_TYPED = 40  # commands that one person types


def is_in_turn(seed: int) -> bool:
    """Whether senders come one after the other in the world of this seed."""
    return seed % PERIOD == PLACE


class Turns(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 25_000  # three times what any good world of a thousand needed

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 20.0, 60.0))
        rng = self.rng
        self.counts: Counter[str] = Counter()  # of what is rare, to see that it happens
        self.secret = SECRET if rng.random() < 0.3 else None
        self.lasting = rng.random() < 0.4  # -k
        kind = WorldKind.of(seed)._replace(secret=self.secret)
        self._weathers = [
            make_weather(rng, kind, self.world.now, self.faults_until)
            for _ in range(rng.choice((1, 2, 2, 3)))
        ]
        handshake = type(begin(self.secret))
        self._networks = [
            Network(self.world, each, self.note, handshake) for each in self._weathers
        ]
        self.strangers = Loop(self.world, "strangers")
        listening = ListeningSocket(Loop(self.world, "receiver"))
        for network in self._networks:
            network.lead_to(listening)
        self.senders: list[Sender] = []
        self.receiver = Receiver(
            self.world, listening, self._limits(), self.secret, lasting=self.lasting
        )
        self.judge = TurnJudge(self)
        self.content: set[int] = set()  # whose command has succeeded
        self._typed: Counter[int] = Counter()
        for number in range(len(self._networks)):
            self.world.at(self.world.now + rng.choice((0.0, rng.random() * 30)), self._type, number)
        self._plan()

    @property
    def ends(self) -> list[Sender]:
        """Whose sessions there were."""
        return self.senders

    @property
    def calm(self) -> bool:
        """Whether the faults are over."""
        return self.world.now >= self.faults_until

    def _limits(self) -> Limits:
        return Limits(heartbeat=self.rng.choice((0.5, 2.0)), connect_timeout=30.0)

    # --- who sends ---

    def _type(self, number: int) -> None:
        """Somebody types the command, perhaps again."""
        if self.receiver.over or number in self.content or self._typed[number] > MOST_TYPED:
            return
        self._typed[number] += 1
        rng, limits = self.rng, self._limits()
        if not self.calm and rng.random() < 0.3:
            limits = limits._replace(give_up_after=rng.choice((3.0, 15.0)))
        name = f"sender {number}.{self._typed[number]}"
        sender = Sender(name, self.world, self._networks[number], limits, self.secret, rng)
        self.note("=", f"{name} begins")
        self.senders.append(sender)
        sender.when_gone(lambda: self._gone(number, sender))
        if self._log is not None:
            sender.session.trace_to(lambda prefix, text: self.note(prefix, f"{name}: {text}"))

    def _gone(self, number: int, sender: Sender) -> None:
        self.note("=", f"{sender.name} has ended: {sender.ending}")
        self.counts[sender.ending] += 1
        if sender.succeeded:
            self.content.add(number)
        pause = self.rng.choice((0.1, 3.0, 9.9, 10.1, 30.0))
        self.world.at(self.world.now + pause, self._type, number)

    def _plan(self) -> None:
        rng, span = self.rng, self.faults_until - self.world.now
        events = [*[self._kill] * 6, self._reconnect, self._stranger, self._pause]
        for _ in range(rng.choice((0, 2, 4, 8))):
            when = rng.random() * rng.choice((5.0, span))
            self.world.at(self.world.now + min(when, span), rng.choice(events))

    def _living(self) -> Sender | None:
        living = [each for each in self.senders if not each.gone]
        return self.rng.choice(living) if living else None

    def _kill(self) -> None:
        if sender := self._living():
            self.note("%", f"{sender.name} is killed")
            sender.kill()
            if self.rng.random() < 0.5:  # somebody comes who is no sender, when one would get in
                self.world.at(self.world.now + self.rng.uniform(9.0, 20.0), self._stranger)

    def _reconnect(self) -> None:
        if sender := self._living():
            sender.reconnect()

    def _pause(self) -> None:
        """Who receives runs nothing for a while."""
        seconds = self.rng.choice((1.0, 12.0))
        if self.world.now + seconds < self.faults_until:
            self.note("%", f"the receiver pauses for {seconds} s")
            self.receiver.pause(seconds, asleep=self.rng.random() < 0.5)

    def _stranger(self) -> None:
        """Somebody begins a session, and does not confirm it, or says nothing then."""
        rng = self.rng
        if self.receiver.over:
            return
        hello = Hello(Opening.OPEN, rng.randbytes(16), 1, Position(0, 0, 5000))
        messages = [begin(self.secret).pack_hello(hello)]
        size = len(messages[0])  # a plain CONFIRM is the same for everybody
        messages += [bytes(old[:size]) for each in self._networks for old in each.recorded]
        if self.secret is None and rng.random() < 0.2:
            messages = [messages[0] + pack_frame(Kind.CONFIRM, 0)]
            self.judge.usurped()
        network = rng.choice(self._networks)
        message = messages[0] if rng.random() < 0.5 else rng.choice(messages)
        self.note("!", f"a stranger says {len(message)} bytes")

        async def visit() -> None:
            try:
                sock = await network.connect(self.strangers)
                sock.sendmsg([memoryview(message)])
            except OSError:
                pass

        self.strangers.run(self.strangers.create_task, visit())

    # --- running ---

    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong."""
        while not self.calm and not self._finished():
            self.step()
        self.note("=", "the faults are over")
        for weather in self._weathers:
            weather.calm(self.world.now)
        self.receiver.loop.stay_awake()
        deadline = self.world.now + FINISHED_WITHIN
        while not self._finished():
            self.step()
            if self.world.now > deadline:
                raise Wrong("not finished in time")
        self.receiver.stop()
        while not self.receiver.over:
            self.step()
            if self.world.now > deadline + FINISHED_WITHIN:
                raise Wrong("the receiver does not end")
        self.judge.finish()

    def _finished(self) -> bool:
        return self.receiver.over or len(self.content) == len(self._networks)

    def look(self) -> None:
        self.judge.look()

    def dispose(self) -> None:
        """Let go of everything."""
        for end in (*self.senders, self.receiver):
            cast(Any, end).loop.dispose()
        self.strangers.dispose()
