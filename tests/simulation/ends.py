"""A simulated process at one end: the production pipe, a producer and a consumer."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import bpipe.engine
import bpipe.net.dialer
import bpipe.net.link
from bpipe.errors import LinkLost, ProtocolError, SessionEnded
from bpipe.net.address import Address, Endpoint
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock as real_clock
from bpipe.net.dialer import Dialer
from bpipe.net.link import MOMENT
from bpipe.net.listener import Listener
from bpipe.net.outlet import Outlet
from bpipe.net.schedule import Schedule
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from tests.simulation.loop import Loop, World
from tests.simulation.network import Network

PATTERN = random.Random(0).randbytes(1 << 16)

_CLOCKED = (bpipe.net.dialer, bpipe.net.link, bpipe.engine)
_world: World | None = None


def enter(world: World) -> None:
    """From now on the production code's clock is this world's, until ``leave``."""
    global _world
    _world = world
    for module in _CLOCKED:
        module.clock = clock  # type: ignore[attr-defined]


def leave() -> None:
    """The production code's clock is the real one again."""
    for module in _CLOCKED:
        module.clock = real_clock  # type: ignore[attr-defined]


def clock() -> float:
    """The world's time."""
    assert _world is not None
    return _world.now


class SimulatedDialer(Dialer):
    """The production dialer, but for the system calls that connect."""

    def __init__(self, network: Network, retry_max: float, rng: random.Random) -> None:
        super().__init__(Address("simulated", 1))
        self.schedule = Schedule(Backoff(retry_max, rng))
        self._network = network

    async def _dial(self, number: int) -> tuple[Any, Endpoint]:
        loop: Any = asyncio.get_running_loop()
        sock = await self._network.connect(loop)
        return sock, Endpoint(socket.AF_INET, ("127.0.0.1", 1))


@dataclass
class Plan:
    """What a process does; times are in seconds, counts in bytes."""

    length: int  # of the stream that it sends
    buffer_size: int
    limits: Limits
    secret: Secret | None = None
    piped: bool = False  # what it receives may go past its memory
    produce_every: float = 0.01
    consume_every: float = 0.01
    appetite: int = 4096  # bytes that are taken at once, at most


class SimulatedOutlet(Outlet):
    """The production outlet, but for the system calls: a consumer's pipe of unknown depth."""

    def __init__(self, end: End, world: World, rng: random.Random) -> None:
        super().__init__(-1, lambda: not end.consuming)
        self.writable = True
        self._end = end
        self._world = world
        self._rng = rng

    def take(self, sock: Any, limit: int) -> int | None:
        if not sock.readable:
            raise BlockingIOError
        if not self.writable or self._rng.random() < 0.2:
            self.writable = False
            self._world.at(self._world.now + self._rng.random() * 2 * MOMENT, self._drain)
            return None
        room = memoryview(bytearray(min(limit, self._rng.randint(1, self._end.plan.appetite))))
        count: int = sock.recvmsg_into([room])[0]
        self._end.take(room[:count])
        return count

    def _drain(self) -> None:
        self.writable = True
        self._end.loop.ready_to_write(cast(Any, self))


