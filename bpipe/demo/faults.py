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


def leave(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
    """The tampering of a proxy that forwards everything as it comes."""
    return data


class FaultProxy:
    """Relays each connection to ``target``; the n-th meets the n-th of the ``cuts``, if any.

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
        self._on_cut = on_cut
        self._tamper = tamper
        self._open = asyncio.Event()
        self._open.set()
        self._kept: list[socket.socket] = []
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
        self._spawn(self._accept(listening))
        address: tuple[str, int] | str = listening.getsockname()
        return address

    def freeze(self) -> None:
        """The path is away: nothing is forwarded, nothing is closed, and nobody can tell."""
        self._open.clear()

    def thaw(self) -> None:
        """The path is back."""
        self._open.set()

    async def close(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._kept:
            sock.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            caller, _ = await asyncio.get_running_loop().sock_accept(listening)
            caller.setblocking(False)
            self._kept.append(caller)  # here: a task that is cancelled at once never begins
            self.connections += 1
            tamper = partial(self._tamper, self.connections)
            self._spawn(self._serve(caller, next(self._cuts, None), tamper))

    async def _serve(
        self, caller: socket.socket, cut: Cut | None, tamper: Callable[[bool, int, bytes], bytes]
    ) -> None:
        loop = asyncio.get_running_loop()
        unix = isinstance(self._target, str)
        callee = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        callee.setblocking(False)
        self._kept.append(callee)
        try:
            await self._open.wait()
            await loop.sock_connect(callee, self._target)
        except OSError:
            caller.close()
            return
        if not unix:
            for sock in (caller, callee):
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = [
            loop.create_task(
                self._relay(
                    source,
                    sink,
                    cut if cut and cut.upward == upward else None,
                    partial(tamper, upward),
                )
            )
            for source, sink, upward in ((caller, callee, True), (callee, caller, False))
        ]
        try:
            while ways:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                ways = [way for way in ways if way not in done]
                if cut is not None and any(way.result() for way in done):
                    if cut.fault is not Fault.ONE_WAY:
                        await _cancel(ways)  # before the descriptors are somebody else's
                        self._break(cut, caller, callee)
                        return
                    self._break(cut, caller, callee)
        finally:
            await _cancel(ways)
        if cut is None or cut not in self.made:
            caller.close()
            callee.close()

    async def _relay(
        self,
        source: socket.socket,
        sink: socket.socket,
        cut: Cut | None,
        tamper: Callable[[int, bytes], bytes],
    ) -> bool:
        """Forward one direction until its end; returns whether the cut was reached."""
        loop = asyncio.get_running_loop()
        offset = 0
        left = None if cut is None else cut.offset
        try:
            while left != 0:
                data = await loop.sock_recv(source, _CHUNK if left is None else min(left, _CHUNK))
                await self._open.wait()
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return False
                await loop.sock_sendall(sink, tamper(offset, data))
                self.relayed += len(data)
                offset += len(data)
                if left is not None:
                    left -= len(data)
        except OSError:  # one side is reset: the other is to know
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        return left == 0

    def _break(self, cut: Cut, caller: socket.socket, callee: socket.socket) -> None:
        for sock in (caller, callee):
            with contextlib.suppress(OSError):
                if cut.fault is Fault.RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.close()
                elif cut.fault is Fault.EOF:
                    sock.shutdown(socket.SHUT_WR)  # closed later: unread input would be a reset
        self.made.append(cut)
        self._on_cut(cut)


async def _cancel(tasks: list[asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
