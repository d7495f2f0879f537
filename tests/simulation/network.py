"""A simulated network: sockets with the manners of TCP, over a path that misbehaves.

A connection is two channels. What is sent arrives later, in order, in pieces; a fault strikes
when a chosen number of bytes has arrived in one direction. The path itself can be away for a
while: what was on its way then arrives afterwards, as TCP would send it again.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from bpipe.protocol.handshake import Handshake
from tests.simulation.loop import Loop, World
from tests.simulation.narrow import Narrow
from tests.simulation.weather import SEALED_ONLY, Fate, Weather

DRIP = 1.2  # seconds for a byte, where hardly any come: soon enough not to be in doubt of

SYN_RETRIES = (0.0, 1.0, 3.0, 7.0, 15.0, 31.0)  # seconds: when a kernel sends its SYNs


class Network:
    """The place where sockets meet: one listener, and those who dial it."""

    def __init__(
        self,
        world: World,
        weather: Weather,
        log: Callable[[str, str], None],
        handshake: type[Handshake] = Handshake,
    ) -> None:
        self.world = world
        hello, verdict, frame = handshake.hello_size, handshake.verdict_size, handshake.frame_size
        self.seams_up = (hello, hello + frame)  # bytes: where a message of the greeting ends
        self.seams_down = (verdict, verdict + frame)
        self.greeting = hello + verdict + 2 * frame + 9  # bytes: all of it, and a little more
        self.weather = weather
        self.connections = 0
        self.faults = 0
        self.log = log
        self.fates: dict[int, Any] = {}  # how what is behind a connection has ended, by its number
        self.recorded: list[bytearray] = []  # what callers said first, in each connection
        self.left: Callable[[Socket, int], None] | None = None  # call this when bytes have left
        self.closed: Callable[[Socket], None] | None = None  # call this when one is
        self._listening: ListeningSocket | None = None
        self._elsewhere: ListeningSocket | None = None  # where calls are led that go astray
        self._astray_until = 0.0
        self.narrow = Narrow(world, weather)
        self.kind: type[Socket] | None = None  # of sockets; None: those that are here

    def listen(self, loop: Loop) -> ListeningSocket:
        """The listening socket of this process."""
        self._listening = ListeningSocket(loop)
        return self._listening

    def lead_to(self, listening: ListeningSocket) -> None:
        """From now on, connections end there."""
        self._listening = listening

    def listen_elsewhere(self, loop: Loop) -> ListeningSocket:
        """That of a process which is not the one that is called."""
        self._elsewhere = ListeningSocket(loop)
        return self._elsewhere

    def lead_astray(self, until: float) -> None:
        """Up to this time, connections end there."""
        self._astray_until = until

    async def connect(self, loop: Loop) -> Socket:
        """Dial; ConnectionRefusedError if nobody listens, and waits while the path is away."""
        answer: Any = loop.create_future()
        self._syn(loop, answer, self.world.now, 0)
        sock: Socket = await answer
        return sock

    def _syn(self, loop: Loop, answer: Any, began: float, attempt: int) -> None:
        now, weather = self.world.now, self.weather
        if answer.done() or loop.ended:
            return
        if weather.back_at(now) > now:
            if attempt + 1 < len(SYN_RETRIES):
                when = began + SYN_RETRIES[attempt + 1]
                self.world.at(when, self._syn, loop, answer, began, attempt + 1)
            return
        there = weather.rng.uniform(*weather.latency)
        back = weather.rng.uniform(*weather.latency)
        self.world.at(now + there, self._arrive, loop, answer, back)

    def _arrive(self, loop: Loop, answer: Any, back: float) -> None:
        """The SYN is there: the connection exists on the listener's side from now on."""
        astray = self.world.now < self._astray_until
        listening = self._elsewhere if astray else self._listening
        if listening is None or listening.closed or listening.loop.ended:
            self.world.at(self.world.now + back, self._settle, answer, None, loop)
            return
        connection = Connection(self, loop, listening.loop)
        self.connections += 1
        listening.arrive(connection.callee)
        self.world.at(self.world.now + back, self._settle, answer, connection.caller, loop)

    def _settle(self, answer: Any, sock: Socket | None, loop: Loop) -> None:
        if loop.ended or answer.done():
            if sock is not None:
                sock.close()
        elif sock is None:
            answer.set_exception(ConnectionRefusedError(111, "Connection refused"))
        else:
            answer.set_result(sock)


