"""The reconnect function of ``connect``: dial, greet, and try again until that works.

When to dial is said in ``schedule.py``. A link that falls silent is in doubt before it is given
up: TCP waits longer and longer before it sends again, so a path may be back for seconds without
the link showing it. Then dials go out beside it, and the first that is answered takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

from bpipe.errors import (
    AddressError,
    BpipeError,
    LinkLost,
    NobodyListens,
    NotConnected,
    code_of,
    explain,
)
from bpipe.net.address import Address, Endpoint, require_local, resolve, same_user
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock
from bpipe.net.link import Link, prepare
from bpipe.net.schedule import ATTEMPT_TIMEOUT, Schedule
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.session import Session

_RESOLUTION: Final = 0.01  # seconds; a clock may be a little behind a timer
_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)
_ADVICE: Final = {  # for a first greeting that nobody answers, by whether it is sealed
    True: ("is it bpipe, with the same secret?", "secret"),
    False: ("is it bpipe, and without a secret?", "stranger"),
}


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
        self._watch: asyncio.Task[None] | None = None  # over the link that was found last

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
        """Forget a look-up and dials that nobody waits for any more."""
        self._stop_watching()
        self._hang_up()
        if self._lookup is not None:
            self._lookup.cancel()

    async def __call__(self, session: Session) -> Link:
        """A link that is greeted and attached to the session. Waits as long as it takes."""
        self._stop_watching()
        fresh = session.outage_since is None or session.outage_since != self._outage
        self._outage = session.outage_since
        self.schedule.begin(clock(), fresh=fresh)
        session.calling(clock())
        self.on_change()
        try:
            while True:
                link = await self._attempt(session)
                if link is not None:
                    self._watch = asyncio.create_task(self._watch_over(link, session))
                    return link
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for dial in self._dials.values():
            dial.cancel()
            dial.add_done_callback(_drop)
        self._dials.clear()
        self.schedule.clear()

    async def _attempt(self, session: Session) -> Link | None:
        """Greet the next who answers; None: nobody does yet, or the greeting fails."""
        number = await self._dialled(session)
        return None if number is None else await self._greet(session, number)

    async def _dialled(self, session: Session) -> int | None:
        """The number of a dial that has ended; else do what is due, and wait until then."""
        for number, dial in self._dials.items():
            if dial.done():
                return number
        self._dial_again(session)
        self._wake.clear()
        wake = asyncio.create_task(self._wake.wait())
        delay = max(0.0, self.schedule.deadline() - clock())
        try:
            await asyncio.wait(
                [wake, *self._dials.values()], timeout=delay, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            wake.cancel()
        return None

    def _dial_again(self, session: Session) -> None:
        """Give up the attempts that have had their time, and start the one that is due."""
        now = clock()
        while (number := self.schedule.abandon(now)) is not None:
            oldest = number == min(self._dials)
            self._dials.pop(number).cancel()
            if oldest and not session.attached:  # the others only make room
                session.attempt_failed(LinkLost(f"no answer from {self.name}", "silent"), now)
                self.on_change()
        if now >= self.schedule.next_at:
            number = self.schedule.start(now)
            self._dials[number] = asyncio.create_task(self._dial(number))

    # --- beside a link ---

    async def _watch_over(self, link: Link, session: Session) -> None:
        """Dial whenever this link is in doubt; give it up for a connection that is answered."""
        while link.cause is None:
            now = clock()
            if (trust := session.doubted_at(now) - now) > 0:
                self._hang_up()
                await asyncio.sleep(trust + _RESOLUTION)
                self.schedule.hurry(clock())
            elif (number := await self._dialled(session)) is None:
                pass
            elif self._dials[number].exception() is not None:
                del self._dials[number]
                self.schedule.failed(number, clock())
            elif session.doubted_at(now := clock()) <= now:
                silence = f"nothing was heard for {session.silence(now):.1f} s"
                link.fail(LinkLost(f"{silence}, and a new connection is answered"))

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    # --- one attempt ---

    async def _greet(self, session: Session, number: int) -> Link | None:
        """Greet over the connection that this dial has made; None if it has not, or that fails."""
        dial = self._dials.pop(number)
        cause: BpipeError
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
            cause = error
            if not greeting.answered and not session.established:
                advice, code = _ADVICE[session.secret is not None]
                cause = LinkLost(f"{self.name}: {error}; {advice}", code)
        except (AddressError, NotConnected) as error:
            cause = error
        except OSError as error:
            kind = NobodyListens if error.errno in _NOBODY else LinkLost
            cause = kind(f"{self.name}: {explain(error)}", code_of(error))
        now = clock()
        self.schedule.failed(number, now)
        session.attempt_failed(cause, now)
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
            raise _Unresolved(str(error), error.code) from None
        if not self._anywhere:
            require_local(self._address, endpoints)
        return endpoints


class _Unresolved(NotConnected):
    """A name that has no address now; it may have one later."""


def _drop(dial: asyncio.Task[tuple[socket.socket, Endpoint]]) -> None:
    """A dial that nobody needs any more may have succeeded all the same."""
    if not dial.cancelled() and dial.exception() is None:
        dial.result()[0].close()
