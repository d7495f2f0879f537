"""One seed of a world in which a stream becomes a file, and whoever dies is started again.

Two commands: one has the file, the other one the stream. As in a shell, each is typed again when it
has ended in any way but well, until one has succeeded. Both are production code over simulated
paths, and so is what is written over a simulated disk; its threads run in virtual time, one at a
time. Processes are killed, also between two calls to the system; the power is cut; the disk is
full, slow, or fails; a producer fails; somebody else changes the file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import bpipe.ends.base_source
import bpipe.ends.contents
import bpipe.ends.files
import bpipe.net.owner
from bpipe.net.backoff import Backoff
from bpipe.net.bound import Bound
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.greeting import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Ended, Finish
from tests.simulation.bases import make_base, make_stream
from tests.simulation.course import Course, Log
from tests.simulation.disk import Disk, Inode, Manners
from tests.simulation.ends import SimulatedConnector
from tests.simulation.file_ends import NAME, PART, Order, Process, Receiver, Run, Sender
from tests.simulation.file_judge import FileJudge
from tests.simulation.file_trouble import Trouble
from tests.simulation.judge import Wrong
from tests.simulation.kinds import SECRET, Kind, make_weather
from tests.simulation.network import Network
from tests.simulation.threads import Gate, Thread

PERIOD: Final = 60  # of so many seeds, one makes such a world:
PLACE: Final = 18  # so it is 18 of 20, in which no other world is special, and never sealed by that

FINISHED_WITHIN = 400.0  # seconds, once the faults are over
AGAIN_WITHIN = 40.0  # seconds in which a command is typed again, at most

BUFFERS = 1024, 1500, 6000, 40_000  # bytes


def has_files(seed: int) -> bool:
    """Whether a stream becomes a file in the world of this seed."""
    return seed % PERIOD == PLACE


class Files(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 30_000  # more than any good world needs: of 500, the longest took 11,784

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 10.0, 40.0, 120.0))
        rng = self.rng
        self.secret = SECRET if rng.random() < 0.4 else None
        self.known = rng.random() < 0.8  # else nothing tells who calls: no digests are told
        kind = Kind.of(seed)._replace(secret=self.secret)
        self.weather = make_weather(rng, kind, self.world.now, self.faults_until)
        self.weather.capacity = max(4096, self.weather.capacity)
        handshake = type(begin(self.secret))
        self.network = Network(self.world, self.weather, self.note, handshake)
        self.stream = make_stream(rng, rng.choice((0, 1, 700, 5000, 20_000, 20_000)))
        self.disk = Disk(self.fork(), self._make_manners(), self.world.clock)
        self.old = make_base(rng, self.stream)
        self._lay_out(self.old)
        self._buffers = rng.choice(BUFFERS), rng.choice(BUFFERS)  # who calls, who listens
        self.receiver_listens = rng.random() < 0.5
        self.varies = rng.random() < 0.15  # the stream is another one in each run
        self.failing = rng.choice((0, 0, 0, 1, 2))  # runs of the producer
        self.patience = rng.choice((3.0, 20.0, 200.0))  # seconds
        self.receivers: list[Receiver] = []
        self.senders: list[Sender] = []
        self.rivals: list[
            tuple[Inode | None, Receiver, Receiver]
        ] = []  # a part, its owner, another
        self.judge = FileJudge(self)
        self._typed: dict[str, float] = {}  # when a command is typed again
        self.calm = False
        self._undo = self._take_the_place_of_threads()
        self.trouble = Trouble(self)
        self.world.at(self.faults_until, lambda: None)  # until then something may still happen
        self._type("receiver")
        self._type("sender")

    # --- what is there ---

    def _make_manners(self) -> Manners:
        rng = self.rng
        slow = rng.choice((0.0, 0.0, 0.001, 0.05))
        return Manners(
            sector=rng.choice((64, 512, 512, 4096)),
            copies=rng.choice(("all", "some", "none")),
            finds_holes=rng.random() < 0.8,
            makes_holes=rng.random() < 0.8,
            call=slow * 0.1,
            byte=slow / 1000,
            sync=slow * rng.choice((1, 1, 100)),
        )

    def _lay_out(self, old: bytes | None) -> None:
        """What was there before anybody began."""
        rng = self.rng
        if old is not None:
            mode = 0o100000 | rng.choice((0o644, 0o600, 0o555))
            self.disk.put(NAME, old, mode, holes=rng.random() < 0.5)
        part = make_base(rng, self.stream) if rng.random() < 0.5 else None
        if part is not None:
            self.disk.put(PART, part, 0o100600, holes=rng.random() < 0.5)

    @property
    def counts(self) -> Counter[str]:
        """Of what has happened."""
        return self.trouble.counts

    @property
    def ends(self) -> list[Process]:
        """All processes."""
        return [*self.receivers, *self.senders]

    def _take_the_place_of_threads(self) -> Callable[[], None]:
        """The threads of who has the file are simulated, all is small; returns what ends that."""

        def start(end: Any, gate: Gate, work: Callable[[], None]) -> Thread:
            loop: Any = asyncio.get_running_loop()
            end.engine.observe(gate.look)
            thread = Thread(self.world, loop, work, type(end).__name__)
            next(each for each in self.receivers if each.loop is loop).began(thread)
            return thread

        return replace_all(
            (bpipe.ends.files, "Pump", start),
            (bpipe.ends.files, "Gate", Gate),
            (bpipe.net.owner, "surely_ours", lambda sock: self.known),
            (bpipe.ends.contents, "PIECE", 512),
            (bpipe.ends.contents, "LEAST", 64),
            (bpipe.ends.contents, "LARGEST_COPY", 3000),
            (bpipe.ends.base_source, "AHEAD", self.rng.choice((1, 3000, 1 << 30))),
            (bpipe.ends.base_source, "PORTION", self.rng.choice((1, 3000, 1 << 30))),
        )

    # --- commands ---

    def _type(self, kind: str) -> None:
        """Somebody types this command, if that is not settled."""
        self._typed.pop(kind, None)
        if not self.settled:
            self._start_receiver() if kind == "receiver" else self._start_sender()

    def _start_receiver(self) -> None:
        number = len(self.receivers)
        self.note("=", f"receiver {number} begins")
        order = self._order(f"receiver {number}", listens=self.receiver_listens)
        receiver = Receiver(number, self.world, order, self.disk, self.fork())
        self.receivers.append(receiver)
        receiver.called = lambda what: self.trouble.called(receiver, what)

    def _start_sender(self) -> None:
        number = len(self.senders)
        run = self._make_run(number)
        self.note("=", f"sender {number} begins: {run.ends_at} bytes, {run.how}, {run.breaks}")
        order = self._order(f"sender {number}", listens=not self.receiver_listens)
        sender = Sender(number, self.world, order, run, self.fork())
        self.senders.append(sender)
        self.judge.begins(sender)

    def _order(self, name: str, *, listens: bool) -> Order:
        rng = self.rng
        limits = Limits(heartbeat=rng.choice((0.5, 2.0)), connect_timeout=60.0)
        limits = limits._replace(give_up_after=60.0 if self.calm else self.patience)
        order = Order(
            buffer_size=self._buffers[listens] if rng.random() < 0.8 else rng.choice(BUFFERS),
            limits=limits,
            secret=self.secret,
            source=self._listen if listens else self._dial,
            listens=listens,
            whole=rng.random() < 0.05,
        )
        if self._log is not None:
            order.trace = lambda prefix, text: self.note(prefix, f"{name}: {text}")
        return order

    def _make_run(self, number: int) -> Run:
        rng = self.rng
        stream = make_stream(rng, len(self.stream)) if self.varies and number else self.stream
        run = Run(stream, len(stream), every=rng.choice((0.0005, 0.01, 0.1, 0.7)))
        run.bite = rng.choice((50, 2000, 60_000)) if len(stream) < 3000 else 2000
        if number < self.failing and not self.calm:
            run.ends_at = rng.randint(0, len(stream))
            kind = rng.random()
            if kind < 0.3:
                run.breaks = True
            elif kind < 0.6:
                run.how = Finish(Ended.EXITED, rng.choice((1, 2, 255)))
            elif kind < 0.8:
                run.how = Finish(Ended.KILLED, 9)
            else:  # nobody knows that this is not all
                run.stream = stream[: run.ends_at]
        elif rng.random() < 0.3:
            run.how = Finish(Ended.EXITED, 0)
        if self.calm:
            run.every = 0.001
        return run

    def _listen(self, session: Session) -> LinkSource:
        bound = Bound(cast(Any, [self.network.listen(cast(Any, asyncio.get_running_loop()))]), "s")
        clock = self.world.clock
        return Listener(bound, anywhere=True, secret=self.secret, clock=clock).source(session)

    def _dial(self, session: Session) -> LinkSource:
        backoff = Backoff(1.0, self.fork())
        return Dialer(session, SimulatedConnector(self.network), backoff, self.world.clock)

    @property
    def receiver(self) -> Receiver:
        """The last one."""
        return self.receivers[-1]

    @property
    def sender(self) -> Sender:
        """The last one."""
        return self.senders[-1]

    def start_rival(self) -> None:
        """The command of who has the file is typed twice."""
        order = self._order("rival", listens=False)
        rival = Receiver(99, self.world, order, self.disk, self.fork())
        self.rivals.append((self.disk.names.get(PART), self.receiver, rival))

    def _interrupt_all(self) -> None:
        """Somebody waits for whom nobody answers any more."""
        for end in self.ends:
            end.interrupt()

    # --- running ---

    @property
    def settled(self) -> bool:
        """Whether one of the two commands has succeeded: then none is typed again."""
        return any(each.status == 0 for each in self.ends)

    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong."""
        while self.world.now < self.faults_until and not self._finished():
            self.step()
        self._calm_down()
        deadline = self.world.now + FINISHED_WITHIN
        hurried = False
        while not self._finished():
            self.step()
            if self.settled and not hurried:
                hurried = True
                self.world.at(deadline - 200.0, self._interrupt_all)
            if self.world.now > deadline:
                raise Wrong("not finished in time")
        self.judge.finish()

    def _calm_down(self) -> None:
        self.note("=", "the faults are over")
        self.calm = True
        self.weather.calm(self.world.now)
        self.disk.manners.capacity = 1 << 40
        self.disk.faults.__init__()  # type: ignore[misc]
        self.disk.manners.call = self.disk.manners.byte = self.disk.manners.sync = 0.0
        for end in self.ends:
            end.calm()

    def _finished(self) -> bool:
        return self.settled and all(each.gone for each in self.ends)

    def look(self) -> None:
        self._type_again()
        self.trouble.look()
        self.judge.look()

    def _type_again(self) -> None:
        for kind, last in (("receiver", self.receiver), ("sender", self.sender)):
            if last.gone and kind not in self._typed and not self.settled:
                delay = self.rng.choice((0.1, 1.0, 12.0, AGAIN_WITHIN)) * self.rng.random()
                self._typed[kind] = self.world.now + delay
                self.world.at(self._typed[kind], self._type, kind)

    def dispose(self) -> None:
        """Let go of everything."""
        for receiver in (*self.receivers, *(rival for *_, rival in self.rivals)):
            receiver.dispose()
        for sender in self.senders:
            sender.loop.dispose()
        self._undo()


def replace_all(*changes: tuple[Any, str, object]) -> Callable[[], None]:
    """Let these modules have that under these names; returns what undoes it."""
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]

    def put(values: Iterable[tuple[Any, str, object]]) -> None:
        for module, name, value in values:
            setattr(module, name, value)

    put(changes)
    return lambda: put(before)
