"""The reconnect function of ``listen``: accept, admit, and hand each link to its session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import socket
from collections.abc import Callable
from typing import Final

from bpipe.errors import AddressError, Forged, LinkLost, ProtocolError, code_of, explain
from bpipe.net.address import Address, Endpoint, join, require_local, resolve
from bpipe.net.bind import bind_all, bind_path, identity
from bpipe.net.link import Link, prepare
from bpipe.net.peer import EXHAUSTED, require_same_user
from bpipe.protocol.greeting import Answerer, AnswererGreeting
from bpipe.protocol.session import Session

PENDING: Final = 64  # greetings under way at once; one more drops one of them
_BATCH: Final = 4  # connections that are accepted before others have their turn
_SPARE: Final = 16  # descriptors that are left for the session, where few are allowed
_PAUSE: Final = 0.1  # seconds without accepting, when the process is out of descriptors


class Listener:
    """Obtains greeted links by accepting them. Made by ``Listener.bind``.

    It listens as long as the session lives: also while a link is up, because the caller may
    know before we do that this link is dead.
    """

    attempts: Final = 0  # it can only wait
    next_at: Final = None

    def __init__(
        self,
        sockets: list[socket.socket],
        name: str,
        path: str | None = None,
        *,
        anywhere: bool = False,
    ) -> None:
        self.name = name  # with the port that was really chosen
        self.exposed = False
        self.refused = 0
        self.on_change: Callable[[], None] = lambda: None
        self._sockets = sockets
        self._path = path
        self._anywhere = anywhere
        self._identity = identity(path)
        self._room = _room(sockets[-1])
        self._pending: list[Link] = []
        self._link: Link | None = None  # the one that is attached
        self._admitted: asyncio.Queue[Link] = asyncio.Queue(maxsize=1)
        self._answerer: Answerer | None = None

    @classmethod
    async def bind(cls, address: Address, *, anywhere: bool = False) -> Listener:
        """Listen at every endpoint of ``address``; AddressError or OSError if that cannot be.

        Without ``anywhere`` only loopback and Unix addresses are bound, and only processes of this
        one's user are let in, where the system tells whose they are.
        """
        if address.path is not None:
            return cls([bind_path(address.path)], str(address), address.path)
        endpoints = await resolve(address, passive=True)
        if not anywhere:
            require_local(address, endpoints)
        sockets = bind_all(endpoints, address.port)
        port = sockets[0].getsockname()[1]
        host = str(endpoints[0].sockaddr[0]) if len(endpoints) == 1 else address.host
        listener = cls(sockets, join(host or "localhost", port), anywhere=anywhere)
        listener.exposed = not all(endpoint.local for endpoint in endpoints)
        return listener

    def hurry(self) -> None:
        """A listener can only wait."""

    async def close(self) -> None:
        """Stop listening, and let go of everybody who is not attached."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        if self._path is not None and identity(self._path) == self._identity:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for link in self._pending[:]:
            link.fail(LinkLost("the listener has ended"))

    async def __call__(self, session: Session) -> Link:
        """The next link that is greeted and attached to the session; waits until there is one."""
        if self._answerer is None:
            self._answerer = Answerer(session, self._drop_link)
            for sock in self._sockets:
                asyncio.get_running_loop().add_reader(sock, self._accept, sock)
        while True:
            link = await self._admitted.get()
            if link.cause is None:
                return link

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
        """Begin to hear who this is. What has arrived is read at once: it may save him below."""
        assert self._answerer is not None
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
        link = Link(sock, AnswererGreeting(self._answerer), peer)
        self._pending.append(link)
        link.greeted.add_done_callback(lambda _: self._greeted(link))

    def _check(self, sock: socket.socket) -> str:
        """The caller's name; AddressError if he may not call, OSError if he has gone."""
        assert self._answerer is not None
        name = _name(sock)
        try:
            require_same_user(sock, name, anywhere=self._anywhere)
        except OSError as error:  # to ask takes a descriptor, too
            if error.errno not in EXHAUSTED or not self._make_room("out of descriptors"):
                raise
            require_same_user(sock, name, anywhere=self._anywhere)
        prepare(sock, self._answerer.session.limits.heartbeat)
        return name

    def _refuse(self) -> None:
        self.refused += 1
        self.on_change()

    def _find_descriptor(self, listening: socket.socket, error: OSError) -> None:
        """Drop somebody for one who waits in the kernel; or pause, for the loop would spin."""
        if not self._make_room("out of descriptors"):
            assert self._answerer is not None
            cause = LinkLost(f"cannot accept a caller: {explain(error)}", code_of(error))
            self._answerer.session.last_cause = cause
            self.on_change()
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(_PAUSE, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _make_room(self, why: str) -> bool:
        """Drop one at random: of those whose first message was right, or of the others.

        Of whichever are more: who says nothing drives out nobody who does, and who repeats what
        he has overheard drives out nobody who has just come.
        """
        droppable = [link for link in self._pending if not link.greeting.attached]
        heard = [link for link in droppable if link.greeting.answered]
        crowd = max(heard, [link for link in droppable if not link.greeting.answered], key=len)
        if not crowd:
            return False
        victim = random.choice(crowd)
        self._pending.remove(victim)
        victim.fail(LinkLost(why))
        return True

    def _drop_link(self) -> None:
        """The caller is back over another link: the old one is dead, whatever we know of it."""
        for link in [self._link, *self._pending]:
            if link is not None and link.greeting.attached:
                link.fail(LinkLost("the peer has come back over another connection"))

    def _greeted(self, link: Link) -> None:
        if not link.greeting.attached:
            if isinstance(link.cause, ProtocolError | Forged):
                self._refuse()
            return
        self._drop_greetings()
        link.on_traffic = self.on_change
        self.on_change()  # what ends the session may have come already
        if link.cause is not None:
            return
        self._pending.remove(link)
        self._link = link
        while not self._admitted.empty():
            self._admitted.get_nowait()  # a link that was lost before anybody took it
        self._admitted.put_nowait(link)

    def _drop_greetings(self) -> None:
        """A link was attached: a CONFIRM for what was judged before it would come too late.

        That may be a greeting of this session, or of one that its caller has given up.
        """
        for link in self._pending[:]:
            assert isinstance(link.greeting, AnswererGreeting)
            judged = link.greeting.hello is not None and not link.greeting.attached
            if judged and link.cause is None:
                link.fail(LinkLost("another greeting came first"))


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
