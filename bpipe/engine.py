"""Engine: what drives a session over one link after another, for those who feed and drain it.

Theory of operation. One task supervises: while the session is not over, it asks the reconnect
function for a link, and waits until that link is lost. Everything else happens in callbacks of
the event loop: the link moves bytes when its socket is ready, and a single timer calls
``Session.tick``. After each of them ``settle`` looks what has changed and wakes those who wait.

Threads. All of this belongs to the thread of the event loop, but for ``nudge``, ``call``, and for
what ``writer.py`` and ``reader.py`` leave to the thread of a producer or of a consumer.

Programs use ``BackedPipe``; what is here may change.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from bpipe.errors import LinkLost, NotConnected, SessionEnded
from bpipe.net.clock import clock
from bpipe.net.link import Link
from bpipe.net.outlet import Outlet
from bpipe.protocol.handshake import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.ring import Views
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from bpipe.status import State, Status

READ_AHEAD: Final = 4 << 20  # bytes from a thread that wait to be sent over a link that is up


class ReconnectFunc(Protocol):
    """Obtains greeted links for a session, by dialling or by accepting."""

    name: str  # the address, for people
    exposed: bool  # other machines can reach it
    refused: int  # greetings of those who do not belong here
    on_change: Callable[[], None]  # called when something happened that no link tells

    @property
    def attempts(self) -> int:
        """How many were started in this outage; 0 where one can only wait."""

    @property
    def next_at(self) -> float | None:
        """When the next attempt starts; None where one can only wait."""

    def __call__(self, session: Session) -> Awaitable[Link]:
        """The next link that is greeted and attached; waits for it as long as it takes."""

    def hurry(self) -> None:
        """Try now, whatever the backoff says."""

    async def close(self) -> None:
        """The session needs no more links."""


class Engine:
    """A session, its current link, and the reconnect function that finds the next one.

    ``buffer_size`` is in bytes, for each direction. It is used within one event loop.
    """

    def __init__(
        self,
        reconnect: ReconnectFunc,
        *,
        buffer_size: int,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        secret: Secret | None = None,
        began: float | None = None,
    ) -> None:
        self.reconnect = reconnect
        self.session = Session(buffer_size, limits, secret=secret)
        if began is not None:
            self.session.calling(began)
        self.writer = self.session.writer
        self.reader = self.session.reader
        self.link: Link | None = None
        self._buffer_size = buffer_size
        self._loop = asyncio.get_running_loop()
        self._supervisor: asyncio.Task[None] | None = None
        self._over = self._loop.create_future()
        self._change = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._observers: list[Callable[[], None]] = []
        self._nudged = False
        self._outlet: Outlet | None = None
        reconnect.on_change = self.notice
        begin(secret)  # what a greeting needs is imported now: later there may be no way

    # --- its life ---

    def start(self) -> None:
        """Look for the first link, if that was not begun before."""
        if self._supervisor is None:
            self._supervisor = self._loop.create_task(self._supervise())
            self._supervisor.add_done_callback(self._crashed)

    async def wait_closed(self) -> None:
        """Wait until the session is over and its link is closed."""
        if self._supervisor is None:
            if self.writer.written:
                self.session.fail(NotConnected("it was never connected"))
            await self.reconnect.close()
        else:
            await self._supervisor

    # --- what is done to it ---

    def finish(self, *, more: bool = False) -> None:
        """End the stream that is written here; what the peer sends goes on (half-close).

        ``more``: the peer takes no more, and there was more.
        """
        self.writer.finish(more=more)
        self.settle()

    def stop(self) -> None:
        """Take no more of what the peer sends, and tell it so; what is written here goes on."""
        self.session.stop()
        self.settle()

    def abort(self, reason: Reason, message: str) -> None:
        """End both directions, and tell the peer why in one line. Does not wait."""
        self.session.abort(reason, message, clock())
        self.settle()

    def force_reconnect(self) -> None:
        """Drop the link, or, while there is none, try now."""
        if self.link is not None:
            self.link.fail(LinkLost("told to reconnect"))
            self.settle()
        else:
            self.reconnect.hurry()

    # --- what is known ---

    @property
    def connected(self) -> bool:
        """Whether there is a link now."""
        return self.session.attached and not self.session.over

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self.session.failure

    @property
    def reachable(self) -> bool:
        """Whether other machines can connect."""
        return self.reconnect.exposed

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, and nothing tells who they are."""
        return self.reachable and self.session.secret is None

    def status(self) -> Status:
        """What the pipe is doing now."""
        session, writer, reader = self.session, self.writer, self.reader
        outage, next_at = session.outage_since, self.reconnect.next_at
        until, now = session.waits_until, clock()
        return Status(
            state=self._state(),
            peer=self.link.peer if self.link else self.reconnect.name,
            buffer_size=self._buffer_size,
            written=writer.written,
            confirmed=writer.confirmed,
            received=reader.delivered - reader.done + reader.buffered,
            delivered=reader.delivered - reader.done,
            links=session.links if session.established or session.attached else 0,
            finished=writer.mark is not None,
            peer_finished=reader.mark is not None,
            replayed=session.replayed,
            outage=None if outage is None else now - outage,
            away=session.away(now),
            gives_up_in=None if until is None else max(0.0, until - now),
            round_trip=session.round_trip,
            silence=session.silence(now) if now >= session.doubted_at(now) else None,
            refused=self.reconnect.refused,
            cause=str(session.last_cause or ""),
            cause_code=session.last_cause.code if session.last_cause else "",
            attempts=self.reconnect.attempts,
            retry_in=None if next_at is None else max(0.0, next_at - now),
        )

    @property
    def occasion(self) -> tuple[object, ...]:
        """Differs from the last one when more has changed than counts of bytes.

        It costs much less than ``status``, and is asked for with every frame.
        """
        session, reconnect = self.session, self.reconnect
        return (
            self._state(),
            session.links,
            session.last_cause,
            reconnect.attempts,
            reconnect.refused,
            self.writer.mark,
            self.reader.mark,
        )

    def _state(self) -> State:
        session = self.session
        if session.over:
            return State.OVER
        if session.aborting:
            return State.ABORTING
        if session.done:
            return State.FINISHING
        if self.link is not None and self.link.cause is None and session.attached:
            return State.CONNECTED
        lost = session.links > session.attached  # one that is attached may not be taken up yet
        return State.RECONNECTING if session.established and lost else State.CONNECTING

    # --- for those who feed and drain the stream, perhaps from a thread of their own ---

    @property
    def refusing(self) -> bool:
        """Whether the producer is to stop: nothing that it writes can be sent any more."""
        return self.writer.mark is not None or self.session.aborting or self.session.over

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this, in the event loop's thread, whenever bytes have moved or the state has."""
        self._observers.append(callback)

    def use_outlet(self, outlet: Outlet) -> None:
        """Plain payload may go to the consumer this way, past the reader, while it is idle."""
        self._outlet = outlet
        if self.link is not None:
            self.link.outlet = outlet

    def trace(self, callback: Callable[[str, str], None]) -> None:
        """Call this for every frame and change of state: a sign (``< > = !``), and a text."""
        self.session.trace = callback

    def space(self, limit: int) -> Views:
        """Where the bytes of a producer in a thread belong; ``[]`` while it has to wait.

        It is not let far ahead of a link: memory that goes round quickly stays in the processor's
        cache. Without a link it may fill the buffer.
        """
        return self.writer.space(limit) if self._unsent < READ_AHEAD else []

    @property
    def spacious(self) -> bool:
        """Whether a producer that waits for space should go on."""
        return self.writer.room > 0 and self._unsent <= READ_AHEAD // 2

    @property
    def _unsent(self) -> int:
        """The bytes that wait for nothing but the link."""
        return self.writer.written - self.writer.sent if self.session.attached else 0

    def nudge(self) -> None:
        """Bytes were written or taken. May be called from any thread."""
        if not self._nudged:
            self._nudged = True
            self.call(self.settle)

    def call(self, function: Callable[[], None]) -> None:
        """Have this called in the event loop's thread. May be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the session with it
            self._loop.call_soon_threadsafe(function)

    def delivered_end(self) -> None:
        """The consumer has taken every byte, and its end was closed without an error."""
        self.session.deliver_mark()
        self.settle()

    def consumer_gone(self, message: str, *, untaken: bool = False) -> None:
        """Who took what the peer sends takes no more; ``untaken``: nor what it was given last.

        The peer has two seconds to say that there was no more. Otherwise both directions end
        with this message.
        """
        self.session.consumer_gone(message, clock(), untaken=untaken)
        self.settle()

    # --- what happens ---

    async def _supervise(self) -> None:
        session = self.session
        try:
            while not session.over:
                self.link = await self._next_link()
                if self.link is None:
                    break
                self.link.outlet = self._outlet
                self.settle()
                await asyncio.wait(
                    [self.link.lost, self._over], return_when=asyncio.FIRST_COMPLETED
                )
                if self.link.cause is not None:
                    self.link = None
                self.settle()
            if self.link is not None:
                await self.link.close()
        finally:
            await self.reconnect.close()

    async def _next_link(self) -> Link | None:
        """A link from the reconnect function; None if the session ends before there is one."""
        search = asyncio.ensure_future(self.reconnect(self.session))
        self.settle()
        await asyncio.wait([search, self._over], return_when=asyncio.FIRST_COMPLETED)
        if search.done():
            return search.result()
        search.cancel()
        await asyncio.wait([search])
        return None

    def _crashed(self, supervisor: asyncio.Task[None]) -> None:
        """An error outside the protocol ends the pipe for everybody who waits."""
        error = None if supervisor.cancelled() else supervisor.exception()
        self.session.fail(SessionEnded(f"bpipe failed: {error or 'cancelled'}"))
        self.settle()

    def settle(self) -> None:
        """Something has happened: send what is due, and wake those whom it concerns."""
        self._nudged = False
        self.session.settle(clock())
        if self.link is not None:
            self.link.flush()
        self.notice()

    def notice(self) -> None:
        """Wake those whom it concerns; a link that has moved bytes has sent what is due."""
        if self.session.over and not self._over.done():
            self._over.set_result(None)
        self._set_timer()
        if not self._change.done():
            self._change.set_result(None)
        for observer in self._observers:
            observer()

    async def changed(self) -> None:
        """Wait until something happens; raises the failure of a session that is over."""
        if self.session.over:
            raise self.session.failure or SessionEnded("the session is over")
        if self._change.done():
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _set_timer(self) -> None:
        """Have ``tick`` called when it is due. A timer that is early looks again, and costs less
        than one that is moved with every frame."""
        deadline = self.session.deadline()
        if deadline is None:
            return
        when = self._loop.time() + max(0.0, deadline - clock())
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.session.tick(clock())
        except LinkLost as cause:
            if self.link is not None:  # else nobody has taken it yet, and `tick` is due again
                self.link.fail(cause)
        self.settle()
