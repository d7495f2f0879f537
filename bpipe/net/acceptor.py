"""Accepting: connections that come in at sockets that listen, and whose they are."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Protocol

from bpipe.errors import AddressError, LinkLost, code_of, explain
from bpipe.net.bound import Bound
from bpipe.net.peer import require_same_user
from bpipe.net.sockets import EXHAUSTED

_BATCH: Final = 4  # connections that are accepted before others have their turn
_PAUSE: Final = 0.1  # seconds without accepting, when the process is out of descriptors


class Host(Protocol):
    """Who gets the connections."""

    def welcome(self, sock: socket.socket, peer: str) -> None:
        """This one has come, and may; an OSError means that it has gone again."""

    def turn_away(self) -> None:
        """Somebody came who may not."""

    def make_room(self, why: str) -> bool:
        """Let go of somebody whose descriptor is needed; returns whether there was one."""

    def hold_up(self, cause: LinkLost) -> None:
        """Somebody waits, and cannot be accepted now."""


class Acceptor:
    """Accepts whoever connects to ``bound``, and hands them to ``host``.

    Without ``anywhere`` only processes of this one's user, where the system tells whose they are.
    """

    def __init__(self, bound: Bound, host: Host, *, anywhere: bool = False) -> None:
        self._bound = bound
        self._host = host
        self._anywhere = anywhere
        self._open = False

    def open(self) -> None:
        """Begin to accept. Again: no effect."""
        if not self._open:
            self._open = True
            for sock in self._bound.sockets:
                asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def pause(self) -> None:
        """Let whoever comes wait in the kernel, until ``open``."""
        self._open = False
        for sock in self._bound.sockets:
            asyncio.get_running_loop().remove_reader(sock)

    def close(self) -> None:
        """Let go of the address. Again: no effect."""
        if self._bound.sockets[0].fileno() >= 0:
            self.pause()
            self._bound.close()

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
            self._take(sock)
            if not self._open:
                return

    def _take(self, sock: socket.socket) -> None:
        try:
            peer = self._name(sock)
            self._require_same_user(sock, peer)
            self._host.welcome(sock, peer)
        except (AddressError, OSError) as error:
            sock.close()
            if isinstance(error, AddressError):
                self._host.turn_away()

    def _require_same_user(self, sock: socket.socket, peer: str) -> None:
        """AddressError if it may not call, OSError if it has gone."""
        try:
            require_same_user(sock, peer, anywhere=self._anywhere)
        except OSError as error:  # to ask takes a descriptor, too
            if error.errno not in EXHAUSTED or not self._host.make_room("out of descriptors"):
                raise
            require_same_user(sock, peer, anywhere=self._anywhere)

    def _find_descriptor(self, listening: socket.socket, error: OSError) -> None:
        """Have somebody let go for one who waits in the kernel; or pause: the loop would spin."""
        if not self._host.make_room("out of descriptors"):
            cause = LinkLost(f"cannot accept a caller: {explain(error)}", code_of(error))
            self._host.hold_up(cause)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(_PAUSE, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if self._open:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _name(self, sock: socket.socket) -> str:
        """Who has come, for people; of a Unix socket, where he has."""
        if sock.family == socket.AF_UNIX:
            return self._bound.name
        from bpipe.net.resolve import Endpoint  # which a far side does without

        return str(Endpoint(sock.family, sock.getpeername()))
