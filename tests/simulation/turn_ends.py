"""Simulated processes that send to where a file is received, one after the other, and that one."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

from bpipe.ends.local import Sink
from bpipe.engine import Engine
from bpipe.errors import SessionEnded
from bpipe.net.address import Address
from bpipe.net.backoff import Backoff
from bpipe.net.bound import Bound
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.pipe import BackedPipe
from bpipe.protocol.blocks import Base
from bpipe.protocol.patience import Limits
from bpipe.protocol.records import Record, RecordWriter
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE, RECORDS
from bpipe.run.join import Join, Outcome
from bpipe.run.succession import Succession
from bpipe.server import Server, Terms
from tests.simulation.ends import SimulatedConnector
from tests.simulation.loop import Loop, World
from tests.simulation.network import ListeningSocket, Network

NEEDS = RECORDS | FILE
NOTHING = Base(0, 1024).pack()


class Sender:
    """One process that sends bytes of its own, and what it came to."""

    def __init__(
        self,
        name: str,
        world: World,
        network: Network,
        limits: Limits,
        secret: Secret | None,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.loop = Loop(world, name)
        self.session = Session(rng.choice((1500, 6000, 60_000)), limits, secret)
        self.stream = rng.randbytes(rng.choice((0, 10, 3000, 10_000)))
        self.came_at = world.now
        self.error: SessionEnded | None = None
        self.over_at: float | None = None  # when the process has ended, however
        self.killed = False
        self._world = world
        self._rng = rng
        self._tell: Callable[[], None] = lambda: None
        self._rest = rng.choice((0.001, 0.3, 2.0))  # seconds between two writes
        self.loop.run(self._start, network)

    def _start(self, network: Network) -> None:
        backoff = Backoff(1.0, random.Random(self._rng.getrandbits(64)))
        source = Dialer(self.session, SimulatedConnector(network), backoff, self._world.clock)
        self.pipe = BackedPipe(self.session, source, self._world.clock)
        self.loop.create_task(self._main())

    async def _main(self) -> None:
        try:
            await self.pipe.connect()
            await self._send()
            await self.pipe.close()
        except SessionEnded as error:
            self.error = error
        await self.pipe.wait_closed()
        self.over_at = self._world.now
        self.loop.end()
        self._tell()

    async def _send(self) -> None:
        at = 0
        while at < len(self.stream):
            upto = at + self._rng.randint(1, 1000)
            await self.pipe.write(self.stream[at:upto])
            at = upto
            if self._rng.random() < 0.5:
                await self._sleep()
        self.pipe.finish()

    async def _sleep(self) -> None:
        future = self.loop.create_future()
        self.loop.call_later(self._rng.random() * self._rest, future.set_result, None)
        await future

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Call this when it has ended, however."""
        self._tell = tell

    def kill(self) -> None:
        """SIGKILL."""
        self.killed = True
        self.over_at = self._world.now
        self.loop.kill()
        self._tell()

    def reconnect(self) -> None:
        """It is told to find another link."""
        self.loop.run(self.pipe.force_reconnect)

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.over_at is not None

    @property
    def succeeded(self) -> bool:
        """Whether it says that its stream was taken."""
        return self.gone and not self.killed and self.error is None

    @property
    def ending(self) -> str:
        """How it has ended, in a word."""
        if self.killed:
            return "killed"
        return "success" if self.error is None else type(self.error).__name__


class Content(Sink):
    """Takes what there is of a stream where nothing lies that it is compared with."""

    kinds = frozenset({Record.DATA, Record.TOTAL})

    @property
    def kind(self) -> Record:
        """Of what was lent last."""
        return self._records.kind


