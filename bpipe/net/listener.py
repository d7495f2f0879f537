"""Accepting: sockets that listen, and the links of the sessions that are called there."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
from collections.abc import Callable
from typing import Final

from bpipe.errors import AddressError, Forged, LinkLost, ProtocolError, code_of, explain
from bpipe.net.bind import Bound
from bpipe.net.clock import clock as system_clock
from bpipe.net.link import Link
from bpipe.net.peer import EXHAUSTED, require_same_user
from bpipe.net.resolve import Endpoint
from bpipe.net.sockets import prepare
from bpipe.protocol.greeting import AnswererGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions

PENDING: Final = 64  # greetings under way at once; one more drops one of them
_BATCH: Final = 4  # connections that are accepted before others have their turn
_SPARE: Final = 16  # descriptors that are left for the session, where few are allowed
_PAUSE: Final = 0.1  # seconds without accepting, when the process is out of descriptors


class Listener:
    """Accepts callers, greets them, and hands each link to the session that it belongs to.

    With a ``secret`` only who knows it is let in; without ``anywhere`` only processes of this one's
    user, where the system tells whose they are. It listens as long as one of its sessions lives:
    also while a link is up, because the caller may know before we do that this link is dead.
    """

    def __init__(
        self,
        bound: Bound,
        *,
        anywhere: bool = False,
        secret: Secret | None = None,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self.name = bound.name
        self.exposed = bound.exposed
        self.refused = 0
        self._bound = bound
        self._anywhere = anywhere
        self._clock = clock
        self._room = _room(bound.sockets[-1])
        self._pending: list[Link] = []
        self._sessions = Sessions(self._drop_link, secret)
        self._sources: dict[Session, AcceptedLinks] = {}

    def source(self, session: Session) -> AcceptedLinks:
        """From now on a caller may have this session: its links."""
        source = self._sources[session] = AcceptedLinks(self, session)
        return source

    def open(self, session: Session) -> None:
        """Begin to accept callers, also for this session."""
        self._sessions.add(session)
        for sock in self._bound.sockets:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def release(self, session: Session) -> None:
        """This session needs no links any more; after the last one, stop listening.

        Again: no effect.
        """
        self._sessions.remove(session)
        if self._sources.pop(session, None) is not None and not self._sources:
            self._close()

    def _close(self) -> None:
        """Let go of the address, and of everybody who is not attached."""
        for sock in self._bound.sockets:
            asyncio.get_running_loop().remove_reader(sock)
        self._bound.close()
        for link in self._pending[:]:
            link.fail(LinkLost("the listener has ended"))

    def _accept(self, listening: socket.socket) -> None:
        for turn in range(_BATCH):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    continue  # what the network did to this one, who is gone
                if turn == 0:  # else there may be nobody who waits
                    self._find_descriptor(listening, error)
                return
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """Begin to hear who this is.

        What has arrived is read at once: a caller that has greeted is kept when room is made.
        """
        try:
            peer = self._check(sock)
        except (AddressError, OSError) as error:
            sock.close()
            if isinstance(error, AddressError):
                self._refuse()
            return
        self._pending = [link for link in self._pending if not link.lost.done()]
        if len(self._pending) >= self._room:
            self._make_room("too many greetings")
        link = Link(sock, AnswererGreeting(self._sessions, self._clock()), peer, self._clock)
        self._pending.append(link)
        link.greeted.add_done_callback(lambda _: self._greeted(link))

    def _check(self, sock: socket.socket) -> str:
        """The caller's name; AddressError if it may not call, OSError if it has gone."""
        name = _name(sock)
        try:
            require_same_user(sock, name, anywhere=self._anywhere)
        except OSError as error:  # to ask takes a descriptor, too
            if error.errno not in EXHAUSTED or not self._make_room("out of descriptors"):
                raise
            require_same_user(sock, name, anywhere=self._anywhere)
        prepare(sock, self._heartbeat)
        return name

    @property
    def _heartbeat(self) -> float:
        return max(each.patience.limits.heartbeat for each in self._sources)

    def _refuse(self) -> None:
        self.refused += 1
        self._tell()

    def _tell(self) -> None:
        """Something has happened that may concern every session."""
        for source in list(self._sources.values()):
            source.drive()

    def _find_descriptor(self, listening: socket.socket, error: OSError) -> None:
        """Drop somebody for one who waits in the kernel; or pause, for the loop would spin."""
        if not self._make_room("out of descriptors"):
            cause = LinkLost(f"cannot accept a caller: {explain(error)}", code_of(error))
            for session in self._sources:
                session.note(cause)
            self._tell()
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(_PAUSE, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _make_room(self, why: str) -> bool:
        """Drop one at random: of those whose first message was right, or of the others.

        From the larger group: so silent callers cannot push out talking ones, nor replayed
        greetings fresh ones.
        """
        droppable = [link for link in self._pending if link.greeting.channel is None]
        heard = [link for link in droppable if link.greeting.answered]
        crowd = max(heard, [link for link in droppable if not link.greeting.answered], key=len)
        if not crowd:
            return False
        victim = random.choice(crowd)
        self._pending.remove(victim)
        victim.fail(LinkLost(why))
        return True

    def _drop_link(self, session: Session) -> None:
        """Its caller is back over another link: the old one is dead, whatever we know of it."""
        cause = LinkLost("the peer has come back over another connection")
        self._sources[session].drop(cause)
        for link in self._pending[:]:
            if link.greeting.channel is not None and _session(link) is session:
                link.fail(cause)

    def _greeted(self, link: Link) -> None:
        if link.greeting.channel is None:
            if isinstance(link.cause, (ProtocolError, Forged)):
                self._refuse()
            return
        session = _session(link)
        assert session is not None
        self._drop_greetings(session)
        if link.cause is None:
            self._pending.remove(link)
            self._sources[session].take(link)
        self._sources[session].drive()  # what ends the session may have come already

    def _drop_greetings(self, session: Session) -> None:
        """A link was attached: a CONFIRM for what was judged before it would come too late.

        That may be a greeting of this session, or of one that its caller has given up.
        """
        for link in self._pending[:]:
            judged = link.greeting.channel is None and _session(link) is session
            if judged and link.cause is None:
                link.fail(LinkLost("another greeting came first"))


class AcceptedLinks:
    """The links of one session that is called: a ``LinkSource``. Made by ``Listener.source``."""

    attempts: Final = 0  # it can only wait
    next_at: Final = None

    def __init__(self, listener: Listener, session: Session) -> None:
        self._listener = listener
        self._session = session
        self._link: Link | None = None  # the one that is attached
        self._taken: asyncio.Queue[Link] = asyncio.Queue(maxsize=1)
        self._drive: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """The address where it can be called."""
        return self._listener.name

    @property
    def exposed(self) -> bool:
        """Whether other machines can call there."""
        return self._listener.exposed

    @property
    def refused(self) -> int:
        """The callers that do not belong here."""
        return self._listener.refused

    @property
    def change(self) -> int:
        """Is raised with everything that no link tells."""
        return self._listener.refused

    def start(self, drive: Callable[[], None]) -> None:
        """Begin to accept callers; call this after something has happened."""
        self._drive = drive
        self._listener.open(self._session)

    def drive(self) -> None:
        """Something has happened."""
        self._drive()

    async def next_link(self) -> Link:
        """The next link that is greeted and attached to the session; waits until there is one."""
        while True:
            link = await self._taken.get()
            if link.cause is None:
                return link

    def take(self, link: Link) -> None:
        """This one is attached."""
        self._link = link
        link.watch(self._drive)
        while not self._taken.empty():
            self._taken.get_nowait()  # a link that was lost before anybody took it
        self._taken.put_nowait(link)

    def drop(self, cause: LinkLost) -> None:
        """Close the link that is attached, if there is one."""
        if self._link is not None:
            self._link.fail(cause)

    def hurry(self) -> None:
        """One can only wait."""

    async def close(self) -> None:
        """The session needs no more links."""
        self._listener.release(self._session)


def _session(link: Link) -> Session | None:
    """Whose link this is, or is going to be; None before that is known."""
    greeting = link.greeting
    return greeting.session if isinstance(greeting, AnswererGreeting) else None


def _room(sock: socket.socket) -> int:
    """How many greetings may be under way: callers do not get the last descriptors."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return PENDING
    return max(1, min(PENDING, limit - sock.fileno() - _SPARE))


def _name(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    return str(Endpoint(sock.family, sock.getpeername()))
