"""BackedPipe: a session, its current link, and the reconnect function that finds the next one.

Theory of operation. One task supervises: while the session is not over, it asks the reconnect
function for a link, and waits until that link is lost. Everything else happens in callbacks of
the event loop: the link moves bytes when its socket is ready, and a single timer calls
``Session.tick``. After each of them ``settle`` looks what has changed and wakes those who wait.

Threads. All of this belongs to the thread of the event loop, but for ``nudge``, and for what
``writer.py`` and ``reader.py`` leave to the thread of a producer or of a consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from bpipe.errors import LinkLost, NotConnected, PipeClosed, SessionEnded
from bpipe.net.address import EVERYWHERE, Address, parse, require_callable
from bpipe.net.clock import clock
from bpipe.net.dialer import EARLY_CHECK, Dialer
from bpipe.net.link import Link
from bpipe.net.listener import Listener
from bpipe.net.outlet import Outlet
from bpipe.protocol.handshake import begin
from bpipe.protocol.patience import Limits
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from bpipe.protocol.writer import BackedWriter

BUFFER_SIZE: Final = 64 << 20  # bytes kept for each direction
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


class State(enum.StrEnum):
    """What a pipe is doing."""

    CONNECTING = "connecting"  # there was no link yet
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    FINISHING = "finishing"  # all is delivered: the peer is to know
    ABORTING = "aborting"  # the session has failed: the peer is to know
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Status:
    """A pipe at one moment. Counts are bytes, times are seconds."""

    state: State
    peer: str  # at the other side of the link; the address while there is none
    buffer_size: int
    written: int  # taken from the local producer
    confirmed: int  # of these: known to be with the far consumer
    received: int  # arrived from the peer
    delivered: int  # of these: taken by the local consumer
    links: int  # attached so far
    finished: bool  # the local producer has ended
    peer_finished: bool  # the end of the peer's stream has arrived
    replayed: int  # sent again after a reconnect
    outage: float | None  # how long no progress has been made for want of a link
    away: float | None  # how long nothing was heard, before the link that is up, or until now
    gives_up_in: float | None  # while it waits for a link; None: never
    round_trip: float | None
    silence: float | None  # how long nothing was heard, over a link that is in doubt
    refused: int  # greetings of those who do not belong here
    cause: str  # why the last link was lost, or the last attempt failed
    cause_code: str  # the same in one word, for programs
    attempts: int  # to connect, in this outage; 0 where one can only wait
    retry_in: float | None  # until the next one; None where one can only wait

    @property
    def reconnects(self) -> int:
        """The links that have replaced another."""
        return max(0, self.links - 1)

    @property
    def unconfirmed(self) -> int:
        """The bytes that are written and held until the peer confirms them."""
        return self.written - self.confirmed


class BackedPipe:
    """A full-duplex byte stream to another process that survives the loss of its connections.

    ``buffer_size`` bytes are kept for each direction: so much can be written before the far
    consumer has taken anything. With a ``secret`` its connections are encrypted, and only who
    has the same one gets in. The pipe is used within one event loop; use it as an
    asynchronous context manager, which connects on entry, and on exit closes, or aborts after
    an exception.
    """

    def __init__(
        self,
        reconnect: ReconnectFunc,
        *,
        buffer_size: int = BUFFER_SIZE,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        secret: Secret | None = None,
        began: float | None = None,
    ) -> None:
        self._reconnect = reconnect
        self._session = Session(buffer_size, limits, secret=secret)
        if began is not None:
            self._session.calling(began)
        self.writer: BackedWriter = self._session.writer  # the half that this end writes
        self.reader: BackedReader = self._session.reader  # the half that this end reads
        self._buffer_size = buffer_size
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._over = self._loop.create_future()
        self._change = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._observers: list[Callable[[], None]] = []
        self._nudged = False
        self._outlet: Outlet | None = None
        reconnect.on_change = self._notice
        begin(secret)  # what a greeting needs is imported now: later there may be no way

    async def __aenter__(self) -> BackedPipe:
        try:
            await self.connect()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
            return
        self.abort(Reason.LOCAL_ERROR, f"the peer's program failed: {type(error).__name__}")
        await self.wait_closed()

    # --- the stream ---

    async def connect(self) -> None:
        """Start, and wait for the first link.

        Raises NotConnected when ``Limits.connect_timeout`` has passed (a listener waits for
        ever), Busy when the listener serves another session.
        """
        if self._supervisor is None:
            self._supervisor = self._loop.create_task(self._supervise())
            self._supervisor.add_done_callback(self._crashed)
        await self.wait_for_connection()

    async def read(self, limit: int = 1 << 16) -> bytes:
        """The next bytes, at most ``limit``; waits for the first; ``b""`` at the peer's end.

        Bytes count as delivered, and are acknowledged, when this returns them. Raises
        SessionEnded when the session ended before the stream did.
        """
        while not (views := self.reader.readable(limit)):
            if self.reader.drained:
                self.delivered_end()
                return b""
            await self._changed()
        data = b"".join(views)
        self.reader.took(len(data))
        self.settle()
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Put all of ``data`` on the stream; waits while the buffer is full.

        The data is held until the far consumer has taken it; ``close`` says that it has. Raises
        PipeClosed when the peer takes no more, another SessionEnded when the session is over.
        """
        rest = memoryview(data).cast("B")
        while rest:
            if self._session.failure is not None:
                raise self._session.failure
            if self.writer.stopped is not None:
                self.writer.cut()  # there is more, although the far consumer has gone
                self.settle()
                raise PipeClosed("the far side stopped reading")
            if self.writer.mark is not None:
                raise ValueError("write to a finished stream")
            views = self.writer.space(len(rest))
            for view in views:
                view[:] = rest[: len(view)]
                self.writer.wrote(len(view))
                rest = rest[len(view) :]
            self.settle()
            if not views:
                await self._changed()

    def finish(self, *, more: bool = False) -> None:
        """End the stream that is written here; what the peer sends goes on (half-close).

        ``more``: the peer takes no more, and there was more.
        """
        self.writer.finish(more=more)
        self.settle()

    def stop(self) -> None:
        """Take no more of what the peer sends, and tell it so; what is written here goes on."""
        self._session.stop()
        self.settle()

    def consumer_gone(self, message: str, *, untaken: bool = False) -> None:
        """Who took what the peer sends takes no more; ``untaken``: nor what it was given last.

        The peer has two seconds to say that there was no more. Otherwise both directions end
        with this message.
        """
        self._session.consumer_gone(message, clock(), untaken=untaken)
        self.settle()

    def abort(self, reason: Reason, message: str) -> None:
        """End both directions, and tell the peer why in one line. Does not wait."""
        self._session.abort(reason, message, clock())
        self.settle()

    async def close(self) -> None:
        """Finish, take no more, and wait until the peer has confirmed everything.

        Raises SessionEnded if not everything that was written reached the far consumer.
        """
        self.finish()
        self.stop()
        await self.wait_closed()
        if self._session.failure is not None:
            raise self._session.failure

    async def wait_closed(self) -> None:
        """Wait until the session is over and its link is closed; see ``failure``."""
        if self._supervisor is None:
            if self.writer.written:
                self._session.fail(NotConnected("it was never connected"))
            await self._reconnect.close()
        else:
            await self._supervisor

    # --- the connection ---

    @property
    def connected(self) -> bool:
        """Whether there is a link now."""
        return self._session.attached and not self._session.over

    async def wait_for_connection(self, timeout: float | None = None) -> None:
        """Wait until there is a link, at most ``timeout`` seconds.

        Raises TimeoutError, or SessionEnded when there will be no link any more.
        """
        async with asyncio.timeout(timeout):
            while not self.connected:
                await self._changed()

    def force_reconnect(self) -> None:
        """Drop the link, or, while there is none, try now."""
        if self._link is not None:
            self._link.fail(LinkLost("told to reconnect"))
            self.settle()
        else:
            self._reconnect.hurry()

    # --- what is known ---

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self._session.failure

    @property
    def reachable(self) -> bool:
        """Whether other machines can connect."""
        return self._reconnect.exposed

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, and nothing tells who they are."""
        return self.reachable and self._session.secret is None

    @property
    def refusing(self) -> bool:
        """Whether the producer is to stop: nothing that it writes can be sent any more."""
        return self.writer.mark is not None or self._session.aborting or self._session.over

    def status(self) -> Status:
        """What the pipe is doing now."""
        session, writer, reader = self._session, self.writer, self.reader
        outage, next_at = session.outage_since, self._reconnect.next_at
        until, now = session.waits_until, clock()
        return Status(
            state=self._state(),
            peer=self._link.peer if self._link else self._reconnect.name,
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
            refused=self._reconnect.refused,
            cause=str(session.last_cause or ""),
            cause_code=session.last_cause.code if session.last_cause else "",
            attempts=self._reconnect.attempts,
            retry_in=None if next_at is None else max(0.0, next_at - now),
        )

    @property
    def occasion(self) -> tuple[object, ...]:
        """Differs from the last one when more has changed than counts of bytes.

        It costs much less than ``status``, and is asked for with every frame.
        """
        session, reconnect = self._session, self._reconnect
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
        session = self._session
        if session.over:
            return State.OVER
        if session.aborting:
            return State.ABORTING
        if session.done:
            return State.FINISHING
        if self._link is not None and self._link.cause is None and session.attached:
            return State.CONNECTED
        lost = session.links > session.attached  # one that is attached may not be taken up yet
        return State.RECONNECTING if session.established and lost else State.CONNECTING

    # --- for those who feed and drain the stream from a thread of their own ---

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this, in the event loop's thread, whenever bytes have moved or the state has."""
        self._observers.append(callback)

    def use_outlet(self, outlet: Outlet) -> None:
        """Plain payload may go to the consumer this way, past the reader, while it is idle."""
        self._outlet = outlet
        if self._link is not None:
            self._link.outlet = outlet

    def trace(self, callback: Callable[[str, str], None]) -> None:
        """Call this for every frame and change of state: a sign (``< > = !``), and a text."""
        self._session.trace = callback

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
        return self.writer.written - self.writer.sent if self._session.attached else 0

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
        self._session.deliver_mark()
        self.settle()

    # --- the engine ---

    async def _supervise(self) -> None:
        session = self._session
        try:
            while not session.over:
                self._link = await self._next_link()
                if self._link is None:
                    break
                self._link.outlet = self._outlet
                self.settle()
                await asyncio.wait(
                    [self._link.lost, self._over], return_when=asyncio.FIRST_COMPLETED
                )
                if self._link.cause is not None:
                    self._link = None
                self.settle()
            if self._link is not None:
                await self._link.close()
        finally:
            await self._reconnect.close()

    async def _next_link(self) -> Link | None:
        """A link from the reconnect function; None if the session ends before there is one."""
        search = asyncio.ensure_future(self._reconnect(self._session))
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
        self._session.fail(SessionEnded(f"bpipe failed: {error or 'cancelled'}"))
        self.settle()

    def settle(self) -> None:
        """Something has happened: send what is due, and wake those whom it concerns."""
        self._nudged = False
        self._session.settle(clock())
        if self._link is not None:
            self._link.flush()
        self._notice()

    def _notice(self) -> None:
        """Wake those whom it concerns; a link that has moved bytes has sent what is due."""
        if self._session.over and not self._over.done():
            self._over.set_result(None)
        self._set_timer()
        if not self._change.done():
            self._change.set_result(None)
        for observer in self._observers:
            observer()

    async def _changed(self) -> None:
        """Wait until something happens; raises the failure of a session that is over."""
        if self._session.over:
            raise self._session.failure or SessionEnded("the session is over")
        if self._change.done():
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _set_timer(self) -> None:
        """Have ``tick`` called when it is due. A timer that is early looks again, and costs less
        than one that is moved with every frame."""
        deadline = self._session.deadline()
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
            self._session.tick(clock())
        except LinkLost as cause:
            if self._link is not None:  # else nobody has taken it yet, and `tick` is due again
                self._link.fail(cause)
        self.settle()


