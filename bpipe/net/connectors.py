"""Connectors: how one connection to the other side is made, over each kind of carrier.

A carrier is a connected socket, whatever is behind it. A new one is a new connector, and no more.
"""

from __future__ import annotations

import asyncio
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
    from bpipe.net.origin import Origin

Prepare = Callable[[socket.socket], None]

LOOK_UP: Final = 0.25  # seconds for a look-up before the address that was good is tried without it


def _nothing() -> None:
    """There is nothing to release, and nobody who speaks."""


async def _nobody() -> None:
    """There is no process behind it."""


class Connection(NamedTuple):
    """A carrier that was made.

    Who has it calls ``released`` once ``sock`` is closed for whatever reason, or not wanted any
    more: what there is behind it ends then. Before that ``hush``, if it is not to have a last word.
    ``fate`` waits for a moment.
    """

    sock: socket.socket  # non-blocking
    peer: str  # who is at the other side, for people
    endpoint: Endpoint | None = None  # None: what is behind it has no address
    released: Callable[[], None] = _nothing
    fate: Callable[[], Awaitable[Fate | None]] = _nobody  # how the process behind it has ended
    hush: Callable[[], None] = _nothing


class Connector(Protocol):
    """Makes connections to one address. Nothing here blocks but by ``await``."""

    @property
    def name(self) -> str:
        """The address, for people."""

    @property
    def via(self) -> str:
        """From where it goes out, for people; "" if that was not chosen."""

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

    via: Final = ""
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
    tells whose they are. ``origin``: from where; ``congestion``: how that is dealt with. Both are
    chosen by the system, if nothing is said.
    """

    manners: Final = TCP

    def __init__(
        self,
        address: Address,
        *,
        anywhere: bool = False,
        origin: Origin | None = None,
        congestion: str = "",
    ) -> None:
        self.name = str(address)
        self.via = "" if origin is None else str(origin)
        self._address = address
        self._anywhere = anywhere
        self._origin = origin
        self._congestion = congestion
        self._prepare = self._set_out if origin is not None or congestion else None
        self._lookup: asyncio.Future[list[Endpoint]] | None = None  # one at a time
        self._asked_at = 0.0  # when it was begun
        self._good: Endpoint | None = None  # where the last connection that was good went

    async def check(self, timeout: float) -> None:
        """Raise AddressError if the address resolves to one that may not be used.

        If that is not known after ``timeout`` seconds, the first attempt will find it out. Also, if
        a connection cannot go out from where it is to.
        """
        if self._origin is not None:
            self._origin.check()
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
                sock = await _connect(endpoint, self._prepare, anywhere=self._anywhere)
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

        That one need not wait for a name that cannot be resolved now; and not at all for a look-up
        that has had its time in other attempts.
        """
        good, lookup = self._good, self._look_up()
        patience = None if good is None else max(0.0, self._asked_at + LOOK_UP - clock())
        await asyncio.wait([lookup], timeout=patience)
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
            self._asked_at = clock()
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
        return endpoints if self._origin is None else self._origin.suited(endpoints, self.name)

    def _set_out(self, sock: socket.socket) -> None:
        """Before it connects. LinkLost if it cannot begin where it is to."""
        if self._origin is not None:
            self._origin.use(sock)
        if self._congestion:
            from bpipe.net.congestion import use_congestion  # which few need

            use_congestion(self._congestion, [sock])


def connector(address: Address, *, anywhere: bool = False) -> Tcp | Unix:
    """What connects to this address; ``anywhere`` is as for ``Tcp``."""
    return Tcp(address, anywhere=anywhere) if address.path is None else Unix(address.path)


async def _connect(
    endpoint: Endpoint, prepare: Prepare | None = None, *, anywhere: bool
) -> socket.socket:
    """A connection to this endpoint. Raises OSError, AddressError if it is another user's.

    ``prepare`` is called before it connects. ``anywhere``: other users' processes may be there, but
    not behind a Unix socket.
    """
    sock = await reach(endpoint, prepare)
    try:
        require_same_user(sock, str(endpoint), anywhere=anywhere)
    except BaseException:
        sock.close()
        raise
    return sock


async def reach(endpoint: Endpoint, prepare: Prepare | None = None) -> socket.socket:
    """A connection to whoever is at this endpoint; OSError if that cannot be.

    ``prepare`` is called with the socket before it connects, and may raise what it likes.
    """
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if prepare is not None:
            prepare(sock)
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
