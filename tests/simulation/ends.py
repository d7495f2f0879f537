"""A simulated process at one end: the production pipe, a producer and a consumer."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from bpipe.errors import ProtocolError, SessionEnded
from bpipe.net.backoff import Backoff
from bpipe.net.connectors import Connection
from bpipe.net.link import MOMENT
from bpipe.net.outlet import Outlet
from bpipe.net.resolve import Endpoint
from bpipe.net.schedule import TCP, Manners
from bpipe.net.source import LinkSource
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Ended
from bpipe.run.join import Outcome
from tests.simulation.loop import Loop, World
from tests.simulation.network import Network
from tests.simulation.programs import PATTERN, Manner, NearManner

_HERE = Endpoint(socket.AF_INET, ("127.0.0.1", 1))


class SeededManners(Manners):
    """Those of TCP, and all dice are the world's."""

    rng: random.Random

    @classmethod
    def of(cls, rng: random.Random) -> SeededManners:
        """With these dice."""
        manners = cls(*TCP)
        manners.rng = rng
        return manners

    def backoff(self, cap: float | None = None, rng: random.Random | None = None) -> Backoff:
        return super().backoff(cap, rng or self.rng)


class SimulatedConnector:
    """Connects over the simulated network: a ``Connector``."""

    name = "simulated"
    via: str = ""

    def __init__(self, network: Network, manners: Manners = TCP) -> None:
        self.manners = manners
        self._network = network

    async def check(self, timeout: float) -> None:
        """Nothing is to be looked up."""

    async def connect(self, turn: int) -> Connection:
        """A connection, if the weather allows one."""
        loop: Any = asyncio.get_running_loop()
        return Connection(cast(Any, await self._network.connect(loop)), str(_HERE), _HERE)

    def prefer(self, connection: Connection) -> None:
        """There is only one way."""

    async def close(self) -> None:
        """There is nothing to forget."""

    def abandon(self) -> None:
        """There is nothing that would be left."""


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
    manner: Manner | None = None  # of the program that does this
    needs: int = 0  # what the session has to have
    links: int = 1  # that it may have at once
    near: NearManner | None = None  # of who has called for a program elsewhere


