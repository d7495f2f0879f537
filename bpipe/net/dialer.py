"""The reconnect function of ``connect``: dial, greet, and try again until that works.

``Schedule`` decides, without a socket; ``Dialer`` does. A dial does not wait for the kernel's
SYN timers, which double from one second: while nobody answers, a new attempt starts every half
second beside the old ones. Three are under way at most: the oldest may take its ten seconds, for
a path with a long round trip; the other two are replaced in turn, so that a path that returns
meets a fresh SYN within half a second, however long it was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from bpipe.errors import AddressError, LinkLost, NotConnected, explain
from bpipe.net.address import Address, Endpoint, require_local, resolve, same_user
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock
from bpipe.net.link import Link, prepare
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.session import Session

OVERLAP: Final = 0.5  # seconds without an answer after which another attempt starts
ATTEMPTS: Final = 3  # under way at once
ATTEMPT_TIMEOUT: Final = 10.0  # seconds

_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)
_ADVICE: Final = {  # for a first greeting that nobody answers, by whether it is sealed
    True: "is it bpipe, with the same secret?",
    False: "is it bpipe, and without a secret?",
}


class Schedule:
    """When to start an attempt to connect, and which to abandon; times in seconds."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.next_at = 0.0  # when the next attempt starts
        self.attempts = 0  # started in this outage
        self._pending: list[tuple[int, float]] = []  # attempts without an answer, oldest first

    def begin(self, now: float, *, fresh: bool) -> None:
        """A link is needed; ``fresh``: the last one was good, so there is no reason to wait."""
        self._pending.clear()
        if fresh:
            self.backoff.reset()
            self.attempts = 0
            self.next_at = now
        else:
            self.next_at = now + self.backoff.next()

    def hurry(self, now: float) -> None:
        """Somebody knows that the path is back."""
        self.next_at = now

    def start(self, now: float) -> int:
        """The next attempt starts now; returns its number."""
        self.attempts += 1
        self._pending.append((self.attempts, now))
        self.next_at = now + OVERLAP
        return self.attempts

    def abandon(self, now: float) -> int | None:
        """The number of an attempt that has to be given up now, if there is one."""
        if self._pending and now >= self._pending[0][1] + ATTEMPT_TIMEOUT:
            return self._pending.pop(0)[0]
        if len(self._pending) >= ATTEMPTS and now >= self.next_at:
            return self._pending.pop(1)[0]
        return None

    def answered(self, number: int) -> None:
        """The attempt has a connection."""
        self._pending = [entry for entry in self._pending if entry[0] != number]

    def failed(self, number: int, now: float) -> None:
        """The attempt ended with an error, or its greeting did."""
        self.answered(number)
        self.next_at = now + self.backoff.next()

    def deadline(self) -> float:
        """When to look again."""
        oldest = self._pending[0][1] + ATTEMPT_TIMEOUT if self._pending else self.next_at
        return min(self.next_at, oldest)