def _address(address: str | Address) -> Address:
    return parse(address) if isinstance(address, str) else address


async def connect(
    address: str | Address,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    retry_max: float = 1.0,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> BackedPipe:
    """A pipe to whoever listens at ``address``; entering it, or its ``connect``, connects.

    Addresses of other machines need a ``secret``, or ``insecure`` to do without, and so do other
    users of this one, where the system tells of them. ``retry_max`` caps the delay between two
    attempts, in seconds. Raises AddressError for an address that cannot be used.
    """
    anywhere = insecure or secret is not None
    where = _address(address)
    require_callable(where)
    dialer = Dialer(where, anywhere=anywhere, retry_max=retry_max)
    began = clock()
    await dialer.check(min(EARLY_CHECK, limits.connect_timeout or EARLY_CHECK))
    return BackedPipe(dialer, buffer_size=buffer_size, limits=limits, secret=secret, began=began)


async def listen(
    address: str | Address,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> BackedPipe:
    """A pipe that is bound to ``address``; entering it, or its ``connect``, waits for a caller.

    Addresses that other machines can reach need a ``secret``, or ``insecure`` to do without, and
    so do callers of other users, where the system tells of them. No host is loopback, or with a
    secret every address of this machine. Raises AddressError for an address that cannot be used,
    OSError if it cannot be bound.
    """
    where = _address(address)
    if secret is not None and not where.host and where.path is None:
        where = where._replace(host=EVERYWHERE)
    listener = await Listener.bind(where, anywhere=insecure or secret is not None)
    return BackedPipe(listener, buffer_size=buffer_size, limits=limits, secret=secret)
