"""A kernel that says of paths what a test wants, and sockets that lead to another machine."""

from __future__ import annotations

import errno
import os
import socket

from bpipe.net.netlink import Path, Way

OURS, PEER = "10.0.0.1", "10.0.0.2"
PATH = Path(socket.inet_aton(PEER), socket.inet_aton(OURS))
SEARCHED = Path(socket.inet_aton(PEER))  # the same from whichever address
WAY = Way(3, b"", b"")
SOMETHING = bytes(16)  # a message of which nothing is known
DOWN = bytes.fromhex("2000000010000000000000000000000000000100030000000210000001000000")  # device 3


class FakeKernel:
    """Has a way for each path that is asked for, as long as ``ways`` does not say otherwise."""

    def __init__(self) -> None:
        self.sock, self._tells = socket.socketpair(type=socket.SOCK_SEQPACKET)
        for sock in (self.sock, self._tells):
            sock.setblocking(False)
        self._lost = False
        self.ways: dict[Path, Way | None] = {}
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
