"""One connected socket, driven straight by the event loop's readiness callbacks.

A link asks its driver (the greeting first, then the session) where bytes belong and which go
out, and moves them with plain non-blocking ``recvmsg_into`` and ``sendmsg``: no streams, no
transports, no future per operation. The reader callback is registered once for the life of the
link; the writer callback, while there is more to send than the kernel takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Callable
from typing import Final

from bpipe.errors import LinkLost, code_of, explain
from bpipe.net.clock import clock
from bpipe.net.outlet import Outlet
from bpipe.protocol.greeting import GREETING_TIMEOUT, Greeting
from bpipe.protocol.session import Session

MOMENT: Final = 0.02  # seconds that a full outlet may keep the socket from being read
CLOSE_TIMEOUT: Final = 1.0  # seconds for the peer to take what was written, and to close
UNSENT: Final = 128 << 10  # bytes in the kernel that wait behind what the path takes
LOCAL_BUFFER: Final = 4 << 20  # bytes in the kernel on their way through a Unix socket
_FAREWELL: Final = 1 << 16  # bytes that are heard from one who was refused
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: nothing stays in the kernel after a close
_TURNS: Final = 16  # system calls in one callback, before others have their turn


def prepare(sock: socket.socket, heartbeat: float) -> None:
    """Set what a link's socket needs; ``heartbeat`` is in seconds."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):  # TCP's is left to the kernel, which adapts it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOCAL_BUFFER)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    patience = min(max(1, int(3000 * heartbeat)), (1 << 31) - 1)
    for option, value in (("TCP_USER_TIMEOUT", patience), ("TCP_NOTSENT_LOWAT", UNSENT)):
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def forget(sock: socket.socket) -> None:
    """Have the kernel forget this connection as soon as it is closed."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Link:
    """A socket and what drives it. It closes itself, and detaches its session, when it is lost.

    ``greeted`` and ``lost`` are futures: the first fails with LinkLost if the greeting does; the
    second is set to the cause. ``on_traffic`` is called after bytes have moved.
    """

    def __init__(self, sock: socket.socket, greeting: Greeting, peer: str) -> None:
        self.peer = peer
        self.greeting = greeting
        self.cause: LinkLost | None = None  # why it was lost
        self.on_traffic: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[LinkLost] = self._loop.create_future()
        self._sock = sock
        self._driver: Greeting | Session = greeting
        self._writing = False
        self._held = False  # nothing is sent
        self.outlet: Outlet | None = None  # past the memory of this process, if there is a way
        self._stall: tuple[Outlet, asyncio.TimerHandle] | None = None  # the outlet is full
        self._detour = False  # what comes next goes through memory
        self._closing: asyncio.Task[None] | None = None  # the farewell to one who was refused
        self._loop.add_reader(sock, self._readable)
        self._timer = self._loop.call_later(
            GREETING_TIMEOUT, lambda: self.fail(LinkLost("no answer to the greeting"))
        )
        self._readable()  # what the peer has said already

    def flush(self) -> None:
        """Send what there is to send, as far as the kernel takes it at once."""
        if self.cause is not None or self._held:
            return
        now = clock()
        views = self._driver.outgoing(now)
        try:
            for _ in range(_TURNS):
                if not views:
                    break
                count = self._sock.sendmsg(views)
                now = clock()
                self._driver.sent(count, now)
                self._advance()
                views = self._driver.outgoing(now)
        except BlockingIOError:
            pass
        except OSError as error:
            self._hear_out(LinkLost(explain(error), code_of(error)))
            return
        self._watch(bool(views))
        if self.greeting.finished and not self._writing:
            self.fail(LinkLost("refused"), politely=True)

    def hold(self) -> None:
        """Send nothing until something is heard, or ``release``: another link is asked for."""
        self._held = True
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
        if self.greeting.attached:
            self.greeting.session.detach(cause, clock())
        if politely:
            self._closing = self._loop.create_task(self._see_off(b"", _FAREWELL))
            self._closing.add_done_callback(lambda _: self._closed())
        else:
            self._closed()
        if not self.greeted.done():
            self.greeted.set_exception(cause)
            self.greeted.exception()  # not everybody waits for it

    def _closed(self) -> None:
        if not self.greeting.answered:  # then the kernel need not see it off either
            forget(self._sock)
        self._sock.close()
        assert self.cause is not None
        self.lost.set_result(self.cause)

    async def close(self) -> None:
        """End this link after everything that is begun was written; takes at most 1 s.

        A close with unread input would make the kernel send a reset, and destroy what is on its
        way: so say the end, and discard input until the peer has said it too.
        """
        if self.cause is not None:
            return
        rest = b"".join(self._driver.outgoing(clock()))
        self.cause = LinkLost("closed")
        self._unwatch()
        await self._see_off(rest)
        self.lost.set_result(self.cause)

    async def _see_off(self, rest: bytes, limit: float = math.inf) -> None:
        """Send the rest and the end, and discard what comes, at most about ``limit`` bytes."""
        with contextlib.suppress(OSError, TimeoutError), self._sock:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._loop.sock_sendall(self._sock, rest)
                self._sock.shutdown(socket.SHUT_WR)
                while limit > 0 and (data := await self._loop.sock_recv(self._sock, 1 << 14)):
                    limit -= len(data)
                    await asyncio.sleep(0)  # while there is something, sock_recv does not wait

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
        self.flush()
        self.on_traffic()

    def _receive(self) -> bool:
        """Take what has arrived; returns whether there may be more. Raises LinkLost or OSError."""
        if self.outlet is not None and self._driver is self.greeting.session:
            limit = self._driver.passable
            if limit and self.outlet.idle():
                if not self._detour:
                    return self._pass(self.outlet, self._driver, limit)
                self._detour = False
        views = self._driver.incoming()
        if not any(views):
            return False  # not before READY is written
        count = self._sock.recvmsg_into(views)[0]
        if not count:
            raise LinkLost("the connection was closed")
        self._held = False
        self._driver.received(count, clock())
        self._advance()
        return count == sum(map(len, views))

    def _pass(self, outlet: Outlet, session: Session, limit: int) -> bool:
        """Have payload moved from the socket to the consumer; returns whether there may be more."""
        count = outlet.take(self._sock, limit)
        if count is None:  # for a moment it is the consumer that is waited for, not the socket
            self._loop.remove_reader(self._sock)
            self._loop.add_writer(outlet, self._end_stall)
            self._stall = outlet, self._loop.call_later(MOMENT, self._end_stall)
            return False
        if not count:
            raise LinkLost("the connection was closed")
        self._held = False
        session.passed(count, clock())
        return count < limit  # behind a whole frame there is mostly nothing: wait to be told

    def _end_stall(self) -> None:
        """The outlet has room, or the moment is over: then the socket is read all the same."""
        assert self._stall is not None
        (outlet, timer), self._stall = self._stall, None
        self._detour = timer.when() <= self._loop.time()
        timer.cancel()
        self._loop.remove_writer(outlet)
        self._loop.add_reader(self._sock, self._readable)

    def _hear_out(self, cause: LinkLost) -> None:
        """Nothing can be sent any more; what had arrived before, an ABORT perhaps, counts."""
        self.outlet = None  # which may be full
        with contextlib.suppress(OSError, LinkLost):
            while self.cause is None and self._receive():
                pass
        self.fail(cause)

    def _writable(self) -> None:
        self.flush()
        self.on_traffic()

    def _advance(self) -> None:
        """The greeting may be over: from then on the session drives."""
        if self._driver is self.greeting and self.greeting.done:
            self._driver = self.greeting.session
            self._timer.cancel()
            self.greeted.set_result(None)

    def _watch(self, writing: bool) -> None:
        if writing and not self._writing:
            self._loop.add_writer(self._sock, self._writable)
        elif self._writing and not writing:
            self._loop.remove_writer(self._sock)
        self._writing = writing

    def _unwatch(self) -> None:
        self._timer.cancel()
        if self._stall is not None:
            self._end_stall()
        self._loop.remove_reader(self._sock)
        self._watch(False)
