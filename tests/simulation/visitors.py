"""Processes that call where many are served, and what is done for each of them there."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bpipe.errors import SessionEnded
from bpipe.net.backoff import Backoff
from bpipe.net.dialer import Dialer
from bpipe.net.dialers import Dialers
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from tests.simulation.ends import SeededManners, SimulatedConnector
from tests.simulation.loop import Loop, World
from tests.simulation.network import Network

LONGEST = 1 << 14  # bytes
PATTERNS = [random.Random(100 + number).randbytes(LONGEST) for number in range(8)]
SPEECHES = [random.Random(200 + number).randbytes(LONGEST) for number in range(8)]
REFUSALS = ("no more callers for now", "the listener is busy")


def limit_patience(session: Session, seconds: float) -> None:
    """This end gives up after so long, at the latest."""
    limits = session.patience.limits
    session.patience.limits = limits._replace(give_up_after=min(limits.give_up_after, seconds))


class Mistake(Exception):
    """What a handler raises."""


@dataclass
class Order:
    """What a caller wants; times are in seconds, counts in bytes."""

    number: int
    length: int  # of the stream that it sends
    manner: str  # of the handler that serves it
    comes_at: float
    buffer_size: int
    limits: Limits
    secret: Secret | None
    retry_max: float
    pause: float  # between two writes, at most
    links: int = 1  # that its session may have at once


class Caller:
    """One process that calls: it sends its own pattern, and reads whatever is answered."""

    def __init__(self, world: World, order: Order, network: Network, rng: random.Random) -> None:
        self.name = f"caller {order.number}"
        self.order = order
        self.network = network
        self.loop = Loop(world, self.name)
        size, limits = order.buffer_size, order.limits
        self.session = Session(size, limits, order.secret, links=order.links)
        self.source: Dialer | Dialers
        self.pipe: BackedPipe
        self.visit: Visit | None = None  # what is done for it
        self.came = self.killed = self.aborted = self.disturbed = False
        self.taken = 0  # bytes of the answer
        self.error: SessionEnded | None = None
        self.over_at: float | None = None  # when the process has ended by itself
        self.established_at: float | None = None
        self.attempts = 0  # that it took for the first link
        self.full = 0  # times that it was told that there is no room
        self.wrong: str | None = None
        self._refusal: object = None
        self._world = world
        self._rng = rng
        world.at(order.comes_at, self._come)

    @property
    def gone(self) -> bool:
        """Whether the process has ended, by itself or not."""
        return self.over_at is not None or self.killed

    def kill(self) -> None:
        """SIGKILL."""
        if not self.gone:
            self.killed = True
            self.loop.kill()

    def abort(self) -> None:
        """It is interrupted."""
        if self.came and not self.gone:
            self.aborted = True
            self.loop.run(self.pipe.abort, Reason.INTERRUPTED, "simulated")

    def reconnect(self) -> None:
        """It is told to find another link."""
        if self.came and not self.gone:
            self.disturbed = True
            self.loop.run(self.pipe.force_reconnect)

    def give_up_after(self, seconds: float) -> None:
        """From now on, it gives up sooner."""
        limit_patience(self.session, seconds)
        if self.came and not self.gone:
            self.loop.run(self.pipe.engine.nudge)

    def _come(self) -> None:
        if not self.killed:
            self.came = True
            self.loop.run(self._start)

    def _start(self) -> None:
        clock = self._world.clock
        self.source = self._dial_one() if self.order.links == 1 else self._dial_several()
        self.pipe = BackedPipe(self.session, self.source, clock)
        self.pipe.engine.observe(self._look)
        self.loop.create_task(self._main())

    def _dial_one(self) -> Dialer:
        backoff = Backoff(self.order.retry_max, self._rng)
        connector = SimulatedConnector(self.network)
        return Dialer(self.session, connector, backoff, self._world.clock)

    def _dial_several(self) -> Dialers:
        manners = SeededManners.of(self._rng)
        connectors = [SimulatedConnector(self.network, manners) for _ in range(self.order.links)]
        return Dialers(self.session, connectors, self.order.retry_max, self._world.clock)

    async def _main(self) -> None:
        try:
            await self.pipe.connect()
            both = await asyncio.gather(self._send(), self._hear(), return_exceptions=True)
            for error in both:
                if error is not None:
                    raise error
            await self.pipe.close()
        except SessionEnded as error:
            self.error = error
        await self.pipe.wait_closed()
        self.over_at = self._world.now
        self.loop.end()

    async def _send(self) -> None:
        pattern, length = PATTERNS[self.order.number], self.order.length
        at = 0
        while at < length:
            upto = min(length, at + self._rng.randint(1, max(2000, length // 3)))
            await self.pipe.write(pattern[at:upto])
            at = upto
            await asyncio.sleep(self._rng.random() * self.order.pause)
        self.pipe.finish()

    async def _hear(self) -> None:
        while data := await self.pipe.read(self._rng.choice((100, 60000))):
            said = b"" if self.visit is None else self.visit.said
            if data != said[self.taken : self.taken + len(data)]:
                self.wrong = f"{self.name} reads what was not said to it, at {self.taken}"
            self.taken += len(data)
        if self.visit is None or not self.visit.finished or self.taken != len(self.visit.said):
            self.wrong = f"{self.name} sees a false end"

    def _look(self) -> None:
        """Something has changed: is it what may happen to a caller?"""
        session = self.session
        if session.established and self.established_at is None:
            self.established_at = self._world.now
            self.attempts = self.source.attempts
        cause = session.history.last_cause
        if cause is not self._refusal and any(each in str(cause) for each in REFUSALS):
            self._refusal = cause
            self.full += 1
            if session.established:
                self.wrong = f"{self.name} comes back, and hears: {cause}"


class Visit:
    """One call of the handler."""

    def __init__(
        self, pipe: BackedPipe, caller: Caller | None, manner: str, rng: random.Random
    ) -> None:
        self.pipe = pipe
        self.caller = caller  # None: a stranger
        self.manner = manner
        self.rng = rng
        self.taken = 0  # bytes
        self.whole = False  # the end was read as well
        self.said = bytearray()
        self.finished = False  # the handler has returned
        self.failed = False  # it has raised something of its own
        self.running = True
        self.wrong: str | None = None

    async def serve(self) -> None:
        """Do what this caller needs."""
        if self.caller is not None:
            if self.caller.visit is not None:
                self.wrong = f"{self.caller.name} is served twice"
            self.caller.visit = self
        try:
            await MANNERS[self.manner](self)
            self.finished = True
        except Mistake:
            self.failed = True
            raise
        finally:
            self.running = False

    async def read(self) -> bytes:
        """The next bytes, which have to be the caller's."""
        data = await self.pipe.read(self.rng.choice((100, 60000)))
        if self.caller is not None:
            pattern, written = PATTERNS[self.caller.order.number], self.caller.pipe.writer.written
            upto = self.taken + len(data)
            if upto > written or data != pattern[self.taken : upto]:
                self.wrong = f"the handler reads what {self.caller.name} has not sent"
            if not data and upto != self.caller.order.length:
                self.wrong = f"the handler sees a false end of {self.caller.name}"
        self.taken += len(data)
        self.whole = not data
        return data

    async def say(self, data: bytes) -> None:
        """Tell the caller this."""
        self.said += data
        await self.pipe.write(data)


