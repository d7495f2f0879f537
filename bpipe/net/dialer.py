"""The links of a session that calls: connect, greet, and try again until that works.

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
import errno
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
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock as system_clock
from bpipe.net.connectors import Connector
from bpipe.net.link import Link
from bpipe.net.schedule import Schedule
from bpipe.net.sockets import prepare
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.session import Session

SECOND_HALF: Final = 1.0  # seconds that the second half of a greeting may take, or
ROUND_TRIPS: Final = 3  # times as long as the first, if that is more

_RESOLUTION: Final = 0.01  # seconds; a clock may be a little behind a timer
_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)
_ADVICE: Final = {  # for a first greeting that nobody answers, by whether it is sealed
    True: ("is it bpipe, with the same secret and --name?", "secret"),
    False: ("is it bpipe, and without a secret?", "stranger"),
}
_AGAIN: Final = 3  # greetings that nobody has answered; a sealed one is not told of another version
_VERSION: Final = " And of the same version?"


class Dialer:
    """Obtains greeted links for ``session`` from what ``connector`` connects.

    ``backoff`` says how long to wait between attempts that fail. The first look-up is part of the
    time that there is to connect, which begins here.
    """

    exposed: Final = False
    refused: Final = 0

    def __init__(
        self,
        session: Session,
        connector: Connector,
        backoff: Backoff,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self.name = connector.name
        self.schedule = Schedule(backoff)
        self._session = session
        self._caller = Caller(session)
        self._connector = connector
        self._clock = clock
        self._drive: Callable[[], None] = lambda: None
        self._outage: float | None = None
        self._wake = asyncio.Event()
        self._attempts: dict[int, asyncio.Task[Link]] = {}  # by number, the oldest first
        self._answered: int | None = None  # the one that goes on alone
        self._link: Link | None = None  # the one that was found last
        self._watch: asyncio.Task[None] | None = None  # over it
        self._unheard = 0  # greetings that nobody has answered
        session.patience.calling(clock())

    @property
    def attempts(self) -> int:
        """How many were started in this outage."""
        return self.schedule.attempts

    @property
    def next_at(self) -> float:
        """When the next attempt starts."""
        return self.schedule.next_at

    @property
    def change(self) -> int:
        """Is raised with every attempt."""
        return self.schedule.started

    def start(self, drive: Callable[[], None]) -> None:
        """Call this after something has happened."""
        self._drive = drive

    def hurry(self) -> None:
        """Try now."""
        self.schedule.hurry(self._clock())
        self._wake.set()

    async def close(self) -> None:
        """Forget a look-up and attempts that nobody waits for any more."""
        self._stop_watching()
        self._hang_up()
        self._connector.close()

    async def next_link(self) -> Link:
        """A link that is greeted and attached to the session. Waits as long as it takes."""
        self._stop_watching()
        outage = self._session.patience.outage_since
        self.schedule.begin(self._clock(), fresh=outage is None or outage != self._outage)
        self._outage = outage
        self._drive()
        try:
            while (link := await self._step()) is None:
                pass
        finally:
            self._hang_up()
        self._link = link
        if self._session.patience.limits.give_up_after > 0:  # else this link is the only one
            self._watch = asyncio.create_task(self._watch_over(link))
        return link

    # --- attempts ---

    async def _step(self) -> Link | None:
        """The link of an attempt that has succeeded; else do what is due, and wait a little."""
        for number, attempt in self._attempts.items():
            if attempt.done():
                return self._conclude(number)
        self._start_what_is_due()
        self._wake.clear()
        wake = asyncio.create_task(self._wake.wait())
        delay = max(0.0, self.schedule.deadline() - self._clock())
        try:
            await asyncio.wait(
                [wake, *self._attempts.values()],
                timeout=delay if self._answered is None else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            wake.cancel()
        return None

    def _start_what_is_due(self) -> None:
        """Give up the attempts that have had their time, and start the next one."""
        if self._answered is not None:
            return
        now = self._clock()
        while (number := self.schedule.abandon(now)) is not None:
            oldest = number == min(self._attempts)
            self._drop(number)
            if oldest:  # the others only make room
                self._failed(LinkLost(f"no answer from {self.name}", "silent"))
        if now >= self.schedule.next_at:
            number = self.schedule.start(now)
            self._attempts[number] = asyncio.create_task(self._attempt(number))

    async def _attempt(self, number: int) -> Link:
        """Connect and greet, as far as the verdict; and then, alone, to the end."""
        connection = await self._connector.connect(self.schedule.turn(number))
        prepare(connection.sock, self._session.patience.limits.heartbeat)
        verdict: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(accepted: bool) -> None:
            self._go_on_alone(number, accepted)
            verdict.set_result(None)

        if self._session.attached and self._link is not None:
            self._link.hold()
        greeting = CallerGreeting(self._caller, self._clock(), answered)
        link = Link(connection.sock, greeting, connection.peer, self._clock)
        link.watch(self._drive)
        try:
            await self._greet(link, verdict)
        except asyncio.CancelledError:
            link.fail(LinkLost("not needed any more"))
            raise
        except LinkLost as error:
            raise error if greeting.answered else self._unanswered(error) from None
        self._connector.prefer(connection)
        return link

    async def _greet(self, link: Link, verdict: asyncio.Future[None]) -> None:
        """Wait until it is done; LinkLost if it fails, or the second half of it takes too long."""
        began = self._clock()
        await asyncio.wait([verdict, link.greeted], return_when=asyncio.FIRST_COMPLETED)
        patience = max(SECOND_HALF, ROUND_TRIPS * (self._clock() - began))
        await asyncio.wait([link.greeted], timeout=patience)
        if not link.greeted.done():
            link.fail(LinkLost("no answer to the greeting", "silent"))
        if (error := link.greeted.exception()) is not None:
            raise error

    def _unanswered(self, error: LinkLost) -> LinkLost:
        """What is said of it: in the first greetings it may not be bpipe that is there."""
        if self._session.established:
            return error
        self._unheard += 1
        sealed = self._session.secret is not None
        advice, code = _ADVICE[sealed]
        if sealed and self._unheard >= _AGAIN:
            advice += _VERSION
        return LinkLost(f"{self.name}: {error}; {advice}", code)

    def _go_on_alone(self, number: int, accepted: bool) -> None:
        """An attempt is answered: the others, and a silent link, are not needed any more.

        Raises LinkLost if it is this one that is not.
        """
        if number not in self._attempts:
            raise LinkLost("not needed any more")
        now, liveness = self._clock(), self._link.liveness if self._link is not None else None
        if liveness is not None and liveness.doubted_at(now) > now:
            raise LinkLost("the old connection is heard again")
        self._answered = number
        for other in [other for other in self._attempts if other != number]:
            self._drop(other)
        self.schedule.clear()
        if accepted and self._link is not None:
            silence = 0.0 if liveness is None else now - liveness.heard_at
            cause = f"nothing was heard for {silence:.1f} s, and a new connection is answered"
            self._link.fail(LinkLost(cause, "silent"))
            self._stop_watching()

    def _conclude(self, number: int) -> Link | None:
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
        self.schedule.failed(number, self._clock())
        self._failed(cause)
        return None

    def _failed(self, cause: BpipeError) -> None:
        """An attempt has; beside a link that means nothing."""
        if not self._session.attached:
            self._caller.attempt_failed(cause)
            self._drive()

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

    async def _watch_over(self, link: Link) -> None:
        """Attempt to find another whenever this link is in doubt."""
        while (liveness := link.liveness) is not None:
            now = self._clock()
            if (trust := liveness.doubted_at(now) - now) > 0:
                self._hang_up()
                await asyncio.sleep(trust + _RESOLUTION)
                self.schedule.begin(self._clock(), fresh=True)
            else:
                await self._step()

    def _stop_watching(self) -> None:
        self._link = None
        if self._watch is not None:
            self._watch.cancel()


def _let_go(attempt: asyncio.Task[Link]) -> None:
    """An attempt that nobody needs any more may have succeeded anyway."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().fail(LinkLost("not needed any more"))
