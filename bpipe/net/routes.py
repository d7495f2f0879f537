"""The door to what the kernel tells of this machine's network: one for each event loop.

It is opened with the first path that is watched, and closed with the last. Where the system has no
such thing, or does not let us, nobody is told anything, and timers have to do.

Many messages cost little: after each look at them the next one waits, the longer the more of them
there are. What does not fit into the kernel's buffer meanwhile is dropped there, and that is told,
too: something has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from bpipe.net.netlink import GROUPS, Path, Way, answer, gone, question
from bpipe.net.paths import Paths, Tell, Watched

SHORTEST: Final = 0.005  # seconds from one look to the next, while there is something to see
LONGEST: Final = 0.1
COST: Final = 20  # a look is followed by a pause that is so many times as long
_BATCH: Final = 1 << 16  # bytes of messages that are read at once; the kernel sends fewer
_TURNS: Final = 64  # of these, in one look
_MAPPED: Final = bytes(10) + b"\xff\xff"  # before an IPv4 address in the clothes of an IPv6 one
_SIOCGIFFLAGS: Final = 0x8913
_IFREQ: Final = struct.Struct("16sH22x")  # a device's name, its flags
_RUNNING: Final = 0x1 | 0x40  # it is up, and so is what is behind it


class Kernel(Protocol):
    """Who tells, and is asked."""

    @property
    def sock(self) -> Any:
        """Is readable when there are messages, or some were lost."""

    def messages(self) -> bytes:
        """Some that wait. BlockingIOError if none do, OSError if some were lost."""

    def way(self, path: Path) -> Way | None:
        """Which way packets would go now; None if they would go nowhere."""

    def close(self) -> None:
        """Nobody asks any more."""


class Linux:
    """That of Linux. OSError if it does not let us."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self.sock = stack.enter_context(_netlink())
            self._asked = stack.enter_context(_netlink())
            self.sock.bind((0, GROUPS))
            self._opened = stack.pop_all()

    def messages(self) -> bytes:
        """Some that wait. BlockingIOError if none do, OSError if some were lost."""
        return self.sock.recv(_BATCH)

    def way(self, path: Path) -> Way | None:
        """Which way packets would go now; None if they would go nowhere.

        The device has to be running, which routes alone do not tell, and the local address has to
        be one of ours, which they do not tell of IPv6.
        """
        try:
            if path.interface:
                path = path._replace(device=socket.if_nametoindex(path.interface))
            if path.local:
                _require_ours(path)
            self._asked.send(question(path))
            way = answer(self._asked.recv(_BATCH))
            if way is None or not self._runs(way.device):
                return None
            return way._replace(source=b"") if path.local else way
        except OSError:
            return None

    def _runs(self, device: int) -> bool:
        import fcntl

        name = socket.if_indextoname(device).encode()
        found = fcntl.ioctl(self._asked, _SIOCGIFFLAGS, _IFREQ.pack(name, 0))
        flags: int = _IFREQ.unpack(found)[1]
        return flags & _RUNNING == _RUNNING

    def close(self) -> None:
        """Nobody asks any more."""
        self._opened.close()


class Routes:
    """Tells of paths, within one event loop. ``connect`` opens the kernel; OSError if it cannot."""

    def __init__(self, connect: Callable[[], Kernel] = Linux) -> None:
        self._connect = connect
        self._kernel: Kernel | None = None
        self._paths = Paths(self._way)
        self._pause = SHORTEST
        self._timer: asyncio.TimerHandle | None = None  # of the next look; None: readiness tells

    def watch(self, path: Path, tell: Tell) -> Watched | None:
        """From now on, ``tell`` is called with what the kernel says of it; None: it says nothing.

        That is within the event loop, and never within this call.
        """
        if self._kernel is None and not self._open():
            return None
        return self._paths.watch(path, tell)

    def forget(self, watched: Watched) -> None:
        """Nobody is to be told any more. Again: no effect."""
        self._paths.forget(watched)
        if not self._paths:
            self._close()

    def _open(self) -> bool:
        try:
            self._kernel = self._connect()
        except OSError:
            return False
        asyncio.get_running_loop().add_reader(self._kernel.sock, self._look)
        return True

    def _close(self) -> None:
        if self._kernel is None:
            return
        if self._timer is None:
            asyncio.get_running_loop().remove_reader(self._kernel.sock)
        else:
            self._timer.cancel()
            self._timer = None
        self._kernel.close()
        self._kernel = None

    def _way(self, path: Path) -> Way | None:
        return None if self._kernel is None else self._kernel.way(path)

    def _look(self) -> None:
        """See what has changed; then wait a little, or until something changes again."""
        kernel, loop = self._kernel, asyncio.get_running_loop()
        assert kernel is not None
        again, self._timer, began = self._timer is not None, None, loop.time()
        try:
            messages = _read(kernel)
        except OSError:
            self._close()
            return
        if not messages:
            self._pause = max(self._pause / 2, SHORTEST)
            if again:
                loop.add_reader(kernel.sock, self._look)
            return
        if not again:
            loop.remove_reader(kernel.sock)
        news = self._paths.changed(chain.from_iterable(map(gone, messages)))
        pause = max(self._pause, COST * (loop.time() - began))
        self._pause = min(self._pause * 2, LONGEST)
        self._timer = loop.call_later(pause, self._look)
        self._paths.tell(news)


def _read(kernel: Kernel) -> list[bytes]:
    """All messages that wait; what was lost is an empty one. OSError if nothing can be read."""
    messages = []
    for _ in range(_TURNS):
        try:
            messages.append(kernel.messages())
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            messages.append(b"")
    return messages


_LOOPS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Routes]] = WeakKeyDictionary()


def routes() -> Routes:
    """Those of the event loop that runs."""
    loop = asyncio.get_running_loop()
    found = _LOOPS.get(loop)
    if found is None:
        found = _LOOPS[loop] = Routes()
    return found


def use(connect: Callable[[], Kernel]) -> None:
    """In the event loop that runs this kernel tells, and not the machine's."""
    _LOOPS[asyncio.get_running_loop()] = Routes(connect)


def path_to(peer: Any, local: Any = None, interface: str = "") -> Path:
    """The path to this address of a socket, from that one of ours, and by that, if it is given."""
    device = peer[3] if len(peer) > 3 else 0
    return Path(_packed(peer[0]), b"" if local is None else _packed(local[0]), device, interface)


def _packed(host: str) -> bytes:
    if ":" not in host:
        return socket.inet_aton(host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[len(_MAPPED) :] if packed.startswith(_MAPPED) else packed


def _require_ours(path: Path) -> None:
    """OSError if the local address is not ours, or cannot be used yet."""
    where: tuple[Any, ...] = socket.inet_ntop(path.family, path.local), 0
    if path.family == socket.AF_INET6:
        where = (*where, 0, path.device)
    with socket.socket(path.family, socket.SOCK_DGRAM) as probe:
        probe.bind(where)


def _netlink() -> socket.socket:
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError(errno.EAFNOSUPPORT, "no netlink here")
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    return socket.socket(socket.AF_NETLINK, kind, 0)
