"""The reconnect function of ``listen``: accept, admit, and hand each link to its session."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from bpipe.errors import AddressError, Forged, LinkLost, ProtocolError
from bpipe.net.address import Address, Endpoint, join, require_local, resolve, same_user
from bpipe.net.link import Link, prepare
from bpipe.protocol.greeting import Answerer, AnswererGreeting
from bpipe.protocol.session import Session

PENDING: Final = 64  # greetings under way at once; one more drops one of them
_BACKLOG: Final = 4096  # connections that wait in the kernel; the system may allow less
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

    def __init__(self, sockets: list[socket.socket], name: str, path: str | None = None) -> None:
        self.name = name  # with the port that was really chosen
        self.exposed = False
        self.refused = 0
        self.on_change: Callable[[], None] = lambda: None
        self._sockets = sockets
        self._path = path
        self._identity = _identity(path)
        self._room = _room(sockets[-1])
        self._pending: list[Link] = []
        self._link: Link | None = None  # the one that is attached
        self._admitted: asyncio.Queue[Link] = asyncio.Queue(maxsize=1)
        self._answerer: Answerer | None = None

    @classmethod
    async def bind(cls, address: Address, *, anywhere: bool = False) -> Listener:
        """Listen at every endpoint of ``address``; AddressError or OSError if that cannot be.

        Without ``anywhere`` only loopback and Unix addresses are bound.
        """
        if address.path is not None:
            return cls([_bind_path(address.path)], str(address), address.path)
        endpoints = await resolve(address, passive=True)
        if not anywhere:
            require_local(address, endpoints)
        sockets: list[socket.socket] = []
        port = address.port
        for endpoint in endpoints:
            try:
                sock = _bind(endpoint, port)
            except OSError as error:
                unusable = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                if error.errno in unusable and (sockets or endpoint != endpoints[-1]):
                    continue  # localhost has an IPv6 address also where IPv6 is switched off
                for sock in sockets:
                    sock.close()
                raise
            sockets.append(sock)
            port = sock.getsockname()[1]
        host = str(endpoints[0].sockaddr[0]) if len(endpoints) == 1 else address.host
        listener = cls(sockets, join(host or "localhost", port))
        listener.exposed = not all(endpoint.local for endpoint in endpoints)
        return listener

    def hurry(self) -> None:
        """A listener can only wait."""

    async def close(self) -> None:
        """Stop listening, and let go of everybody who is not attached."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        if self._path is not None and _identity(self._path) == self._identity:
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
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # out of descriptors
                if turn == 0:  # else there may be nobody who waits
                    self._find_descriptor(listening)
                return
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """Begin to hear who this is. What has arrived is read at once: it may save him below."""
        assert self._answerer is not None
        if sock.family == socket.AF_UNIX and not same_user(sock):
            sock.close()
            return
        try:
            peer = _name(sock)
            prepare(sock, self._answerer.session.limits.heartbeat)
        except OSError:
            sock.close()
            return
        self._pending = [link for link in self._pending if not link.lost.done()]
        if len(self._pending) >= self._room:
            self._make_room("too many greetings")
        link = Link(sock, AnswererGreeting(self._answerer), peer)
        self._pending.append(link)
        link.greeted.add_done_callback(lambda _: self._greeted(link))

    def _find_descriptor(self, listening: socket.socket) -> None:
        """Drop somebody for one who waits in the kernel; or pause, for the loop would spin."""
        if not self._make_room("out of descriptors"):
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
                self.refused += 1
                self.on_change()
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


def _bind(endpoint: Endpoint, port: int) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not endpoint.mapped)
        assert isinstance(endpoint.sockaddr, tuple)
        sock.bind((endpoint.sockaddr[0], port, *endpoint.sockaddr[2:]))
        sock.setblocking(False)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_path(path: str) -> socket.socket:
    """Listen at ``path``: mode 0600, in place of a socket that nobody listens at, never of another.

    The folder is locked meanwhile, so that of two who start at once one finds the other.
    """
    with _locked(os.path.dirname(path) or "."):
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(path)
            os.chmod(path, 0o600)  # nobody can connect before listen()
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Lock the folder, but do not depend on it: anybody can hold such a lock for ever."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield  # one that can be written and not read
        return
    try:
        for _ in range(20):
            with contextlib.suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        yield
    finally:
        os.close(opened)


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # it is alive, or not ours to judge: bind() will say so


def _identity(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
