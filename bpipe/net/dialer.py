"""The reconnect function of ``connect``: dial, greet, and try again until that works.

Theory of operation. An attempt is a connection and the first half of a greeting, up to the
listener's verdict: until then nothing has changed at the other end, so several may be under way,
and a carrier that accepts while its own path is dead costs no more than one that does not. When
to start them is said in ``schedule.py``. The first that is answered goes on alone.

A link that falls silent is in doubt before it is given up: TCP waits longer and longer before it
sends again, so a path may be back for seconds without the link showing it. Then attempts go out
beside it. It is held meanwhile, so that it says nothing that would contradict the greetings. If it
is heard, they are void; the first verdict takes its place.
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
from bpipe.net.address import Address, Endpoint, require_local, resolve
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock
from bpipe.net.link import Link, forget, prepare
from bpipe.net.peer import require_same_user
from bpipe.net.schedule import Schedule
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.session import Session

EARLY_CHECK: Final = 1.0  # seconds for a look-up before the first attempt
SECOND_HALF: Final = 1.0  # seconds that the second half of a greeting may take, or
ROUND_TRIPS: Final = 3  # times as long as the first, if that is more
LOOK_UP: Final = 0.25  # seconds for a look-up before the address that was good is tried without it

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
        self._good: Endpoint | None = None  # where the last link went
        self._attempts: dict[int, asyncio.Task[Link]] = {}  # by number, the oldest first
        self._answered: int | None = None  # the one that goes on alone
        self._link: Link | None = None  # the one that was found last
        self._watch: asyncio.Task[None] | None = None  # over it

    async def check(self, timeout: float) -> None:
        """Raise AddressError if the address resolves to one that may not be used.

        If that is not known after ``timeout`` seconds, the first attempt will find it out.
        """
        with contextlib.suppress(_Unresolved, TimeoutError):
            async with asyncio.timeout(timeout):
                await self._resolve()

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
        """Forget a look-up and attempts that nobody waits for any more."""
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
            while (link := await self._step(session)) is None:
                pass
        finally:
            self._hang_up()
        self._link = link
        if session.limits.give_up_after > 0:  # else this link is the only one
            self._watch = asyncio.create_task(self._watch_over(link, session))
        return link

    # --- attempts ---

    async def _step(self, session: Session) -> Link | None:
        """The link of an attempt that has succeeded; else do what is due, and wait a little."""
        for number, attempt in self._attempts.items():
            if attempt.done():
                return self._conclude(number, session)
        self._start_what_is_due(session)
        self._wake.clear()
        wake = asyncio.create_task(self._wake.wait())
        delay = max(0.0, self.schedule.deadline() - clock()) if self._answered is None else None
        try:
            await asyncio.wait(
                [wake, *self._attempts.values()],
                timeout=delay,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            wake.cancel()
        return None

    def _start_what_is_due(self, session: Session) -> None:
        """Give up the attempts that have had their time, and start the next one."""
        if self._answered is not None:
            return
        now = clock()
        while (number := self.schedule.abandon(now)) is not None:
            oldest = number == min(self._attempts)
            self._drop(number)
            if oldest and not session.attached:  # the others only make room
                session.attempt_failed(LinkLost(f"no answer from {self.name}", "silent"), now)
                self.on_change()
        if now >= self.schedule.next_at:
            number = self.schedule.start(now)
            self._attempts[number] = asyncio.create_task(self._attempt(number, session))

    async def _attempt(self, number: int, session: Session) -> Link:
        """Connect and greet, as far as the verdict; and then, alone, to the end."""
        sock, endpoint = await self._dial(number)
        prepare(sock, session.limits.heartbeat)
        loop = asyncio.get_running_loop()
        verdict: asyncio.Future[None] = loop.create_future()

        def answered(accepted: bool) -> None:
            self._go_on_alone(number, session, accepted)
            verdict.set_result(None)

        if session.attached and self._link is not None:
            self._link.hold()
        greeting, began = CallerGreeting(session, answered), clock()
        link = Link(sock, greeting, str(endpoint))
        link.on_traffic = self.on_change
        try:
            await asyncio.wait([verdict, link.greeted], return_when=asyncio.FIRST_COMPLETED)
            patience = max(SECOND_HALF, ROUND_TRIPS * (clock() - began))
            await asyncio.wait([link.greeted], timeout=patience)
        except asyncio.CancelledError:
            link.fail(LinkLost("not needed any more"))
            raise
        if not link.greeted.done():
            link.fail(LinkLost("no answer to the greeting", "silent"))
        if (error := link.greeted.exception()) is None:
            self._good = endpoint
            return link
        if greeting.answered or session.established:
            raise error
        advice, code = _ADVICE[session.secret is not None]
        raise LinkLost(f"{self.name}: {error}; {advice}", code)

    def _go_on_alone(self, number: int, session: Session, accepted: bool) -> None:
        """An attempt is answered: the others, and a silent link, are not needed any more.

        Raises LinkLost if it is this one that is not.
        """
        if number not in self._attempts:
            raise LinkLost("not needed any more")
        now = clock()
        if session.doubted_at(now) > now and session.attached:
            raise LinkLost("the old connection is heard again")
        self._answered = number
        for other in [other for other in self._attempts if other != number]:
            self._drop(other)
        self.schedule.clear()
        if accepted and self._link is not None:
            silence = f"nothing was heard for {session.silence(now):.1f} s"
            self._link.fail(LinkLost(f"{silence}, and a new connection is answered", "silent"))
            self._stop_watching()

    def _conclude(self, number: int, session: Session) -> Link | None:
        """The link that this attempt has made; None if it has failed."""
        attempt = self._attempts.pop(number)
        if self._answered == number:
            self._answered = None
        cause: BpipeError
        try:
            return attempt.result()
        except (LinkLost, AddressError, NotConnected) as error:
            cause = error
        except OSError as error:
            kind = NobodyListens if error.errno in _NOBODY else LinkLost
            cause = kind(f"{self.name}: {explain(error)}", code_of(error))
        now = clock()
        self.schedule.failed(number, now)
        if not session.attached:
            session.attempt_failed(cause, now)
            self.on_change()
        return None

    def _hang_up(self) -> None:
        for number in list(self._attempts):
            self._drop(number)
        self._answered = None
        self.schedule.clear()
        if self._link is not None:
            self._link.release()

    def _drop(self, number: int) -> None:
        attempt = self._attempts.pop(number)
        attempt.cancel()
        attempt.add_done_callback(_let_go)

    # --- beside a link ---

    async def _watch_over(self, link: Link, session: Session) -> None:
        """Attempt to find another whenever this link is in doubt."""
        while link.cause is None:
            now = clock()
            if (trust := session.doubted_at(now) - now) > 0:
                self._hang_up()
                await asyncio.sleep(trust + _RESOLUTION)
                self.schedule.begin(clock(), fresh=True)
            else:
                await self._step(session)

    def _stop_watching(self) -> None:
        self._link = None
        if self._watch is not None:
            self._watch.cancel()

    # --- one connection ---

    async def _dial(self, number: int) -> tuple[socket.socket, Endpoint]:
        """Connect to one of the address's endpoints; the last error if none answers."""
        endpoints = await self._endpoints()
        turn = self.schedule.turn(number) % len(endpoints)  # a silent one does not hide the others
        for last, endpoint in enumerate(endpoints[turn:] + endpoints[:turn], 1 - len(endpoints)):
            try:
                return await _connect(endpoint, anywhere=self._anywhere), endpoint
            except OSError:
                if not last:
                    raise
        raise AssertionError("an address has at least one endpoint")

    async def _endpoints(self) -> list[Endpoint]:
        """The address, resolved anew, and first the endpoint that was good before.

        That one need not wait for a name that cannot be resolved now.
        """
        good = self._good
        try:
            if good is None:
                return await self._resolve()
            async with asyncio.timeout(LOOK_UP):
                found = await self._resolve()
        except (_Unresolved, TimeoutError):
            if good is None:
                raise
            return [good]
        return sorted(found, key=lambda endpoint: endpoint != good)

    async def _resolve(self) -> list[Endpoint]:
        """The endpoints of the address now. AddressError if one may not be dialled."""
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


async def _connect(endpoint: Endpoint, *, anywhere: bool) -> socket.socket:
    """A connection to this endpoint. Raises OSError, AddressError if it is another user's.

    ``anywhere``: other users' processes may be there, but not behind a Unix socket.
    """
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
        unix = isinstance(endpoint.sockaddr, str)
        if not unix and sock.getsockname() == sock.getpeername():
            forget(sock)  # else the kernel would keep the port for a minute, and from the listener
            raise OSError(errno.ECONNREFUSED, "connection refused")  # by itself
        require_same_user(sock, str(endpoint), anywhere=anywhere)
    except BaseException:
        sock.close()
        raise
    return sock


def _let_go(attempt: asyncio.Task[Link]) -> None:
    """An attempt that nobody needs any more may have succeeded anyway."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().fail(LinkLost("not needed any more"))
