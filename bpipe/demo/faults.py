"""A proxy that breaks the connections through it, at chosen byte offsets.

The demonstration runs through it, and so do the tests: what is shown is what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

GREETING_SIZE: Final = 150  # bytes each way, about: the greeting, and the first frames

_CHUNK: Final = 1 << 18
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Fault(enum.StrEnum):
    """What happens to a connection."""

    RESET = "reset"
    EOF = "end of file"
    SILENCE = "silence"  # nothing is forwarded and nothing is closed
    ONE_WAY = "silence one way"  # the other direction goes on


class Cut(NamedTuple):
    """One connection's fate: the fault comes after ``offset`` bytes in one direction."""

    fault: Fault
    upward: bool  # from the caller to the listener
    offset: int


def random_cuts(rng: random.Random, count: int, largest: int) -> Iterator[Cut]:
    """``count`` cuts within ``largest`` bytes; a quarter of them in the greeting or just after."""
    for _ in range(count):
        fault = rng.choices(list(Fault), weights=[8, 8, 1, 1])[0]
        if rng.random() < 0.25:
            yield Cut(fault, rng.random() < 0.5, rng.randrange(GREETING_SIZE))
        else:
            yield Cut(fault, True, rng.randrange(largest))


Tamper = Callable[[int, bool, int, bytes], bytes]
_TamperOne = Callable[[bool, int, bytes], bytes]  # of this connection