class End:
    """One process: its pipe, what it has sent and taken, and how it ended."""

    def __init__(
        self,
        name: str,
        world: World,
        plan: Plan,
        rng: random.Random,
        reconnect: Callable[[Loop], SimulatedDialer | Listener],
    ) -> None:
        self.name = name
        self.plan = plan
        self.loop = Loop(world, name)
        self.taken = 0  # bytes that the consumer has
        self.closed = False  # the consumer has the end of the stream as well
        self.over_at: float | None = None  # when the process has ended by itself
        self.killed = False
        self.left = False  # the consumer has closed its pipe
        self.wrong: str | None = None  # the first thing that was not right
        self._world = world
        self._rng = rng
        self.pipe: BackedPipe = self.loop.run(self._start, reconnect)
        self.engine = self.pipe.engine
        self.session: Session = self.engine.session
        self.outage_at: float | None = None  # when a link was lost; since then nothing has moved
        self._stood = (-1, -1)
        self._cues: list[tuple[int, Callable[[], None]]] = []
        self._loss_cues: list[Callable[[], None]] = []
        self._heard_cues: list[Callable[[], None]] = []
        self.session.tick = self._tick
        self.session.detach = self._detach
        self._producing = self.consuming = True  # the next time is in the world's calendar
        world.at(world.now, self._produce)
        world.at(world.now, self._consume)
        self.engine.observe(self._look)

    def _start(self, reconnect: Callable[[Loop], SimulatedDialer | Listener]) -> BackedPipe:
        pipe = BackedPipe(
            reconnect(self.loop),
            buffer_size=self.plan.buffer_size,
            limits=self.plan.limits,
            secret=self.plan.secret,
        )
        pipe.writer.producing = True
        if self.plan.piped:
            pipe.engine.use_outlet(SimulatedOutlet(self, self._world, self._rng))
        self.loop.create_task(self._main(pipe))
        return pipe

    async def _main(self, pipe: BackedPipe) -> None:
        try:
            await pipe.connect()
        except SessionEnded:
            pass
        await pipe.wait_closed()
        self.over_at = self._world.now
        self.loop.end()

    def _tick(self, now: float) -> None:
        """The session's own, after which no timer may lie in the past."""
        Session.tick(self.session, now)
        deadline = self.session.deadline()
        if deadline is not None and deadline <= now:
            late = now - deadline
            self.wrong = self.wrong or f"{self.name}: a timer stays {late:.3f} s in the past"

    def _detach(self, cause: LinkLost, now: float) -> None:
        """The session's own; and two ends that are right never say what may not be said."""
        session = self.session
        if isinstance(cause, ProtocolError):
            self.wrong = self.wrong or f"{self.name}: a protocol error: {cause}"
        stands = session.writer.acked, session.reader.received
        if stands != self._stood:
            self._stood, self.outage_at = stands, now
        while self._loss_cues:
            self._world.at(now, self._loss_cues.pop())
        Session.detach(session, cause, now)

    @property
    def gone(self) -> bool:
        """Whether the process has ended, by itself or not."""
        return self.over_at is not None or self.killed

    def kill(self) -> None:
        """SIGKILL: the kernel closes the sockets."""
        if self.over_at is None:
            self.killed = True
            self.loop.run(self._close_sockets)
            self.loop.end()

    def leave(self) -> None:
        """The consumer closes its pipe, of which it has read everything."""
        if not (self.loop.ended or self.closed):
            self.left = True
            self.loop.run(self.engine.consumer_gone, "simulated")

    def forget(self) -> None:
        """What comes next belongs to another peer."""
        self.outage_at, self._stood = None, (-1, -1)

    def _close_sockets(self) -> None:
        if self.engine.link is not None:
            self.engine.link._sock.close()  # nobody reads it while its outlet is full
        for sock in list(self.loop._readers):
            sock.close()

    def cue(self, taken: int, callback: Callable[..., None], *args: Any) -> None:
        """Call this as soon as the consumer has taken so many bytes."""
        self._cues.append((taken, lambda: callback(*args)))

    def cue_loss(self, callback: Callable[..., None], *args: Any) -> None:
        """Call this as soon as a link is lost."""
        self._loss_cues.append(lambda: callback(*args))

    def cue_heard(self, callback: Callable[..., None], *args: Any) -> None:
        """Call this as soon as the peer is heard in the session."""
        self._heard_cues.append(lambda: callback(*args))

    # --- the producer and the consumer, as threads of the process ---

    def _look(self) -> None:
        """Something has changed: the producer and the consumer may have to go on."""
        writer, reader, engine = self.pipe.writer, self.pipe.reader, self.engine
        while self.session.established and self._heard_cues:
            self._world.at(self._world.now, self._heard_cues.pop())
        if not self._producing and (writer.room or engine.refusing):
            self._producing = True
            self._after(self.plan.produce_every, self._produce)
        if not self.consuming and (reader.buffered or reader.drained):
            self.consuming = True
            self._after(self.plan.consume_every, self._consume)

    def _after(self, mean: float, callback: Callable[[], None]) -> None:
        self._world.at(self._world.now + self._rng.uniform(0.5, 1.5) * mean, callback)

    def _produce(self) -> None:
        if self.loop.ended:
            return
        writer, engine = self.pipe.writer, self.engine
        if engine.refusing or writer.written >= self.plan.length:
            more = writer.written < self.plan.length
            self.loop.run(engine.call, lambda: engine.finish(more=more))
            return
        limit = min(
            self._rng.randint(1, max(2000, self.plan.length // 3)),
            self.plan.length - writer.written,
        )
        self._producing = False
        for view in writer.space(limit):
            at = writer.written
            view[:] = PATTERN[at : at + len(view)]
            writer.wrote(len(view))
            self.loop.run(engine.nudge)

    def _consume(self) -> None:
        if self.loop.ended or self.pipe.failure is not None:
            return
        reader, engine = self.pipe.reader, self.engine
        if reader.stopped is not None:
            return
        if reader.drained:
            self.closed = True
            self.loop.run(engine.call, engine.delivered_end)
            return
        self.consuming = False
        for view in reader.readable(self._rng.randint(1, self.plan.appetite)):
            self.take(view)
            reader.took(len(view))
            self.loop.run(engine.nudge)

    def take(self, data: memoryview) -> None:
        """The consumer has these bytes, whichever way they came."""
        if data != PATTERN[self.taken : self.taken + len(data)]:
            self.wrong = self.wrong or f"{self.name}: wrong bytes from {self.taken} on"
        self.taken += len(data)
        for cue in self._cues[:]:
            if self.taken >= cue[0]:
                self._cues.remove(cue)
                self._world.at(self._world.now, cue[1])