class ListeningSocket:
    """A socket that accepts."""

    family = socket.AF_INET

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        loop.sockets[self] = None  # type: ignore[index]
        self.closed = False
        self.writable = False
        self._backlog: deque[Socket] = deque()

    @property
    def readable(self) -> bool:
        return bool(self._backlog)

    def arrive(self, sock: Socket) -> None:
        self._backlog.append(sock)
        self.loop.ready_to_read(self)  # type: ignore[arg-type]

    def accept(self) -> tuple[Socket, None]:
        if not self._backlog:
            raise BlockingIOError
        return self._backlog.popleft(), None

    def fileno(self) -> int:
        return -1 if self.closed else 3

    def close(self) -> None:
        self.closed = True
        self.loop.sockets.pop(self, None)  # type: ignore[call-overload]
        for sock in self._backlog:
            sock.close()


class Connection:
    """Two sockets, the channels between them, and the fault that awaits them."""

    def __init__(self, network: Network, caller: Loop, callee: Loop) -> None:
        weather = network.weather
        rng = weather.rng
        self.number = network.connections + 1
        self.network = network
        kind = network.kind or Socket
        self.caller, self.callee = kind(self, caller), kind(self, callee)
        self.began = network.world.now
        self.struck = False
        self._recorded: bytearray | None = None
        late = rng.uniform(0, 8) if rng.random() < weather.stragglers else 0.0
        self.latency = rng.uniform(*weather.latency) + late
        up = Channel(self, self.caller, self.callee)
        down = Channel(self, self.callee, self.caller)
        self.caller.join(down, up)
        self.callee.join(up, down)
        self.fate: Fate | None = None
        if weather.fates and rng.random() < weather.faulty:
            self.fate = rng.choice(weather.fates)
            upward = (up, network.seams_up)
            struck, seams = rng.choice((upward, upward, (down, network.seams_down)))
            place = rng.random()
            if place < weather.at_seams:
                struck.limit = rng.choice(seams)
            else:
                struck.limit = rng.randrange(network.greeting if place < 0.4 else weather.reach)

    def record(self, source: Socket, data: bytes) -> None:
        """Somebody listens, and may say it again later."""
        if source is self.caller and self._recorded is None:
            self._recorded = bytearray()
            self.network.recorded.append(self._recorded)
        if source is self.caller and self._recorded is not None:
            self._recorded += data[: self.network.seams_up[-1] - len(self._recorded)]

    def strike(self, struck: Channel) -> None:
        """The fault."""
        assert self.fate is not None
        self.struck = True
        self.network.faults += 1
        self.network.log("!", f"connection {self.number}: {self.fate.name}")
        ends = [self.caller, self.callee]
        if self.fate is Fate.CLOSE:
            for end in ends:
                end.hear_end()
                end.outgoing.lost = True
            return
        if self.fate in SEALED_ONLY:
            struck.trickle(self.fate is Fate.TRICKLE)
            return  # the ends have to notice that themselves
        if self.fate is Fate.LATE:
            self._delay(struck)
            return
        struck.lost = True
        if self.fate is Fate.DEAF:
            return
        for end in ends:
            end.outgoing.lost = True
        if self.fate is Fate.RESET:
            for end in ends:
                end.hear_reset()
        elif self.fate is Fate.ABANDON:
            self.network.weather.rng.choice(ends).hear_reset()

    def _delay(self, struck: Channel) -> None:
        """One end hears of a reset, and what it has said arrives later."""
        struck.source.hear_reset()
        struck.source.incoming.lost = True
        rng = self.network.weather.rng
        self.latency *= rng.uniform(1, 12)  # so it can arrive within the next greeting
        self.latency += rng.choice((0.0, rng.random()))  # or after it