async def echo(visit: Visit) -> None:
    """Answer with what has come."""
    while data := await visit.read():
        await visit.say(data)


async def digest(visit: Visit) -> None:
    """Answer with a digest of all that has come."""
    found = hashlib.sha256()
    while data := await visit.read():
        found.update(data)
    await visit.say(found.digest())


async def only_read(visit: Visit) -> None:
    """Answer nothing."""
    while await visit.read():
        pass


async def return_early(visit: Visit) -> None:
    """Go after the first bytes."""
    await visit.read()


async def fail(visit: Visit) -> None:
    """Fail after the first bytes."""
    await visit.read()
    raise Mistake


async def stall(visit: Visit) -> None:
    """Do nothing for long, in the middle."""
    await visit.read()
    await asyncio.sleep(visit.rng.choice((5.0, 40.0, 80.0)))
    if not visit.whole:
        await echo(visit)


async def speak(visit: Visit) -> None:
    """Say something of its own before it listens."""
    number = 7 if visit.caller is None else visit.caller.order.number
    await visit.say(SPEECHES[number][: visit.rng.choice((10, 3000))])
    await only_read(visit)


MANNERS: dict[str, Callable[[Visit], Awaitable[None]]] = {
    each.__name__: each for each in (echo, digest, only_read, return_early, fail, stall, speak)
}
