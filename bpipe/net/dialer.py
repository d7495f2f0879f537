"""The links of a session that calls, in one slot: connect, greet, and try again until that works.

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
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bpipe.errors import AddressError, BpipeError, LinkLost, SessionEnded
from bpipe.net.attempt import Attempts, Heard, in_vain, let_go
from bpipe.net.backoff import Backoff
from bpipe.net.clock import clock as system_clock
from bpipe.net.connectors import Connector, Unresolved
from bpipe.net.link import Link
from bpipe.net.schedule import Schedule
from bpipe.net.sockets import leaves
from bpipe.protocol.caller import Caller
from bpipe.protocol.session import Session

if TYPE_CHECKING:
    from bpipe.net.lookout import Lookout

_RESOLUTION: Final = 0.01  # seconds; a clock may be a little behind a timer


class Dialer:
    """Obtains greeted links for ``session`` from what ``connector`` connects.

    ``backoff`` says how long to wait between attempts that fail. The first look-up is part of the
    time that there is to connect, which begins here. Where there are several for one session, they
    share its ``caller``, and each is for one ``slot``: see ``dialers.py``.
    """

    exposed: Final = False
    refused: Final = 0
    ways: Final = ()

    def __init__(
        self,
        session: Session,
        connector: Connector,
        backoff: Backoff,
        clock: Callable[[], float] = system_clock,
        caller: Caller | None = None,
        slot: int = 0,
    ) -> None:
        self.name = connector.name
        self.schedule = Schedule(backoff, connector.manners)
        self._session = session
        self._caller = caller or Caller(session)
        self._connector = connector
        self._making = Attempts(self._caller, connector, clock, slot)
        self._slot = slot
        self._clock = clock
        self._drive: Callable[[], None] = lambda: None
        self._outage: float | None = None
        self._found_at = -math.inf  # the last link
        self._wake = asyncio.Event()
        self._attempts: dict[int, asyncio.Task[Link]] = {}  # by number, the oldest first
        self._answered: int | None = None  # the one that goes on alone
        self._link: Link | None = None  # the one that was found last
        self._watch: asyncio.Task[None] | None = None  # over it
        self._lookout: Lookout | None = None  # once a link has left this machine
        session.patience.calling(clock())

    @property
    def asks(self) -> bool:
        """Whether an attempt may be asking something on the terminal, now or next."""
        return self._connector.manners.asks

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

    def _told(self, there: bool) -> None:
        """The system says so of a way to the peer: try now, also beside a link."""
        link = self._link
        if there or link is not None:
            self.schedule.nudge(self._clock())
            self._wake.set()
        if link is not None:
            link.doubt(away=not there)

    async def close(self) -> None:
        """Forget a look-up and attempts that nobody waits for any more.

        Waits until nothing is left behind any connection, a second at most.
        """
        self._stop_watching()
        if self._lookout is not None:
            self._lookout.end()
        self._hang_up()
        await self._connector.close()

    def abandon(self) -> None:
        """This process ends now: leave nothing behind."""
        self._connector.abandon()

    async def next_link(self, slot: int = 0) -> Link:
        """A link that is greeted and attached to the session. Waits as long as it takes."""
        assert slot == self._slot
        self._stop_watching()
        self._look_out(None)
        self.schedule.begin(self._clock(), fresh=self._fresh())
        self._drive()
        try:
            while (link := await self._step()) is None:
                pass
        finally:
            self._hang_up()
        self._link, self._found_at = link, self._clock()
        if self._session.patience.limits.give_up_after > 0:  # else this link is the only one
            self._watch = asyncio.create_task(self._watch_over(link))
        return link

    def _fresh(self) -> bool:
        """Whether the last link was good, so that there is no reason to wait.

        If there are others, there is no outage that would tell.
        """
        before, self._outage = self._outage, self._session.patience.outage_since
        if self._session.attached:
            return self._clock() >= self._found_at + self.schedule.backoff.cap
        return self._outage is None or self._outage != before

    # --- attempts ---

    async def _step(self) -> Link | None:
        """The link of an attempt that has succeeded; else do what is due, and wait a little."""
        for number, attempt in self._attempts.items():
            if attempt.done():
                return self._conclude(number)
        self._start_what_is_due()
        delay = max(0.0, self.schedule.deadline() - self._clock())
        await self._wait(delay if self._answered is None else None)
        return None

    async def _wait(self, delay: float | None) -> None:
        """For so many seconds, for an attempt, or for somebody who wakes us."""
        self._wake.clear()
        wake = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait(
                [wake, *self._attempts.values()],
                timeout=delay,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            wake.cancel()

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
        self.schedule.behave(self._connector.manners)
        if self.schedule.due(now):
            number = self.schedule.start(now)
            self._session.patience.asking(now, self.schedule.manners.asks)
            self._attempts[number] = asyncio.create_task(self._attempt(number))

    async def _attempt(self, number: int) -> Link:
        """Connect and greet, as far as the verdict; and then, alone, to the end."""

        def connected() -> None:
            if self._session.attached and self._link is not None:
                self._link.hold()

        heard = Heard(connected, partial(self._go_on_alone, number), self._drive)
        greeting = self.schedule.manners.greeting
        return await self._making.make(self.schedule.turn(number), greeting, heard)

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
            why = "it is lost" if liveness is None else liveness.why(now)
            self._link.fail(LinkLost(f"{why}, and a new connection is answered", "silent"))
            self._stop_watching()

    def _conclude(self, number: int) -> Link | None:
        """The link that this attempt has made; None if it has failed."""
        attempt = self._attempts.pop(number)
        if self._answered == number:
            self._answered = None
        cause: BpipeError
        try:
            return attempt.result()
        except (LinkLost, AddressError, Unresolved) as error:
            cause = error
        except SessionEnded as error:
            self._caller.hopeless(error)
            self._drive()
            cause = error
        except OSError as error:
            cause = in_vain(error, self.name)
        self.schedule.failed(number, self._clock())
        self._failed(cause)
        return None

    def _failed(self, cause: BpipeError) -> None:
        """An attempt has; beside a link in its slot that means nothing."""
        self._session.patience.asking(self._clock(), False)
        if self._link is None or not self._session.attached:
            self._caller.attempt_failed(cause, self._slot)
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
        attempt.add_done_callback(let_go)

    # --- beside a link ---

    async def _watch_over(self, link: Link) -> None:
        """Attempt to find another whenever this link is in doubt."""
        self._look_out(link)
        while (liveness := link.liveness) is not None:
            now = self._clock()
            if (trust := liveness.doubted_at(now) - now) > 0:
                self._hang_up()
                await self._wait(trust + _RESOLUTION)
                self.schedule.begin(self._clock(), fresh=True)
            else:
                await self._step()

    def _look_out(self, link: Link | None) -> None:
        """For what the system says of the path of this link; None: of where the last one went."""
        if self._lookout is None and link is not None and leaves(link.sock):
            from bpipe.net.lookout import Lookout

            self._lookout = Lookout(self._told)
        if self._lookout is not None:
            self._lookout.over(link)

    def _stop_watching(self) -> None:
        self._link = None
        if self._watch is not None:
            self._watch.cancel()