class Channel:
    """One direction of a connection."""

    def __init__(self, connection: Connection, source: Socket, sink: Socket) -> None:
        self.limit: int | None = None  # bytes that arrive before the fault
        self.lost = False  # nothing arrives any more
        self.source = source
        self.sink = sink
        self.on_the_way = 0
        self._connection = connection
        self._network = connection.network
        self._weather = connection.network.weather
        self._latest = 0.0
        self._purges = 0
        self._trickles = False
        self._held_up = bytearray()  # has arrived, and comes byte by byte
        self._travelling: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()

    @property
    def room(self) -> int:
        """What can be sent now."""
        return self._weather.capacity - self.on_the_way - len(self.sink.buffer)

    def send(self, data: bytes) -> None:
        """These bytes set out."""
        self.on_the_way += len(data)
        if self._connection.fate is Fate.LATE:
            self._pass_limit(len(data))
        rng = self._weather.rng
        if self._weather.chunky and rng.random() < 0.5:
            count = rng.randint(1, len(data))
            self._at_arrival(self._arrive, data[:count], count=count)
            data = data[count:]
        if data:
            self._at_arrival(self._arrive, data, count=len(data))

    def send_end(self) -> None:
        """The end of file follows."""
        self._at_arrival(self._arrive_end)

    def send_reset(self) -> None:
        """A reset follows; of what is on the way, only some arrives before it."""
        self._at_arrival(self._arrive_reset)

    def purge(self) -> None:
        """What is on the way is thrown away."""
        self._purges += 1

    def _at_arrival(self, callback: Callable[..., None], *args: Any, count: int = 0) -> None:
        world, weather = self._network.world, self._weather
        jitter = weather.rng.random() * 0.001
        latency = min(self._connection.latency, weather.longest)
        if weather.hiccups and weather.rng.random() < weather.hiccups:
            latency += weather.rng.uniform(0, 8)
        left = self._network.narrow.through(count, upward=self.source.calls)
        when = max(self._latest, left + latency + jitter)
        self._latest = when
        self._travelling.append((self._purges, callback, args))
        world.at(when, self._pass)

    def _pass(self) -> None:
        """The next thing arrives: now, or when the path is back."""
        world = self._network.world
        back = self._weather.resumes_at(world.now, self._connection.began)
        if back > world.now:
            world.at(back, self._pass)
            return
        purges, callback, args = self._travelling.popleft()
        if not self.lost and purges == self._purges:
            callback(*args)

    def trickle(self, trickles: bool) -> None:
        """From now on there is hardly more than nothing, if ``trickles``."""
        self._trickles = trickles

    def _drip(self) -> None:
        if self.lost or self.sink.closed:
            return
        self._deliver(bytes([self._held_up.pop(0)]))
        if self._held_up:
            self._network.world.at(self._network.world.now + DRIP, self._drip)

    def _deliver(self, data: bytes) -> None:
        self.on_the_way -= len(data)
        self.sink.hear(data)

    def _arrive(self, data: bytes) -> None:
        if self._trickles:
            if not self._held_up:
                self._network.world.at(self._network.world.now + DRIP, self._drip)
            self._held_up += data
            return
        if self.limit is None or self._connection.fate is Fate.LATE:
            self._deliver(data)
            return
        before, rest = data[: self.limit], data[self.limit :]
        self._deliver(before)
        self._pass_limit(len(data))
        if rest and self._connection.fate is Fate.CORRUPT:
            rest = bytes([rest[0] ^ 1 << self._weather.rng.randrange(8)]) + rest[1:]
        if rest and self._trickles:
            self._arrive(rest)
        elif rest and not self.lost:
            self._deliver(rest)

    def _pass_limit(self, count: int) -> None:
        """So many bytes more: the fault may strike."""
        if self.limit is None:
            return
        if self.limit > count:
            self.limit -= count
        else:
            self.limit = None
            self._connection.strike(self)

    def _arrive_end(self) -> None:
        self.sink.hear_end()

    def _arrive_reset(self) -> None:
        self.sink.hear_reset()


