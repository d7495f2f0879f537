"""Simulated processes of a stream to a file: who has the file, and who sends.

Both are production code, from the link to the exit status; the producer is simulated, and the disk.
"""

from __future__ import annotations

import contextlib
import errno
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from bpipe.ends.files import FileEnds
from bpipe.ends.local import Source
from bpipe.ends.part import Target
from bpipe.ends.scheduling import LoopScheduling
from bpipe.engine import Engine
from bpipe.errors import ProtocolError, TargetError
from bpipe.net.source import LinkSource
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE, RECORDS, UNTOLD, Finish, Reason
from bpipe.run.exits import decide
from bpipe.run.join import Join, Outcome
from bpipe.run.succession import Succession
from tests.simulation.crossing import Crossing
from tests.simulation.disk import Disk, Inode
from tests.simulation.loop import Loop, World
from tests.simulation.system import FOLDER, Killed, System
from tests.simulation.threads import Thread, current

NAME: Final = "file"
PART: Final = "file.part"


@dataclass
class Order:
    """What a process is started with."""

    buffer_size: int  # bytes
    limits: Limits
    secret: Secret | None
    source: Callable[[Session], LinkSource]
    listens: bool = False
    whole: bool = False
    trace: Callable[[str, str], None] | None = None


class Sitting:
    """One session of a process, and what is seen of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = engine.session
        self.crossing = Crossing(engine.writer)  # what this end has said
        self.before: tuple[bytes | None, bytes | None] | None = None  # part and file, as it began
        self.joined_at = math.inf  # when it began

    def joined(self, now: float, before: tuple[bytes | None, bytes | None]) -> None:
        """It has begun."""
        if self.before is None:
            self.joined_at, self.before = now, before


@dataclass
class Run:
    """What a producer does in one run; counts in bytes, times in seconds."""

    stream: bytes
    ends_at: int  # what comes after that is never written
    how: Finish = UNTOLD  # the end of it
    breaks: bool = False  # it cannot be read any more there
    every: float = 0.001
    bite: int = 2000

    @property
    def good(self) -> bool:
        """Whether it is a whole stream, as far as anybody knows."""
        return self.ends_at >= len(self.stream) and not (self.breaks or self.how.status)


class NoScheduling:
    """In the place of what counts the bytes of a loop."""

    @contextlib.contextmanager
    def counting(self, engine: Engine) -> Iterator[None]:
        yield


class Process:
    """One command, from its start to its exit status."""

    kind: str
    needs = 0

    def __init__(self, number: int, world: World, order: Order) -> None:
        self.name = f"{self.kind} {number}"
        self.world = world
        self.order = order
        self.loop = Loop(world, self.name)
        self.status: int | None = None
        self.outcome: Outcome | None = None
        self.killed = False
        self.over_at: float | None = None
        self.wrong: str | None = None
        self.sittings: list[Sitting] = []
        self.scheduling = cast(LoopScheduling, NoScheduling())
        self.loop.run(self.loop.create_task, self._main())

    async def _main(self) -> None:
        self.status = await self._work()
        self.over_at = self.world.now
        self.loop.end()

    async def _work(self) -> int:
        raise NotImplementedError

    def _open(self) -> BackedPipe:
        order = self.order
        session = Session(order.buffer_size, order.limits, order.secret, self.needs)
        return BackedPipe(session, order.source(session), self.world.clock)

    def take(self, engine: Engine, ends: Any = None) -> None:
        """A session that may become the one that counts."""
        self.sittings.append(Sitting(engine))
        engine.observe(self._look)
        if self.order.trace is not None:
            engine.session.trace_to(self.order.trace)

    def release(self, engine: Engine) -> None:
        """That one is over."""

    def _look(self) -> None:
        """Something has changed."""

    @property
    def sitting(self) -> Sitting | None:
        """The last that had a link; else the first."""
        had = [each for each in self.sittings if each.session.history.links]
        found = had or self.sittings[:1]
        return found[-1] if found else None

    @property
    def session(self) -> Session:
        """The same, of a process that has begun."""
        sitting = self.sitting
        assert sitting is not None
        return sitting.session

    @property
    def links(self) -> int:
        """How many it has had."""
        return sum(each.session.history.links for each in self.sittings)

    @property
    def gone(self) -> bool:
        """Whether it has ended, by itself or not."""
        return self.status is not None or self.killed

    def kill(self) -> None:
        """SIGKILL."""
        if not self.gone:
            self.killed = True
            self.over_at = self.world.now
            self.loop.kill()

    def interrupt(self) -> None:
        """As ^C."""
        for each in self.sittings if not self.gone else []:
            self.loop.run(each.engine.abort, Reason.INTERRUPTED, "simulated")

    def reconnect(self) -> None:
        """Its link is dropped."""
        sitting = self.sitting
        if not self.gone and sitting is not None:
            self.loop.run(sitting.engine.force_reconnect)

    @property
    def protocol_error(self) -> str | None:
        """What no two ends that are right ever have."""
        for each in self.sittings:
            for error in (each.session.history.last_cause, each.session.ending.failure):
                if isinstance(error, ProtocolError) or "protocol error" in str(error):
                    return str(error)
        return None

    def calm(self) -> None:
        """Nobody is very patient any more."""
        for each in self.sittings if not self.gone else []:
            patience = each.session.patience
            limits = patience.limits
            patience.limits = limits._replace(give_up_after=min(limits.give_up_after, 60.0))
            self.loop.run(each.engine.nudge)


class Receiver(Process):
    """Who has the file."""

    kind = "receiver"
    needs = RECORDS | FILE

    def __init__(
        self, number: int, world: World, order: Order, disk: Disk, rng: random.Random
    ) -> None:
        self.system = System(disk, self._wait)
        self.called: Callable[[str], bool] = lambda what: False
        self.refused: str | None = None  # why it did not even begin
        self.target: Target | None = None
        self._disk = disk
        self._threads: list[Thread] = []
        self._rng = rng
        super().__init__(number, world, order)

    async def _work(self) -> int:
        """As a run of the program does."""
        try:
            self.target = target = Target.open(f"{FOLDER}/{NAME}", self.system)
        except TargetError as error:
            self.refused = str(error)
            return 2 if error.usage else 1
        try:
            again = self._ends if self.order.listens else None
            here = cast(Any, self)
            self.outcome = await Succession(self._open(), self._ends(), here, here, again).run()
            return decide(self.outcome)[0]
        finally:
            with contextlib.suppress(Killed):
                target.close()

    def _ends(self) -> FileEnds:
        assert self.target is not None
        return FileEnds(self.target, whole=self.order.whole)

    def follow(self, engine: Engine) -> None:
        """The next session is the one that is shown."""

    def _look(self) -> None:
        sitting = self.sitting
        if sitting is not None and sitting.session.established:
            sitting.joined(self.world.now, (self._disk.seen(PART), self._disk.seen(NAME)))

    @property
    def in_session(self) -> bool:
        """Whether a sender is there, or was."""
        return any(each.session.established and not each.session.over for each in self.sittings)

    def has_open(self, inode: Inode | None) -> bool:
        """Whether it has a descriptor of this."""
        return any(each.inode is inode for each in self.system.opened.values())

    def began(self, thread: Thread) -> None:
        """It has a thread more."""
        self._threads.append(thread)

    def _wait(self, what: str, seconds: float) -> None:
        """A call is made."""
        hit = self.called(what)
        thread = current()
        if thread is not None:
            if seconds or hit or self._rng.random() < 0.2:
                thread.sleep(seconds)
        elif self.in_session:
            self.wrong = self.wrong or f"{self.name}: the disk holds up the loop: {what}"

    def kill(self) -> None:
        if not self.gone:
            super().kill()
            self.system.kill()
            for thread in self._threads:
                thread.kill()

    @property
    def left_behind(self) -> str | None:
        """What is there after its end, and must not be."""
        if any(not each.ended for each in self._threads):
            return "threads"
        return "descriptors" if self.system.opened else None

    def dispose(self) -> None:
        """The simulation is over."""
        self.system.kill()
        for thread in self._threads:
            thread.kill()
        self.loop.dispose()


class Producer:
    """The ends of a sender: nothing is received."""

    sends = True
    receives = False
    outcome = None

    def __init__(self, begin: Callable[[Engine], None], result: Finish) -> None:
        self.result: Finish | None = result
        self._begin = begin

    def start(self, engine: Engine) -> None:
        """The pipe is up."""
        self._begin(engine)

    def hurry(self) -> bool:
        """There is nothing."""
        return False

    async def wait(self) -> None:
        """There is nothing."""


class Sender(Process):
    """Who has the stream."""

    kind = "sender"

    def __init__(
        self, number: int, world: World, order: Order, run: Run, rng: random.Random
    ) -> None:
        self.run = run
        self.written = 0  # bytes of the stream
        self.source: Source | None = None
        self._busy = False
        self._rng = rng
        super().__init__(number, world, order)

    async def _work(self) -> int:
        pipe = self._open()
        if self.order.whole:
            pipe.engine.session.terms.send_whole()
        self.take(pipe.engine)
        join = Join(pipe, Producer(self._begin, self.run.how), self.scheduling)
        self.outcome = await join.run()
        return decide(self.outcome)[0]

    def _begin(self, engine: Engine) -> None:
        self.source = Source(engine, "simulated")
        self._look()

    def _look(self) -> None:
        source = self.source
        if source is None or self._busy or self.loop.ended:
            return
        if source.refused or source.spacious:
            self._busy = True
            delay = self._rng.uniform(0.5, 1.5) * self.run.every
            self.world.at(self.world.now + delay, self._produce)

    def _produce(self) -> None:
        source, run = self.source, self.run
        if self.loop.ended or source is None:
            return
        if source.refused or self.written == run.ends_at:
            self._end(source, more=self.written < run.ends_at)
            return
        limit = min(self._rng.randint(1, run.bite), run.ends_at - self.written)
        self._busy = False
        views, count = self.loop.run(source.lend, limit), 0
        for view in views:
            at = self.written + count
            view[:] = run.stream[at : at + len(view)]
            count += len(view)
        if count:
            self.written += count
            source.wrote(count)
            self.loop.run(source.engine.nudge)

    def _end(self, source: Source, *, more: bool) -> None:
        """There is no more, or none is wanted."""
        if self.run.breaks and not more:
            self.loop.run(source.failed, OSError(errno.EIO, "simulated"))
            return
        how = UNTOLD if more else self.run.how
        self.loop.run(source.engine.call, lambda: source.finish(more=more, ended=how))

    @property
    def is_whole(self) -> bool:
        """Whether its stream has come to its end, and was not cut."""
        return self.run.good and self.written == len(self.run.stream)
