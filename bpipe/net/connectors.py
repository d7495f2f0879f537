"""Connectors: how one connection to the other side is made, over each kind of carrier.

A carrier is a connected socket, whatever is behind it. A new one is a new connector, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from bpipe.errors import AddressError, NotConnected
from bpipe.net.address import Address, require_text
from bpipe.net.clock import clock
from bpipe.net.peer import require_same_user
from bpipe.net.resolve import Endpoint, require_local, resolve
from bpipe.net.schedule import TCP, Manners
from bpipe.net.sockets import forget

if TYPE_CHECKING:
    from bpipe.net.carrier import Fate

LOOK_UP: Final = 0.25  # seconds for a look-up before the address that was good is tried without it
QUEUE_LOOK: Final = 0.01  # seconds between two tries at a Unix socket whose queue is full


def _nothing() -> None:
    """There is nothing to release."""


async def _nobody() -> None:
    """There is no process behind it."""


class Connection(NamedTuple):
    """A carrier that was made.

    Who has it calls ``released`` once ``sock`` is closed for whatever reason, or not wanted any
    more: what there is behind it ends then. ``fate`` waits for a moment.
    """

    sock: socket.socket  # non-blocking
    peer: str  # who is at the other side, for people
    endpoint: Endpoint | None = None  # None: what is behind it has no address
    released: Callable[[], None] = _nothing
    fate: Callable[[], Awaitable[Fate | None]] = _nobody  # how the process behind it has ended


class Connector(Protocol):
    """Makes connections to one address. Nothing here blocks but by ``await``."""

    @property
    def name(self) -> str:
        """The address, for people."""

    @property
    def manners(self) -> Manners:
        """How the next attempt is made."""

    async def check(self, timeout: float) -> None:
        """Raise AddressError if it is known within ``timeout`` seconds that it may not be used."""

    async def connect(self, turn: int) -> Connection:
        """A connection; ``turn`` counts the attempts of one outage, from 0 on.

        Raises OSError or LinkLost if nobody answers, AddressError if who answers may not be called,
        Unresolved if there is nobody to call now. Another SessionEnded is final: no attempt will
        ever be better, and the session ends with it. A connection that is cancelled, or fails,
        leaves nothing behind.
        """

    def prefer(self, connection: Connection) -> None:
        """This one was good: begin with its like the next time."""

    async def close(self) -> None:
        """No more connections are needed. Waits, a second at most, until nothing is left of any."""

    def abandon(self) -> None:
        """This process ends now: nothing is to be left of any connection."""


class Unresolved(NotConnected):
    """A name that has no address now; it may have one later."""


class Unix:
    """Connects to a Unix socket, behind which has to be a process of this user.

    Always: of an abstract one, anybody may have taken the name before.
    """

    manners: Final = TCP

    def __init__(self, path: str) -> None:
        require_text(path[1:] if path.startswith("\0") else path)
        self._endpoint = Endpoint(socket.AF_UNIX, path)
        self.name = str(self._endpoint)

    async def check(self, timeout: float) -> None:
        """Nothing is to be looked up."""

    async def connect(self, turn: int) -> Connection:
        """The connection."""
        endpoint = self._endpoint
        return Connection(await _connect(endpoint, anywhere=False), self.name, endpoint)

    def prefer(self, connection: Connection) -> None:
        """There is only one."""

    async def close(self) -> None:
        """There is nothing to forget."""

    def abandon(self) -> None:
        """There is nothing that would be left."""


class Tcp:
    """Connects to a host and port.

    Without ``anywhere`` only loopback is called, and only this user's processes, where the system
    tells whose they are.
    """

    manners: Final = TCP

    def __init__(self, address: Address, *, anywhere: bool = False) -> None:
        self.name = str(address)
        self._address = address
        self._anywhere = anywhere
        self._lookup: asyncio.Future[list[Endpoint]] | None = None  # one at a time
        self._good: Endpoint | None = None  # where the last connection that was good went

    async def check(self, timeout: float) -> None:
        """Raise AddressError if the address resolves to one that may not be used.

        If that is not known after ``timeout`` seconds, the first attempt will find it out.
        """
        await asyncio.wait([self._look_up()], timeout=timeout)
        try:
            self._found()
        except Unresolved:
            pass

    async def connect(self, turn: int) -> Connection:
        """A connection to one of the endpoints; the last error if none of them answers."""
        endpoints = await self._endpoints()
        turn %= len(endpoints)  # a silent one does not hide the others
        for last, endpoint in enumerate(endpoints[turn:] + endpoints[:turn], 1 - len(endpoints)):
            try:
                sock = await _connect(endpoint, anywhere=self._anywhere)
                return Connection(sock, str(endpoint), endpoint)
            except OSError:
                if not last:
                    raise
        raise AssertionError("an address has at least one endpoint")

    def prefer(self, connection: Connection) -> None:
        """Begin with this endpoint the next time."""
        self._good = connection.endpoint

    async def close(self) -> None:
        """Forget a look-up that nobody waits for any more."""
        if self._lookup is not None:
            self._lookup.cancel()

    def abandon(self) -> None:
        """There is nothing that would be left."""

    async def _endpoints(self) -> list[Endpoint]:
        """The address, resolved anew, and first the endpoint that was good before.

        That one need not wait for a name that cannot be resolved now.
        """
        good = self._good
        await asyncio.wait([self._look_up()], timeout=None if good is None else LOOK_UP)
        try:
            found = self._found()
        except Unresolved:
            if good is None:
                raise
            return [good]
        return sorted(found, key=lambda endpoint: endpoint != good)

    def _look_up(self) -> asyncio.Future[list[Endpoint]]:
        """The look-up that is under way, or a new one."""
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.ensure_future(resolve(self._address))
            self._lookup.add_done_callback(lambda lookup: lookup.cancelled() or lookup.exception())
        return self._lookup

    def _found(self) -> list[Endpoint]:
        """What it has found by now. AddressError if one of them may not be called."""
        lookup = self._lookup
        if lookup is None or not lookup.done() or lookup.cancelled():
            raise Unresolved(f"{self.name} is not resolved yet", "unresolved")
        try:
            endpoints = lookup.result()
        except AddressError as error:
            raise Unresolved(str(error), error.code) from None
        if not self._anywhere:
            require_local(self._address, endpoints)
        return endpoints


def connector(address: Address, *, anywhere: bool = False) -> Tcp | Unix:
    """What connects to this address; ``anywhere`` is as for ``Tcp``."""
    return Tcp(address, anywhere=anywhere) if address.path is None else Unix(address.path)


async def _connect(endpoint: Endpoint, *, anywhere: bool) -> socket.socket:
    """A connection to this endpoint. Raises OSError, AddressError if it is another user's.

    ``anywhere``: other users' processes may be there, but not behind a Unix socket.
    """
    sock = await _reach(endpoint)
    try:
        require_same_user(sock, str(endpoint), anywhere=anywhere)
    except BaseException:
        sock.close()
        raise
    return sock


async def _reach(endpoint: Endpoint) -> socket.socket:
    """A connection to whoever is at this endpoint; OSError if that cannot be."""
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
        if endpoint.family == socket.AF_UNIX:
            _require_place(sock)
        elif sock.getsockname() == sock.getpeername():
            forget(sock)  # else the kernel would keep the port for a minute, and from the listener
            raise OSError(errno.ECONNREFUSED, "connection refused")  # by itself
    except BaseException:
        sock.close()
        raise
    return sock


def _require_place(sock: socket.socket) -> None:
    """BlockingIOError if the queue is full: asyncio takes that for a connection that is made."""
    try:
        sock.getpeername()
    except OSError:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


async def dial(address: Address, limit: float) -> socket.socket:
    """A connection to a service, anybody's, that is there now; all its endpoints are tried.

    Raises OSError, the last one if there are several, AddressError for a name that has no address,
    and TimeoutError when ``limit`` seconds are over.
    """
    until = clock() + limit
    try:
        endpoints = await asyncio.wait_for(_endpoints(address), limit)
        for left in range(len(endpoints), 1, -1):  # a silent one leaves the others their share
            share = (until - clock()) / left
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                return await asyncio.wait_for(_reach_in_turn(endpoints[-left]), share)
        return await asyncio.wait_for(_reach_in_turn(endpoints[-1]), until - clock())
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer in {limit:g} s") from None


async def _endpoints(address: Address) -> list[Endpoint]:
    if address.path is not None:
        return [Endpoint(socket.AF_UNIX, address.path)]
    return await resolve(address)


async def _reach_in_turn(endpoint: Endpoint) -> socket.socket:
    """The same as ``_reach``, after those who wait before us at a Unix socket whose queue is full.

    That queue cannot be waited for: it is looked at.
    """
    while True:
        try:
            return await _reach(endpoint)
        except BlockingIOError:
            await asyncio.sleep(QUEUE_LOOK)