class Socket:
    """One end of a connection, with the methods of a non-blocking ``socket.socket``."""

    family = socket.AF_INET
    incoming: Channel
    outgoing: Channel

    def __init__(self, connection: Connection, loop: Loop) -> None:
        self.buffer = bytearray()  # arrived and not read
        self.closed = False
        self._connection = connection
        self._loop = loop
        loop.sockets[self] = None
        self._ended = False  # the peer's end of file has come
        self._reset = False
        self._shut = False

    def join(self, incoming: Channel, outgoing: Channel) -> None:
        """These are its channels."""
        self.incoming, self.outgoing = incoming, outgoing

    @property
    def number(self) -> int:
        """That of its connection."""
        return self._connection.number

    @property
    def calls(self) -> bool:
        """Whether it is the end that has connected."""
        return self is self._connection.caller

    @property
    def healthy(self) -> bool:
        """Whether the peer is there, and nothing has happened to the connection."""
        peer = self.incoming.source
        return not (peer.closed or peer._reset or self._connection.struck)

    def move(self, loop: Loop) -> None:
        """Another process has it from now on."""
        self._loop.sockets.pop(self, None)
        self._loop = loop
        loop.sockets[self] = None

    # --- what arrives ---

    def hear(self, data: bytes) -> None:
        """Bytes have come."""
        if self.closed:
            self.outgoing.send_reset()  # nobody is here any more
            return
        self.buffer += data
        self._loop.ready_to_read(self)

    def hear_end(self) -> None:
        """The end of file has come."""
        self._ended = True
        self._loop.ready_to_read(self)

    def hear_reset(self) -> None:
        """A reset has come."""
        self._reset = True
        if self._connection.network.weather.purging:
            self.buffer.clear()
        self._loop.ready_to_read(self)
        self._loop.ready_to_write(self)

    # --- what the loop asks ---

    @property
    def readable(self) -> bool:
        return bool(self.buffer) or self._ended or self._reset

    @property
    def writable(self) -> bool:
        return self._reset or self.outgoing.room > 0

    # --- what the production code calls ---

    def sendmsg(self, views: list[memoryview]) -> int:
        if self._reset:
            raise ConnectionResetError(104, "Connection reset by peer")
        if self._shut or self.closed:
            raise BrokenPipeError(32, "Broken pipe")
        data = b"".join(views)[: max(0, self.outgoing.room)]
        if not data:
            raise BlockingIOError
        self._connection.record(self, data)
        weather = self._connection.network.weather
        if weather.chunky and weather.rng.random() < 0.3:
            data = data[: weather.rng.randint(1, len(data))]
        self.outgoing.send(data)
        if self._connection.network.left is not None:
            self._connection.network.left(self, len(data))
        return len(data)

    def recvmsg_into(self, views: list[memoryview]) -> tuple[int]:
        if not self.buffer:
            if self._reset:
                raise ConnectionResetError(104, "Connection reset by peer")
            if self._ended:
                return (0,)
            raise BlockingIOError
        weather = self._connection.network.weather
        left = len(self.buffer)
        if weather.chunky and weather.rng.random() < 0.3:
            left = weather.rng.randint(1, left)
        total = 0
        for view in views:
            count = min(len(view), left - total)
            view[:count] = self.buffer[total : total + count]
            total += count
        del self.buffer[:total]
        if not self.incoming.source.closed:
            self.incoming.source._loop.ready_to_write(self.incoming.source)
        return (total,)

    def shutdown(self, how: int) -> None:
        if self._reset:
            raise OSError(107, "Transport endpoint is not connected")
        if not self._shut:
            self._shut = True
            self.outgoing.send_end()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._connection.network.closed is not None:
            self._connection.network.closed(self)
        self._loop.sockets.pop(self, None)
        if self.buffer:
            # As TCP does: what is unread makes the kernel send a reset in place of what it holds.
            if self._connection.network.weather.rng.random() < 0.7:
                self.outgoing.purge()
            self.outgoing.send_reset()
        elif not self._shut and not self._reset:
            self._shut = True
            self.outgoing.send_end()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", self._connection.number
