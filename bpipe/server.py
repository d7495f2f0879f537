"""Server: many callers at one address, each with a pipe of its own. For programs, and for ours.

Theory of operation. There is always one pipe more than callers that were let in, as long as there
may be: the next caller gets it. Whoever was heard in theirs is served; who was let in, and does not
come back to be heard, gives way in the end. All of them share one ``Listener``, and one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

from bpipe.api import bucket
from bpipe.errors import SessionEnded
from bpipe.net.address import Address, to_listen_at
from bpipe.net.bind import bind
from bpipe.net.bound import Bound
from bpipe.net.clock import clock as system_clock
from bpipe.net.listener import Listener
from bpipe.net.ways import Links
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import deserted
from bpipe.protocol.wire import MOST_LINKS, Reason

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret

MAX_SESSIONS: Final = 64  # at once
BUFFER_SIZE: Final = 4 << 20  # bytes kept for each direction of each session
LIMITS: Final = Limits(give_up_after=3600.0)
UNHEARD_FOR: Final = 30.0  # seconds in which one who was let in, and not heard, may come back

Handler = Callable[[BackedPipe], Awaitable[None]]


class Terms(NamedTuple):
    """What all sessions of a server have in common; see ``serve``."""

    insecure: bool = False
    secret: Secret | None = None
    buffer_size: int = BUFFER_SIZE
    limits: Limits = LIMITS
    needs: int = 0
    rate: Bucket | None = None  # which all of them share
    links: Links = Links(MOST_LINKS)  # that each of them may have

    @property
    def anywhere(self) -> bool:
        """Whether callers of other users and machines may come."""
        return self.insecure or self.secret is not None

    def session(self) -> Session:
        """A new one."""
        most = self.links.to_accept()
        return Session(self.buffer_size, self.limits, self.secret, self.needs, self.rate, most)


class Server:
    """Serves whoever calls, ``most`` sessions at once, by calling ``handler`` for each.

    It listens from when it is entered, as an asynchronous context manager. Leaving that ends the
    sessions that still live, as an exception in their handlers would.
    """

    def __init__(
        self,
        address: Address,
        handler: Handler,
        most: int,
        terms: Terms,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self.most = most
        self._address = address
        self._handler = handler
        self._terms = terms
        self._clock = clock
        self._listener: Listener
        self._tasks: dict[BackedPipe, asyncio.Task[None]] = {}
        self.stopped = False
        self._tell: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Server:
        self._terms.links.require_congestion()
        bound = await bind(self._address, anywhere=self._terms.anywhere)
        self._terms.links.prepare(bound.sockets)
        self.open(bound)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        for task in self._tasks.values():
            task.cancel()
        await self.wait_closed()

    # --- what is known ---

    @property
    def address(self) -> str:
        """Where it can be called, with the port that was really chosen."""
        return self._listener.name

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, and nothing tells who they are."""
        return self.reachable and not self.sealed

    @property
    def reachable(self) -> bool:
        """Whether other machines can connect; who may is another question."""
        return self._listener.exposed

    @property
    def sealed(self) -> bool:
        """Whether there is a secret."""
        return self._terms.secret is not None

    @property
    def refused(self) -> int:
        """The callers that did not belong here."""
        return self._listener.refused

    @property
    def pipes(self) -> list[BackedPipe]:
        """Of the callers that were heard, and are served."""
        return [pipe for pipe in self._tasks if pipe.engine.session.established]

    # --- its life ---

    def open(self, bound: Bound) -> None:
        """Serve whoever calls there, from now on."""
        anywhere, secret = self._terms.anywhere, self._terms.secret
        self._listener = Listener(
            bound, anywhere=anywhere, secret=secret, supply=self, clock=self._clock
        )

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this whenever a caller was refused."""
        self._tell = callback

    def stop(self) -> None:
        """Serve no new callers: they are told to try again. Who is served may come back still."""
        self.stopped = True
        for pipe in list(self._tasks):
            pipe.engine.drive()

    async def wait_closed(self) -> None:
        """After ``stop``: wait until nobody is served any more; then the address is let go."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())
        self._listener.close()

    async def serve_forever(self) -> None:
        """Wait until this is cancelled."""
        await asyncio.get_running_loop().create_future()

    # --- what the listener asks: see ``Supply`` ---

    def more(self) -> Session | None:
        """One more session for a caller, or one that is given up; None if there is no room."""
        if self.stopped:
            return None
        if len(self._tasks) >= self.most:
            return self._given_up()
        session = self._terms.session()
        pipe = BackedPipe(session, self._listener.source(session), self._clock)
        pipe.engine.start()
        self._tasks[pipe] = task = asyncio.create_task(self._serve(pipe))
        task.add_done_callback(lambda _: self._served(pipe))
        return session

    def _given_up(self) -> Session | None:
        """One that somebody was let into, was not heard in, and has not come back to for long.

        Not sooner: it may know already that it was let in, and does not call anew then, for it
        cannot know what was done with what it has sent. Or one that its sender has deserted.
        """
        now = self._clock()
        for session in (pipe.engine.session for pipe in self._tasks):
            unheard = session.replaceable and session.history.lost_at <= now - UNHEARD_FOR
            if unheard or deserted(session, now):
                return session
        return None

    def _served(self, pipe: BackedPipe) -> None:
        """A task that was cancelled before it began has left its pipe as it was."""
        del self._tasks[pipe]
        pipe.abort(Reason.INTERRUPTED, "the server has ended")

    def told(self) -> None:
        """A caller was refused, or has to wait."""
        self._tell()

    # --- one session ---

    async def _serve(self, pipe: BackedPipe) -> None:
        """Wait until somebody is heard, and serve."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_exit(pipe)
                await self._heard(pipe)
                await self._handler(pipe)
        except SessionEnded:
            pass  # its handler knows, or could
        except Exception as error:
            context = {"message": "a handler of bpipe.serve failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _heard(self, pipe: BackedPipe) -> None:
        """Wait until it is known who was heard; SessionEnded if nobody is waited for any more."""
        session = pipe.engine.session
        while not (session.established and pipe.engine.link is not None):
            if self.stopped and session.replaceable:
                session.leave(SessionEnded("the server has stopped"))
                pipe.engine.drive()
            await pipe.engine.changed()


def serve(
    address: str | Address,
    handler: Handler,
    *,
    max_sessions: int = MAX_SESSIONS,
    insecure: bool = False,
    secret: Secret | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = LIMITS,
    rate: int | Bucket = 0,
) -> Server:
    """What serves callers at ``address``: enter it to begin, as in ``async with serve(...)``.

    ``handler`` is called, and awaited, for each caller that was heard, with a pipe that is up. When
    it returns, the pipe is closed; if it raises, the pipe is aborted. That a session has failed may
    be raised out of it, and means nothing to the others.

    At most ``max_sessions`` are served at once; another caller is told to try again. Who was
    served and has lost the connection always gets in. So the memory is bounded: that of each
    session by twice its ``buffer_size``, in bytes. They share the ``rate``. Each may have eight
    links at once. Who may call, and what entering raises, is as for ``listen``.
    """
    terms = Terms(insecure, secret, buffer_size, limits, rate=bucket(rate))
    where = to_listen_at(address, sealed=secret is not None)
    return Server(where, handler, max_sessions, terms)
