"""Simulated processes with a rate: the sessions of each share it, and each has a peer of its own.

What a process puts on its wires is seen here, frame by frame, in whatever pieces it leaves: the
trace of a session says which frames follow each other on a link, and so what each byte is of.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from bpipe.errors import ProtocolError, SessionEnded
from bpipe.net.source import LinkSource
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import SMALLEST_FRAME, Bucket
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import HEADER_SIZE, Kind
from tests.simulation.loop import Loop, World
from tests.simulation.network import Network, Socket

PATTERN: Final = random.Random(3).randbytes(1 << 18) * 2
TURN: Final = 1 << 18  # bytes after which it begins anew
STREAM: Final = (Kind.DATA, Kind.FIN)


class Task(NamedTuple):
    """What one end of a session does; times are in seconds, counts in bytes."""

    length: int  # of the stream that it sends
    piece: int  # that it writes at once, at most
    pause: float  # between two writes, at most
    appetite: int  # that it reads at once, at most
    rest: float  # between two reads, at most
    sleeps_at: int | None = None  # bytes after which its producer does nothing for a while,
    sleeps: float = 0.0  # so long
    links: int = 1  # that its session may have at once


class Frame:
    """One that was begun on a link."""

    def __init__(self, kind: Kind, number: int, size: int, *, free: bool) -> None:
        self.kind = kind
        self.number = number
        self.left = size  # bytes that are not on the wire
        self.free = free  # it was begun when nothing limited it


class Watcher(Protocol):
    """Who is told what happens on the wires."""

    def left(self, end: End, frame: Frame, count: int) -> None:
        """So many bytes of it."""

    def heard(self, end: End, kind: Kind, number: int) -> None:
        """A frame has come."""

    def attached(self, end: End) -> None:
        """There is another link."""


class Process:
    """Some ends in one loop. ``rate``: bytes a second, 0 for none; None: it has no bucket."""

    def __init__(self, name: str, world: World, rate: int | None) -> None:
        self.name = name
        self.loop = Loop(world, name)
        self.bucket = None if rate is None else Bucket(rate)
        self.ends: list[End] = []

    @property
    def rate(self) -> int:
        """What it is held to, in bytes a second; 0: nothing."""
        return 0 if self.bucket is None else self.bucket.rate

    def drive(self) -> None:
        """The rate has changed: as when its file was read again."""
        for end in self.ends:
            if not end.gone:
                self.loop.run(end.pipe.engine.drive)

    @property
    def gone(self) -> bool:
        """Whether all of its sessions have ended."""
        return all(end.gone for end in self.ends)


class End:
    """One end of a session, in a process."""

    peer: End

    def __init__(
        self,
        process: Process,
        network: Network,
        task: Task,
        limits: Limits,
        buffer_size: int,
        secret: Secret | None,
        rng: random.Random,
    ) -> None:
        self.process = process
        self.name = f"{process.name}, session {len(process.ends)}"
        self.network = network
        self.task = task
        bucket = process.bucket
        self.session = Session(buffer_size, limits, secret, bucket=bucket, links=task.links)
        self.pipe: BackedPipe
        self.taken = 0  # bytes
        self.error: SessionEnded | None = None
        self.over_at: float | None = None
        self.stuck = False  # its link took no more, when it was tried last
        self.asleep = False  # its producer does nothing for a while
        self.wrong: str | None = None
        self.watcher: Watcher
        self.around = HEADER_SIZE if secret is None else HEADER_SIZE + 32  # bytes
        self.small = HEADER_SIZE if secret is None else HEADER_SIZE + 16
        self._rng = rng
        self._greeted: dict[Socket, int] = {}  # bytes of greetings that are still to leave
        self._frames: deque[Frame] = deque()  # on the link that was attached last
        process.ends.append(self)

    def begin(self, world: World, source: Callable[[Session], LinkSource], *, calls: bool) -> None:
        """Its command is typed."""
        self.calls, self._world = calls, world
        self.session.trace_to(self._trace)
        self.process.loop.run(self._start, source)

    def _start(self, source: Callable[[Session], LinkSource]) -> None:
        loop = self.process.loop
        self.pipe = BackedPipe(self.session, source(self.session), self._world.clock)
        self.pipe.engine.observe(self._look)
        loop.create_task(self._main())

    async def _main(self) -> None:
        try:
            await self.pipe.connect()
            loop = self.process.loop
            sending = loop.create_task(self._send())
            await self._hear()
            await sending
            await self.pipe.close()
        except SessionEnded as error:
            self.error = error
        await self.pipe.wait_closed()
        self.over_at = self._world.now
        if self.process.gone:
            self.process.loop.end()

    async def _send(self) -> None:
        task, at = self.task, 0
        while at < task.length:
            count = min(task.length - at, self._rng.randint(1, task.piece), TURN)
            await self.pipe.write(PATTERN[at % TURN : at % TURN + count])
            if task.sleeps_at is not None and at < task.sleeps_at <= at + count:
                self.asleep = True
                await self._sleep(task.sleeps)
                self.asleep = False
            at += count
            if task.pause:
                await self._sleep(self._rng.random() * task.pause)
        self.pipe.finish()

    async def _hear(self) -> None:
        while data := await self.pipe.read(min(TURN, self._rng.randint(1, self.task.appetite))):
            at = self.taken % TURN
            if data != PATTERN[at : at + len(data)]:
                self.wrong = f"{self.name} takes wrong bytes from {self.taken} on"
            self.taken += len(data)
            if self.task.rest:
                await self._sleep(self._rng.random() * self.task.rest)
        if self.taken != self.peer.task.length:
            self.wrong = f"{self.name} sees a false end"

    async def _sleep(self, seconds: float) -> None:
        future = self.process.loop.create_future()
        self.process.loop.call_later(seconds, future.set_result, None)
        await future

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self.over_at is not None

    def calm(self) -> None:
        """Nothing of what it does is slow any more."""
        self.task = self.task._replace(pause=0.0, rest=0.0, appetite=1 << 16)

    def reconnect(self) -> None:
        """It is told to find another link."""
        if not self.gone:
            self.process.loop.run(self.pipe.force_reconnect)

    def _look(self) -> None:
        cause = self.session.history.last_cause
        if isinstance(cause, ProtocolError):
            self.wrong = f"{self.name}: a protocol error: {cause}"

    # --- what is on its wires ---

    def _trace(self, sign: str, text: str) -> None:
        word, _, rest = text.partition(" ")
        if sign == "=" and word == "attached:":
            self._frames, self.stuck = deque(), False
            self.watcher.attached(self)
        elif sign in "<>":
            number, _, count = rest.partition(" +")
            kind = Kind[word]
            if sign == "<":
                self.watcher.heard(self, kind, int(number))
                return
            size = int(count) + self.around if count else self.small
            free = not self.session.rate.limit
            self._frames.append(Frame(kind, int(number), size, free=free))

    def put(self, sock: Socket, count: int) -> None:
        """So many bytes have left over this socket of it."""
        seams = self.network.seams_up if self.calls else self.network.seams_down
        greeting = self._greeted.get(sock, seams[-1])
        self._greeted[sock] = max(0, greeting - count)
        count -= greeting
        if count > 0:
            self.stuck = sock.outgoing.room <= 0
        while count > 0:
            if not self._frames:
                self.wrong = f"{self.name}: {count} bytes on a link that are of no frame"
                return
            frame = self._frames[0]
            part = min(count, frame.left)
            frame.left -= part
            count -= part
            if not frame.left:
                self._frames.popleft()
            self.watcher.left(self, frame, part)

    def release(self) -> None:
        """The rate has changed: what has begun goes on without one."""
        for frame in self._frames:
            frame.free = True

    @property
    def midway(self) -> bool:
        """Whether there is more to come of a frame of the stream that has begun, and is large."""
        return any(each.kind in STREAM and each.left > SMALLEST_FRAME for each in self._frames)