def leave(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
    """The tampering of a proxy that forwards everything as it comes."""
    return data


class _Connection:
    """One that is relayed, and the cut that is to come, if any."""

    def __init__(self, caller: socket.socket, callee: socket.socket, cut: Cut | None) -> None:
        self.caller = caller
        self.callee = callee
        self.cut = cut
        self.broken = False  # by a cut

    def left(self, upward: bool, offset: int) -> int:
        """How many bytes from this offset on may still go this way: at most as many as are read."""
        if self.cut is None or self.cut.upward != upward:
            return _CHUNK
        return min(max(self.cut.offset - offset, 0), _CHUNK)

    def inherit(self, cut: Cut) -> bool:
        """Whether this cut of another one is to come here; not where there is one, or was."""
        if self.cut is not None or self.broken:
            return False
        self.cut = cut
        return True

    def break_with(self, fault: Fault) -> None:
        """The cut has come."""
        for sock in (self.caller, self.callee):
            with contextlib.suppress(OSError):
                if fault is Fault.RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.close()
                elif fault is Fault.EOF:
                    sock.shutdown(socket.SHUT_WR)  # closed later: unread input would be a reset
        self.cut, self.broken = None, True

    def close(self) -> None:
        self.caller.close()
        self.callee.close()


class FaultProxy:
    """Relays connections to ``target``; each of the ``cuts`` is met by one of them, in this order.

    A connection that ends before its cut has come leaves it to the next one that has none, so that
    every cut is made, also when a caller gives an attempt up for another one.

    Addresses are ``(host, port)``, or the path of a Unix socket. ``tamper`` sees all that is
    relayed, and says what is forwarded in its place: it is called with the number of the
    connection, from 1 on, whether the bytes go upward, their offset, and the bytes.
    """

    def __init__(
        self,
        target: tuple[str, int] | str,
        cuts: Iterable[Cut] = (),
        on_cut: Callable[[Cut], None] = lambda cut: None,
        tamper: Tamper = leave,
    ) -> None:
        self.connections = 0
        self.made: list[Cut] = []  # so far
        self.relayed = 0  # bytes
        self._target = target
        self._cuts = iter(cuts)
        self._left_over: deque[Cut] = deque()  # by connections that ended too early
        self._on_cut = on_cut
        self._tamper = tamper
        self._open = asyncio.Event()
        self._open.set()
        self._listening: list[socket.socket] = []
        self._kept: list[socket.socket] = []
        self._live: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, path: str | None = None) -> tuple[str, int] | str:
        """Listen, at a free port of the loopback or at this path; returns the address."""
        if path is None:
            listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        else:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(path)
            listening.listen(64)
        listening.setblocking(False)
        self._kept.append(listening)
        self._listening.append(listening)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)
        address: tuple[str, int] | str = listening.getsockname()
        return address

    def freeze(self) -> None:
        """The path is away: nothing is forwarded, nothing is closed, and nobody can tell."""
        self._open.clear()

    def thaw(self) -> None:
        """The path is back."""
        self._open.set()

    def strike(self, fault: Fault, count: int) -> None:
        """This happens to so many of the connections, the oldest first, as soon as a byte comes up.

        The cuts that were to come there are left to others.
        """
        whole = [each for each in self._live if not each.broken]
        for connection in whole[:count]:
            if connection.cut is not None:
                self._left_over.append(connection.cut)
            connection.cut = Cut(fault, True, 0)

    async def close(self) -> None:
        """Close everything."""
        for sock in self._listening:
            asyncio.get_running_loop().remove_reader(sock)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._kept:
            sock.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody calls. Not in a task: one that is cancelled could lose whom it has accepted."""
        try:
            caller, _ = listening.accept()
        except OSError:  # and has left again
            return
        callee = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
        for sock in (caller, callee):
            sock.setblocking(False)
            self._kept.append(sock)
        self.connections += 1
        cut = self._left_over.popleft() if self._left_over else next(self._cuts, None)
        connection = _Connection(caller, callee, cut)
        self._live.append(connection)
        self._spawn(self._serve(connection, partial(self._tamper, self.connections)))

    async def _serve(self, connection: _Connection, tamper: _TamperOne) -> None:
        try:
            if await self._reach(connection):
                await self._relay_both(connection, tamper)
        finally:
            self._live.remove(connection)
        if connection.cut is not None:
            self._leave_over(connection.cut)

    async def _reach(self, connection: _Connection) -> bool:
        """Connect to the target; returns whether anybody is there."""
        try:
            await self._open.wait()
            await asyncio.get_running_loop().sock_connect(connection.callee, self._target)
        except OSError:
            connection.close()
            return False
        for sock in (connection.caller, connection.callee):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def _leave_over(self, cut: Cut) -> None:
        if not any(connection.inherit(cut) for connection in reversed(self._live)):
            self._left_over.append(cut)

    async def _relay_both(self, connection: _Connection, tamper: _TamperOne) -> None:
        """Forward both directions until they end, or until a cut that ends them."""
        loop = asyncio.get_running_loop()
        ways = [
            loop.create_task(self._relay(connection, upward, partial(tamper, upward)))
            for upward in (True, False)
        ]
        try:
            while ways:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                ways = [way for way in ways if way not in done]
                if (cut := connection.cut) is not None and any(way.result() for way in done):
                    if cut.fault is not Fault.ONE_WAY:
                        await _cancel(ways)  # before the descriptors are somebody else's
                    self._break(connection, cut)
                    if cut.fault is not Fault.ONE_WAY:
                        return
        finally:
            await _cancel(ways)
        if not connection.broken:
            connection.close()

    async def _relay(
        self, connection: _Connection, upward: bool, tamper: Callable[[int, bytes], bytes]
    ) -> bool:
        """Forward one direction until its end; returns whether the cut was reached."""
        loop = asyncio.get_running_loop()
        source, sink = connection.caller, connection.callee
        if not upward:
            source, sink = sink, source
        offset = 0
        try:
            while most := connection.left(upward, offset):
                data = await loop.sock_recv(source, most)
                await self._open.wait()
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return False
                data = data[: connection.left(upward, offset)]  # it may have got a cut meanwhile
                await loop.sock_sendall(sink, tamper(offset, data))
                self.relayed += len(data)
                offset += len(data)
        except OSError:  # one side is reset: the other is to know
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            return False
        return True

    def _break(self, connection: _Connection, cut: Cut) -> None:
        connection.break_with(cut.fault)
        self.made.append(cut)
        self._on_cut(cut)


async def _cancel(tasks: list[asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
