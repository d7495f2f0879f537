"""One connected socket, driven straight by the event loop's readiness callbacks.

A link asks its driver (the greeting first, then the channel) where bytes belong and which go
out, and moves them with plain non-blocking ``recvmsg_into`` and ``sendmsg``: no streams, no
transports, no future per operation. The reader callback is registered once for the life of the
link; the writer callback, while there is more to send than the kernel takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from bpipe.errors import LinkLost, code_of, explain
from bpipe.net.clock import clock as system_clock
from bpipe.net.farewell import see_off
from bpipe.net.outlet import Outlet
from bpipe.net.sockets import forget
from bpipe.protocol.channel import Channel
from bpipe.protocol.driver import Driver
from bpipe.protocol.greeting import Greeting
from bpipe.protocol.liveness import Liveness

MOMENT: Final = 0.02  # seconds that a full outlet may keep the socket from being read
_FAREWELL: Final = 1 << 16  # bytes that are heard from one who was refused
_TURNS: Final = 16  # system calls in one callback, before others have their turn
_LAST_TURNS: Final = 1 << 10  # the same where nothing comes after it: more than a kernel holds
_RESOLUTION: Final = 0.01  # seconds; a clock may be a little behind a timer


class Link:
    """A socket and what drives it. It closes itself, and detaches its channel, when it is lost.

    ``greeted`` and ``lost`` are futures: the first fails with LinkLost if the greeting does; the
    second is set to the cause. Until ``join`` it only sends what is due over it.
    """

    def __init__(
        self,
        sock: socket.socket,
        greeting: Greeting,
        peer: str,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self.peer = peer
        self.greeting = greeting
        self.cause: LinkLost | None = None  # why it was lost
        self._loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[LinkLost] = self._loop.create_future()
        self.sock = sock
        self._clock = clock
        self.driver: Driver = greeting  # then the channel
        self._channel: Channel | None = None  # once the greeting is done
        self._drive: Callable[[], None] = self.flush
        self._outlet: Outlet | None = None  # past the memory of this process, if there is a way
        self.full = False  # the kernel takes no more for now
        self._writing = False
        self._held = False  # nothing is sent
        self._stall: tuple[Outlet, asyncio.TimerHandle] | None = None  # the outlet is full
        self._detour = False  # what comes next goes through memory
        self._closing: asyncio.Task[None] | None = None  # the farewell to one who was refused
        self._loop.add_reader(sock, self._readable)
        self._timer = self._loop.call_later(greeting.deadline() - clock(), self._greeting_due)
        self._readable()  # what the peer has said already

    def join(self, drive: Callable[[], None]) -> None:
        """Call this after bytes have moved. It has to call ``flush``, and must not wait."""
        self._drive = drive

    def watch(self, drive: Callable[[], None]) -> None:
        """The same before the link is joined: it sends what is due by itself, and then calls."""

        def moved() -> None:
            self.flush()
            drive()

        self._drive = moved

    def use(self, outlet: Outlet | None) -> None:
        """Plain payload may go to the consumer this way, past the reader, while it is idle."""
        self._outlet = outlet

    @property
    def slot(self) -> int:
        """Which one it has in its session."""
        return self.greeting.slot

    @property
    def rank(self) -> tuple[bool, float]:
        """Of those of a session the least is the best."""
        assert self._channel is not None
        return self._channel.rank

    def doubt(self, *, away: bool) -> None:
        """The system says that there is no way to the peer; or, not ``away``, that one is back."""
        if self._channel is not None and self.cause is None:
            self._channel.suspect(self._clock(), away=away)
            self._drive()

    @property
    def liveness(self) -> Liveness | None:
        """Whether the peer is alive, as long as its session is attached over this link."""
        channel = self.greeting.channel
        return None if channel is None or self.cause is not None else channel.liveness

    def flush(self) -> None:
        """Send what there is to send, as far as the kernel takes it at once."""
        if self.cause is not None or self._held:
            return
        now = self._clock()
        views = self.driver.outgoing(now)
        try:
            for _ in range(_TURNS):
                if not views:
                    break
                count = self.sock.sendmsg(views)
                now = self._clock()
                self.driver.sent(count, now)
                if self._channel is None:
                    self._advance()
                views = self.driver.outgoing(now)
        except BlockingIOError:
            pass
        except OSError as error:
            self._hear_out(LinkLost(explain(error), code_of(error)))
            return
        self.full = bool(views)
        if self._writing is not self.full:
            self._watch(self.full)
        if self.greeting.finished and not self._writing:
            self.fail(LinkLost("refused"), politely=True)

    def hold(self) -> None:
        """Send nothing until something is heard, or ``release``: another link is asked for."""
        self._held, self.full = True, False
        self._watch(False)

    def release(self) -> None:
        """Go on."""
        if self._held:
            self._held = False
            self.flush()

    def fail(self, cause: LinkLost, *, politely: bool = False) -> None:
        """End this link at once, or after what was written has reached the peer."""
        if self.cause is not None:
            if self._closing is not None:
                self._closing.cancel()
            return
        self.cause = cause
        self._unwatch()
        self.greeting.lost(cause, self._clock())
        if politely:
            self._closing = self._loop.create_task(see_off(self.sock, b"", _FAREWELL))
            self._closing.add_done_callback(lambda _: self._closed())
        else:
            self._closed()
        if not self.greeted.done():
            self.greeted.set_exception(cause)
            self.greeted.exception()  # not everybody waits for it

    def _closed(self) -> None:
        if not self.greeting.answered:  # then the kernel need not see it off either
            forget(self.sock)
        self.sock.close()
        assert self.cause is not None
        self.lost.set_result(self.cause)

    async def close(self) -> None:
        """End this link after everything that is begun was written; takes at most 1 s.

        A close with unread input would make the kernel send a reset, and destroy what is on its
        way: so say the end, and discard input until the peer has said it too.
        """
        if self.cause is not None:
            return
        rest = b"".join(self.driver.outgoing(self._clock()))
        self.cause = LinkLost("closed")
        self._unwatch()
        await see_off(self.sock, rest)
        self.lost.set_result(self.cause)

    # --- readiness ---

    def _readable(self) -> None:
        try:
            for _ in range(_TURNS):
                if not self._receive():
                    break
        except BlockingIOError:
            pass
        except LinkLost as cause:
            self.fail(cause)
        except OSError as error:
            self.fail(LinkLost(explain(error), code_of(error)))
        self._drive()

    def _receive(self) -> bool:
        """Take what has arrived; returns whether there may be more. Raises LinkLost or OSError."""
        outlet, channel = self._outlet, self._channel
        if outlet is not None and channel is not None:
            limit = channel.passable
            if limit and outlet.idle():
                if not self._detour:
                    return self._pass(outlet, channel, limit)
                self._detour = False
        views = self.driver.incoming()
        room = sum(map(len, views))
        if not room:
            return False  # not before READY is written
        count = self.sock.recvmsg_into(views)[0]
        if not count:
            raise LinkLost("the connection was closed")
        self._held = False
        self.driver.received(count, self._clock())
        if channel is None:
            self._advance()
            return count == room
        return count == room and channel.midway  # behind a whole frame there is mostly nothing

    def _pass(self, outlet: Outlet, channel: Channel, limit: int) -> bool:
        """Have payload moved from the socket to the consumer; returns whether there may be more."""
        count = outlet.take(self.sock, limit)
        if count is None:  # for a moment it is the consumer that is waited for, not the socket
            self._loop.remove_reader(self.sock)
            self._loop.add_writer(outlet, self._end_stall)
            self._stall = outlet, self._loop.call_later(MOMENT, self._end_stall)
            return False
        if not count:
            raise LinkLost("the connection was closed")
        self._held = False
        channel.passed(count, self._clock())
        return count < limit

    def _end_stall(self) -> None:
        """The outlet has room, or the moment is over: then the socket is read anyway."""
        assert self._stall is not None
        (outlet, timer), self._stall = self._stall, None
        self._detour = timer.when() <= self._loop.time()
        timer.cancel()
        self._loop.remove_writer(outlet)
        self._loop.add_reader(self.sock, self._readable)

    def _hear_out(self, cause: LinkLost) -> None:
        """Nothing can be sent any more; what had arrived before, an ABORT perhaps, counts."""
        self._outlet = None  # which may be full
        with contextlib.suppress(OSError, LinkLost):
            for _ in range(_LAST_TURNS):
                if self.cause is not None or not self.driver.incoming():
                    break
                self._receive()
        self.fail(cause)

    def _writable(self) -> None:
        self.full = False
        self._drive()

    def _advance(self) -> None:
        """The greeting may be over: from then on the channel drives."""
        if self.greeting.done and self._channel is None:
            assert self.greeting.channel is not None
            self.driver = self._channel = self.greeting.channel
            self._timer.cancel()
            self.greeted.set_result(None)

    # --- time ---

    def tick(self, now: float) -> None:
        """Look at the clock: the link is lost if its peer was silent for too long."""
        try:
            self.driver.tick(now)
        except LinkLost as cause:
            self.fail(cause)

    def _greeting_due(self) -> None:
        self.tick(self._clock())
        if self.cause is None:
            self._timer = self._loop.call_later(_RESOLUTION, self._greeting_due)

    def _watch(self, writing: bool) -> None:
        if writing and not self._writing:
            self._loop.add_writer(self.sock, self._writable)
        elif self._writing and not writing:
            self._loop.remove_writer(self.sock)
        self._writing = writing

    def _unwatch(self) -> None:
        self._timer.cancel()
        if self._stall is not None:
            self._end_stall()
        self._loop.remove_reader(self.sock)
        self._watch(False)