class SimulatedOutlet(Outlet):
    """The production outlet, but for the system calls: a consumer's pipe of unknown depth."""

    def __init__(self, end: End, world: World, rng: random.Random) -> None:
        super().__init__(-1, lambda: not end.consuming, world.clock)
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
        source: Callable[[Session], LinkSource],
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
        self.far: End  # the peer
        self.outcome: Outcome | None = None  # when it has ended by itself
        self._world = world
        self._rng = rng
        size, limits = plan.buffer_size, plan.limits
        self.session = Session(size, limits, plan.secret, plan.needs, links=plan.links)
        self.pipe: BackedPipe = self.loop.run(self._start, source)
        self.engine = self.pipe.engine
        self.outage_at: float | None = None  # when a link was lost; since then nothing has moved
        self._stood = (-1, -1)
        if plan.links > 1:
            self._watch_losses(self.session)
        self._losses = 0  # links that were attached, and are not any more
        self._cues: list[tuple[int, Callable[[], None]]] = []
        self._loss_cues: list[Callable[[], None]] = []
        self._heard_cues: list[Callable[[], None]] = []
        self._producing = self.consuming = True  # the next time is in the world's calendar
        world.at(world.now, self._produce)
        world.at(world.now, self._consume)
        self.engine.observe(self._look)

    def _start(self, source: Callable[[Session], LinkSource]) -> BackedPipe:
        pipe = BackedPipe(self.session, source(self.session), self._world.clock)
        pipe.engine.begin()
        if self.plan.piped:
            pipe.engine.use_outlet(SimulatedOutlet(self, self._world, self._rng))
        self.loop.create_task(self._main(pipe))
        return pipe

    async def _main(self, pipe: BackedPipe) -> None:
        try:
            await pipe.connect()
            self._connected(pipe)
        except SessionEnded:
            pass
        await pipe.wait_closed()
        self.over_at = self._world.now
        reader = pipe.reader
        self.outcome = Outcome(
            pipe.failure, pipe.status(), far=reader.finish, left_early=reader.left_early
        )
        self.loop.end()

    def _connected(self, pipe: BackedPipe) -> None:
        """There is a link, for the first time."""

    def _look_at_links(self) -> None:
        """Two ends that are right never say what may not be said; and no timer is forgotten."""
        session, now = self.session, self._world.now
        losses = session.history.links - session.slots.live.bit_count()
        if losses != self._losses:
            self._losses = losses
            if session.terms.slots == 1:
                self._note_outage()
            while self._loss_cues:
                self._world.at(now, self._loss_cues.pop())
        cause = session.history.last_cause
        if isinstance(cause, ProtocolError):
            self.wrong = self.wrong or f"{self.name}: a protocol error: {cause}"

    def _note_outage(self) -> None:
        """There is no link any more, or was none for a moment."""
        stands = self.session.writer.acked, self.session.reader.received
        if stands != self._stood:
            self._stood, self.outage_at = stands, self._world.now

    def _watch_losses(self, session: Any) -> None:
        """Of several links the last one counts."""
        detach = session.detach

        def detached(loss: Any, now: float, slot: int = 0) -> None:
            detach(loss, now, slot)
            if session.terms.slots > 1 and not session.attached:
                self._note_outage()

        session.detach = detached

    @property
    def gone(self) -> bool:
        """Whether the process has ended, by itself or not."""
        return self.over_at is not None or self.killed

    def face(self, far: End) -> None:
        """This is the peer, from now on."""
        self.far = far

    @property
    def accepted(self) -> int:
        """The bytes that may be acknowledged."""
        return self.taken

    @property
    def has_more(self) -> bool:
        """Whether its producer has not written everything."""
        return self.pipe.writer.written < self.plan.length

    @property
    def total(self) -> int:
        """The bytes that its producer has written, or would have."""
        return max(self.pipe.writer.written, self.plan.length) + self._was_cut

    @property
    def _was_cut(self) -> bool:
        """Whether nobody has waited for the end of its stream."""
        writer = self.pipe.writer
        return writer.ended.how is Ended.CUT and not writer.unwanted

    def may_have_stopped(self, offset: int) -> bool:
        """Whether its consumer can have taken so much when it was stopped."""
        return offset == self.taken

    def gives_all(self, count: int) -> bool:
        """Whether so many bytes are all of its stream, and it has ended that."""
        writer = self.pipe.writer
        ended = writer.mark is not None and writer.ended.how is not Ended.CUT
        return ended and count == self.plan.length

    def kill(self) -> None:
        """SIGKILL: the kernel closes the sockets."""
        if self.over_at is None:
            self.killed = True
            self.loop.kill()

    def leave(self) -> None:
        """The consumer closes its pipe, of which it has read everything."""
        if not (self.loop.ended or self.closed):
            self.left = True
            self.loop.run(self.engine.consumer_gone, "simulated")

    def calm(self) -> None:
        """Nothing is slow any more."""
        self.plan.consume_every = self.plan.produce_every = 0.01
        self.plan.appetite = 60000
        self.loop.stay_awake()

    def forget(self) -> None:
        """What comes next belongs to another peer."""
        self.outage_at, self._stood = None, (-1, -1)

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
        self._look_at_links()
        while self.session.established and self._heard_cues:
            self._world.at(self._world.now, self._heard_cues.pop())
        if not self._producing and (self._has_space() or self.engine.refusing):
            self._producing = True
            self._after(self.plan.produce_every, self._produce)
        if not self.consuming and self._has_come():
            self.consuming = True
            self._after(self.plan.consume_every, self._consume)

    def _has_space(self) -> bool:
        """Whether the producer can go on."""
        return self.pipe.writer.room > 0

    def _has_come(self) -> bool:
        """Whether the consumer has something to do."""
        reader = self.pipe.reader
        return reader.buffered > 0 or reader.drained

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
        self._call_cues()

    def _call_cues(self) -> None:
        for cue in self._cues[:]:
            if self.taken >= cue[0]:
                self._cues.remove(cue)
                self._world.at(self._world.now, cue[1])