class Dialer:
    """Obtains greeted links by dialling ``address``.

    ``retry_max`` caps the delay between attempts, in seconds. Without ``anywhere`` only loopback
    and Unix addresses are dialled.
    """

    def __init__(
        self,
        address: Address,
        *,
        anywhere: bool = False,
        retry_max: float = 1.0,
    ) -> None:
        self.name = str(address)
        self.exposed = False
        self.refused = 0
        self.on_change: Callable[[], None] = lambda: None
        self._address = address
        self.schedule = Schedule(Backoff(retry_max))
        self._anywhere = anywhere
        self._outage: float | None = None
        self._wake = asyncio.Event()
        self._lookup: asyncio.Future[list[Endpoint]] | None = None  # one at a time
        self._dials: dict[int, asyncio.Task[tuple[socket.socket, Endpoint]]] = {}

    async def check(self) -> None:
        """Raise AddressError if the address resolves to one that may not be used."""
        with contextlib.suppress(_Unresolved, TimeoutError):
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                await self._endpoints()

    @property
    def attempts(self) -> int:
        """How many were started in this outage."""
        return self.schedule.attempts

    @property
    def next_at(self) -> float:
        """When the next attempt starts."""
        return self.schedule.next_at

    def hurry(self) -> None:
        """Try now."""
        self.schedule.hurry(clock())
        self._wake.set()

    async def close(self) -> None:
        """Forget a look-up that nobody waits for any more."""
        if self._lookup is not None:
            self._lookup.cancel()

    async def __call__(self, session: Session) -> Link:
        """A link that is greeted and attached to the session. Waits as long as it takes."""
        fresh = session.outage_since is None or session.outage_since != self._outage
        self._outage = session.outage_since
        self.schedule.begin(clock(), fresh=fresh)
        session.calling(clock())
        self.on_change()
        try:
            while True:
                link = await self._attempt(session)
                if link is not None:
                    return link
        finally:
            for dial in self._dials.values():
                dial.cancel()
                dial.add_done_callback(_drop)
            self._dials.clear()

    async def _attempt(self, session: Session) -> Link | None:
        """Do what is due, wait for what happens next, and greet the first who answers."""
        schedule = self.schedule
        now = clock()
        while (number := schedule.abandon(now)) is not None:
            oldest = number == min(self._dials)
            self._dials.pop(number).cancel()
            if oldest:  # the others only make room
                session.attempt_failed(f"no answer from {self.name}", now)
                self.on_change()
        if now >= schedule.next_at:
            number = schedule.start(now)
            self._dials[number] = asyncio.create_task(self._dial(number))
        self._wake.clear()
        wake = asyncio.create_task(self._wake.wait())
        delay = max(0.0, schedule.deadline() - clock())
        try:
            await asyncio.wait(
                [wake, *self._dials.values()], timeout=delay, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            wake.cancel()
        for number, dial in list(self._dials.items()):
            if dial.done():
                del self._dials[number]
                link = await self._greet(session, number, dial)
                if link is not None:
                    return link
        return None

    async def _greet(
        self, session: Session, number: int, dial: asyncio.Task[tuple[socket.socket, Endpoint]]
    ) -> Link | None:
        """Greet over the connection that this dial has made; None if it has not, or that fails."""
        nobody = False
        try:
            sock, endpoint = dial.result()
            self.schedule.answered(number)
            prepare(sock, session.limits.heartbeat)
            greeting = CallerGreeting(session)
            link = Link(sock, greeting, str(endpoint))
            link.on_traffic = self.on_change
            try:
                await asyncio.shield(link.greeted)  # it is the link's, and not to be cancelled
            except asyncio.CancelledError:
                link.fail(LinkLost("cancelled"))
                raise
            return link
        except LinkLost as error:
            cause = str(error)
            if not greeting.answered and not session.established:
                cause = f"{self.name}: {cause}; {_ADVICE[session.secret is not None]}"
        except (AddressError, NotConnected) as error:
            cause = str(error)
        except OSError as error:
            nobody = error.errno in _NOBODY
            cause = f"{self.name}: {explain(error)}"
        now = clock()
        self.schedule.failed(number, now)
        session.attempt_failed(cause, now, nobody=nobody)
        self.on_change()
        return None

    async def _dial(self, number: int) -> tuple[socket.socket, Endpoint]:
        """Connect to one of the address's endpoints; the last error if none answers."""
        endpoints = await self._endpoints()
        turn = number % len(endpoints)  # so that a silent endpoint does not hide the others
        for last, endpoint in enumerate(endpoints[turn:] + endpoints[:turn], 1 - len(endpoints)):
            sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
                if sock.getsockname() == sock.getpeername() and not isinstance(
                    endpoint.sockaddr, str
                ):
                    raise OSError(errno.ECONNREFUSED, "connection refused")  # by itself
                if endpoint.family == socket.AF_UNIX and not same_user(sock):
                    raise AddressError(f"{endpoint}: the socket belongs to another user")
                return sock, endpoint
            except OSError:
                sock.close()
                if not last:
                    raise
            except BaseException:
                sock.close()
                raise
        raise AssertionError("an address has at least one endpoint")

    async def _endpoints(self) -> list[Endpoint]:
        """The address, resolved anew. AddressError for one that may not be dialled."""
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.ensure_future(resolve(self._address))
            self._lookup.add_done_callback(lambda lookup: lookup.cancelled() or lookup.exception())
        try:
            endpoints = await asyncio.shield(self._lookup)
        except AddressError as error:
            raise _Unresolved(str(error)) from None
        if not self._anywhere:
            require_local(self._address, endpoints)
        return endpoints


class _Unresolved(NotConnected):
    """A name that has no address now; it may have one later."""


def _drop(dial: asyncio.Task[tuple[socket.socket, Endpoint]]) -> None:
    """A dial that nobody needs any more may have succeeded all the same."""
    if not dial.cancelled() and dial.exception() is None:
        dial.result()[0].close()