class Taker:
    """The ends of one session of the receiver: they take what comes, and have had nothing."""

    sends, receives = True, True
    result = outcome = None

    def __init__(self) -> None:
        self.taken = b""
        self.whole = False
        self.session: Session | None = None

    def start(self, engine: Engine) -> None:
        """The pipe is up."""
        self.session = engine.session
        sink, source = Content(engine, "simulated"), RecordWriter(engine.writer)
        source.space(len(NOTHING))[0][:] = NOTHING
        source.wrote(len(NOTHING), Record.BASE)
        engine.finish()

        def take() -> None:
            if self.whole or engine.session.over:
                return
            while views := sink.lend(1 << 16):
                data = b"".join(views)
                self.taken += data if sink.kind is Record.DATA else b""
                sink.took(len(data))
            if sink.half.drained:
                self.whole = True
                sink.ended()

        engine.observe(lambda: engine.call(take))
        engine.call(take)

    def hurry(self) -> bool:
        """There is nothing."""
        return False

    async def wait(self) -> None:
        """There is nothing."""


class Quiet:
    """In the place of a process, of what counts the bytes of its loop, and of what tells of it."""

    @property
    def scheduling(self) -> Quiet:
        """The same."""
        return self

    @contextlib.contextmanager
    def counting(self, engine: Engine) -> Iterator[None]:
        """Nothing is counted."""
        yield

    def __init__(self, known: list[Session]) -> None:
        self._known = known

    def take(self, engine: Engine, ends: Any = None) -> None:
        """There are no signals."""
        self._known.append(engine.session)

    def release(self, engine: Engine) -> None:
        """There are no signals."""

    def follow(self, engine: Engine) -> None:
        """Nobody is told."""


class Watched(Server):
    """The production server; who it has made a session for is ``known``."""

    known: list[Session]

    def more(self) -> Session | None:
        session = super().more()
        if session is not None:
            self.known.append(session)
        return session


class Receiver:
    """One process that listens; ``lasting``: with -k."""

    def __init__(
        self,
        world: World,
        listening: ListeningSocket,
        limits: Limits,
        secret: Secret | None,
        *,
        lasting: bool,
    ) -> None:
        self.loop = listening.loop
        self.takers: list[Taker] = []
        self.outcome: Outcome | None = None
        self.over = False
        self.server: Watched | None = None
        self._known: list[Session] = []
        self._clock = world.clock
        bound = Bound([cast(Any, listening)], "simulated")
        terms = Terms(True, secret, 60_000, limits, NEEDS)
        self.loop.run(self._serve if lasting else self._listen, bound, terms)

    def _another(self) -> Taker:
        self.takers.append(Taker())
        return self.takers[-1]

    def _listen(self, bound: Bound, terms: Terms) -> None:
        listener = Listener(bound, anywhere=True, secret=terms.secret, clock=self._clock)
        session = terms.session()
        pipe = BackedPipe(session, listener.source(session), self._clock)
        quiet = cast(Any, Quiet(self._known))
        self._succession = Succession(pipe, self._another(), quiet, quiet, self._another)
        self.loop.create_task(self._main())

    async def _main(self) -> None:
        self.outcome = await self._succession.run()
        self.over = True
        self.loop.end()

    def _serve(self, bound: Bound, terms: Terms) -> None:
        self.server = Watched(Address(host="simulated"), self._handle, 1, terms, self._clock)
        self.server.known = self._known
        self.server.open(bound)

    async def _handle(self, pipe: BackedPipe) -> None:
        await Join(pipe, self._another(), cast(Any, Quiet([]))).run()

    def stop(self) -> None:
        """No more sessions are wanted."""
        if self.server is not None and not self.over:
            self.loop.run(self.loop.create_task, self._stop(self.server))

    async def _stop(self, server: Server) -> None:
        server.stop()
        await server.wait_closed()
        self.over = True

    def pause(self, seconds: float, *, asleep: bool) -> None:
        """It runs nothing for a while."""
        if not self.over:
            self.loop.pause(seconds, asleep=asleep)

    @property
    def linked(self) -> bool:
        """Whether anybody has a link, heard or not."""
        return any(session.attached for session in self._known)

    @property
    def sessions(self) -> list[tuple[Taker, Session]]:
        """Those that were begun."""
        return [(each, each.session) for each in self.takers if each.session is not None]
