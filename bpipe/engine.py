"""Engine: what drives a session over its links, for those who feed and drain it.

Theory of operation. One task supervises (``supervisor.py``): while the session is not over, it asks
the source for links, and waits until they are lost. All else is done in callbacks: a link moves
bytes when its socket is ready, and one timer tells the time. After each of them comes ``drive``,
and only there is said what follows an event. Observers are told at its end, and do nothing to the
engine from within: they have that called.

Threads. All of this belongs to the thread of the event loop, except ``nudge``, ``call``, and what
``writer.py`` and ``reader.py`` leave to the thread of a producer or of a consumer.

Programs use ``BackedPipe``; what is here may change.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from bpipe.errors import LinkLost, NotConnected, SessionEnded
from bpipe.net.clock import clock as system_clock
from bpipe.net.link import Link
from bpipe.net.outlet import Outlet
from bpipe.net.source import LinkSource
from bpipe.protocol.ending import Phase
from bpipe.protocol.greeting import begin
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.waiting import deadline, tick
from bpipe.protocol.wire import UNTOLD, Finish, Reason
from bpipe.status import Status, Tally
from bpipe.supervisor import Supervisor
from bpipe.survey import survey

_RANK: Final = attrgetter("rank")
READ_AHEAD: Final = 4 << 20  # bytes from a thread that wait to be sent over a link that is up


class Engine:
    """A session, its links, and the source of the next ones; within one event loop."""

    def __init__(
        self, session: Session, source: LinkSource, clock: Callable[[], float] = system_clock
    ) -> None:
        self.session = session
        self.source = source
        self.ending = session.ending
        self.writer = session.writer
        self.reader = session.reader
        self.links: dict[int, Link] = {}  # by their slots
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._supervisor: asyncio.Task[None] | None = None
        self._over, self._change = self._loop.create_future(), self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when it is due, by our clock
        self._observers: list[Callable[[], None]] = []
        self._telling = False
        self._nudged = False
        self._outlet: Outlet | None = None
        self._order: list[Link] = []  # the links, the best first
        self._taken = 0  # links that were taken or let go, so far
        self._tally: Callable[[], Tally | None] = lambda: None
        begin(session.secret)  # what a greeting needs is imported now: later there may be no way

    # --- its life ---

    def start(self) -> None:
        """Look for the first link, if that was not begun before."""
        if self._supervisor is None:
            supervisor = Supervisor(self.session, self.source, self._over, self._take, self.drive)
            self.source.start(supervisor.happened)
            self._supervisor = self._loop.create_task(supervisor.run())
            self._supervisor.add_done_callback(self._crashed)

    async def wait_closed(self) -> None:
        """Wait until the session is over and its link is closed; who stops waiting ends nothing."""
        if self._supervisor is None:
            if self.writer.written:
                self.session.leave(NotConnected("it was never connected"))
            await self.source.close()
        else:
            await asyncio.shield(self._supervisor)

    # --- what is done to it ---

    def begin(self) -> None:
        """A producer begins to write; the session is not over before it calls ``finish``."""
        self.writer.begin()

    def finish(self, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        """End the stream that is written here; what the peer sends goes on (half-close).

        ``more``: the peer takes no more, and there was more. ``ended``: what is known of a program.
        """
        self.session.finish(more=more, ended=ended)
        self.drive()

    def cut(self) -> None:
        """There is more to write, and nobody takes it any more."""
        self.session.cut()
        self.drive()

    def stop(self) -> None:
        """Take no more of what the peer sends, and tell it so; what is written here goes on.

        If the peer writes that to a file there is nothing that could be taken. Before it is known,
        it is decided that the streams are bytes.
        """
        self.session.terms.begin()
        if not self.session.terms.to_file:
            self.session.stop()
        self.drive()

    def abort(self, reason: Reason, message: str) -> None:
        """End both directions, and tell the peer why in one line. Does not wait."""
        self.session.abort(reason, message, self.clock())
        self.drive()

    def force_reconnect(self) -> None:
        """Drop the links, and try now where there is none."""
        for link in self._order:
            link.fail(LinkLost("told to reconnect"))
        self.source.hurry()
        self.drive()

    # --- what is known ---

    @property
    def link(self) -> Link | None:
        """The link, or the best of several."""
        return self._order[0] if self._order else None

    @property
    def connected(self) -> bool:
        """Whether there is a link now."""
        return self.session.attached and not self.session.over

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self.ending.failure

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, and nothing tells who they are."""
        return self.source.exposed and self.session.secret is None

    @property
    def change(self) -> int:
        """A number that is raised with everything but counts of bytes and the time."""
        return self.session.change + self.source.change + self._taken

    def status(self) -> Status:
        """What the pipe is doing now."""
        return survey(self.session, self.source, self.links, self.clock(), self._tally())

    # --- for those who feed and drain the stream, perhaps from a thread of their own ---

    @property
    def refusing(self) -> bool:
        """Whether the producer is to stop: nothing that it writes can be sent any more."""
        return self.writer.mark is not None or self.ending.phase is not Phase.UP

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this, in the event loop's thread, whenever bytes have moved or the state has."""
        self._observers.append(callback)

    def use_outlet(self, outlet: Outlet) -> None:
        """Plain payload may go to the consumer this way, past the reader, while it is idle."""
        self._outlet = outlet
        for link in self._order:
            link.use(outlet)

    def use_tally(self, tally: Callable[[], Tally]) -> None:
        """A stream goes to a file: this tells how much of it was there before."""
        self._tally = tally

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
        return self.writer.written - self.writer.sent if self.session.channel is not None else 0

    def nudge(self) -> None:
        """Bytes were written or taken. May be called from any thread."""
        if not self._nudged:
            self._nudged = True
            self.call(self.drive)

    def call(self, function: Callable[[], None]) -> None:
        """Have this called in the event loop's thread. May be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the session with it
            self._loop.call_soon_threadsafe(function)

    def delivered_end(self) -> None:
        """The consumer has taken every byte, and its end was closed without an error."""
        self.session.deliver_mark()
        self.drive()

    def consumer_gone(self, message: str, *, untaken: bool = False) -> None:
        """Who took what the peer sends takes no more; ``untaken``: nor what it was given last.

        The peer has two seconds to say that there was no more. Otherwise both directions end
        with this message.
        """
        self.session.consumer_gone(message, self.clock(), untaken=untaken)
        self.drive()

    # --- what happens ---

    def drive(self) -> None:
        """Something has happened: deliver, settle, say what is due, set the timer, tell."""
        self._nudged = False
        if self._outlet is not None and self.reader.buffered:
            self._outlet.deliver(self.reader)
        self.session.settle(self.clock())
        for link in self._order:
            if not link.full:
                link.flush()
        self._tell()

    def _tell(self) -> None:
        """Wake those who wait, and tell those who look."""
        if self.ending.phase is Phase.OVER and not self._over.done():
            self._over.set_result(None)
        self._set_timer()
        if not self._change.done():
            self._change.set_result(None)
        assert not self._telling, "an observer drives: it has to have that called"
        self._telling = True
        try:
            for observer in self._observers:
                observer()
        finally:
            self._telling = False

    async def changed(self) -> None:
        """Wait until something happens; raises the failure of a session that is over."""
        if self.session.over:
            raise self.session.failure or SessionEnded("the session is over")
        if self._change.done():
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _set_timer(self) -> None:
        """An early timer looks again, which costs less than to move one with every frame."""
        due = deadline(self.session)
        for link in self._order:
            if link.cause is None:
                silent = link.driver.deadline()
                due = silent if due is None or silent < due else due
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - self.clock()), self._tick)

    def _tick(self) -> None:
        self._timer, now = None, self.clock()
        tick(self.session, now)
        for link in self._order:
            link.tick(now)
        if self.session.terms.slots > 1:
            self._order.sort(key=_RANK)
        self.drive()

    def _take(self, slot: int, link: Link | None) -> None:
        """From now on this is the link in that slot; None: there is none."""
        self._taken += 1
        if link is None:
            del self.links[slot]
        else:
            self.links[slot] = link
            link.use(self._outlet)
            link.join(self.drive)
        self._order = sorted(self.links.values(), key=_RANK)
        self.drive()

    def _crashed(self, supervisor: asyncio.Task[None]) -> None:
        """An error outside the protocol ends the pipe for everybody who waits."""
        error = None if supervisor.cancelled() else supervisor.exception()
        self.session.leave(SessionEnded(f"bpipe failed: {error or 'cancelled'}"))
        self._tell()
