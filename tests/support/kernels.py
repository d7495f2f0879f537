"""A kernel that says of paths what a test wants, and sockets that lead to another machine."""

from __future__ import annotations

import errno
import os
import socket

from bpipe.net.acceptor import Acceptor, Host
from bpipe.net.bound import Bound
from bpipe.net.connectors import Connection, Connector
from bpipe.net.netlink import Path, Way

OURS, PEER = "10.0.0.1", "10.0.0.2"
PATH = Path(socket.inet_aton(PEER), socket.inet_aton(OURS))
SEARCHED = Path(socket.inet_aton(PEER))  # the same from whichever address
WAY = Way(3, b"", b"")
SOMETHING = bytes(16)  # a message of which nothing is known
DOWN = bytes.fromhex("2000000010000000000000000000000000000100030000000210000001000000")  # device 3


class FakeKernel:
    """Has a way for each path that is asked for, as long as ``ways`` does not say otherwise."""

    def __init__(self, ways: dict[Path, Way | None] | None = None) -> None:
        self.sock, self._tells = socket.socketpair(type=socket.SOCK_SEQPACKET)
        for sock in (self.sock, self._tells):
            sock.setblocking(False)
        self._lost = False
        self.ways = {} if ways is None else ways
        self.asked: list[Path] = []
        self.looks = 0
        self.closed = False
        self.error: OSError | None = None

    def messages(self) -> bytes:
        self.looks += 1
        if self.error is not None:
            raise self.error
        if self._lost:
            self._lost = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return self.sock.recv(1 << 16)

    def way(self, path: Path) -> Way | None:
        self.asked.append(path)
        return self.ways.get(path, WAY)

    def close(self) -> None:
        self.closed = True
        self.sock.close()
        self._tells.close()

    # --- what happens ---

    def tell(self, message: bytes = SOMETHING) -> None:
        """This message comes, if there is room for it."""
        try:
            self._tells.send(message)
        except BlockingIOError:
            self._lost = True

    def lose(self) -> None:
        """So many have come that some were lost."""
        while not self._lost:
            self.tell()

    def change(self, way: Way | None, *paths: Path) -> None:
        """From now on this is the way of these paths; of both, if none is given."""
        for path in paths or (PATH, SEARCHED):
            self.ways[path] = way
        self.tell()


class Far(socket.socket):
    """A connection that seems to lead to another machine."""

    @classmethod
    def of(cls, sock: socket.socket) -> Far:
        """This one, which is not used any more."""
        far = cls(fileno=sock.detach())
        far.setblocking(False)
        return far

    def getpeername(self) -> tuple[str, int]:
        return PEER, 7000

    def getsockname(self) -> tuple[str, int]:
        return OURS, 50000


class FarConnector:
    """Its connections seem to lead to another machine."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self.name, self.manners = connector.name, connector.manners
        self.via = connector.via
        self.check, self.prefer = connector.check, connector.prefer
        self.close, self.abandon = connector.close, connector.abandon
        self.calls = 0

    async def connect(self, turn: int) -> Connection:
        self.calls += 1
        connection = await self._connector.connect(turn)
        return connection._replace(sock=Far.of(connection.sock))


class FarHost:
    """Who was accepted seems to come from another machine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.turn_away, self.make_room, self.hold_up = host.turn_away, host.make_room, host.hold_up

    def welcome(self, sock: socket.socket, peer: str) -> None:
        self._host.welcome(Far.of(sock), peer)


def far_door(bound: Bound, host: Host) -> Acceptor:
    """What accepts for a listener whose callers seem to come from another machine."""
    return Acceptor(bound, FarHost(host), anywhere=True)
