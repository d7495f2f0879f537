"""Who looks out for one slot of a session: for what the system says of the path of its link.

Theory of operation. When the last address, route or carrier that leads to the peer goes, the link
is in doubt at once, and not when nobody has answered for a while; but it is not lost, as TCP
survives that if all comes back soon. When there is a way again, TCP does not know: it sends again
when its timer says so, which may be in seconds. So the end that calls tries a new connection at
once, and the old one is asked whether it lives: whichever answers first. The end that is called
cannot call, but it can end a connection that brings nothing, and with a reset: then its peer hears
of that at once, and calls.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpipe.errors import LinkLost
from bpipe.net.link import Link
from bpipe.net.sockets import forget, leaves

if TYPE_CHECKING:
    from bpipe.net.paths import Watched

SETTLED: Final = 0.2  # seconds that a link has to live before its path is watched
PROOF: Final = 0.03  # seconds that the peer has to say something over a path that is back, or
ROUND_TRIPS: Final = 3  # round trips, if that is longer

_ANYWHERE: Final = "192.0.2.1", "2001:db8::1"  # nobody has them: see RFC 5737 and RFC 3849
_LONGEST: Final = 16  # bytes of an interface's name, and one
_INFO: Final = struct.Struct("=8B16I")  # the beginning of tcp_info: see linux/tcp.h
_RETRIES, _UNANSWERED, _ROUND_TRIP = 2, 12, 23  # in that; microseconds

Where = tuple[Any, Any, str]  # peer and local address, as sockets have them; an interface's name


class Lookout:
    """Has the path of a link watched, or where one is looked for; ``tell`` is called with the news.

    True: there is a way again, or another one. False: there is none any more.
    """

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._paths: list[Where] = []
        self._watched: list[Watched] = []
        self._timer: asyncio.TimerHandle | None = None

    def over(self, link: Link | None) -> None:
        """Soon it is the path of this link, if that leaves the machine; None: it is lost.

        Not at once: what does not take long is not to wait for it. Of one that is lost it is at
        once where that went, and from wherever one can go there now.
        """
        self._wait()
        if link is None:
            self._watch(self._paths)
            return
        self._paths = _paths(link.sock)
        known = self._paths[:1] if self._paths and self._paths[0][1] else []
        self._timer = asyncio.get_running_loop().call_later(SETTLED, self._watch, known)

    def end(self) -> None:
        """Nobody needs to be told any more. Again: no effect."""
        self._wait()
        self._watch([])

    def _wait(self) -> None:
        """For what is to be watched next."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, paths: list[Where]) -> None:
        """From now on these, and no others."""
        if not paths and not self._watched:
            return
        from bpipe.net.routes import path_to, routes

        found = [routes().watch(path_to(*path), self._tell) for path in paths]
        before, self._watched = self._watched, [each for each in found if each is not None]
        for each in before:
            routes().forget(each)


def look_out(link: Link) -> None:
    """For a link that was accepted, as long as it lives."""

    def told(there: bool) -> None:
        link.doubt(away=not there)
        if there:
            _prove(link)

    lookout = Lookout(told)
    lookout.over(link)
    link.lost.add_done_callback(lambda _: lookout.end())


def _prove(link: Link) -> None:
    """There is a way again: this link is ended, with a reset, if the peer says nothing over it.

    At once, if the kernel waits for an answer, and sends nothing more before its timer is due.
    """
    liveness = link.liveness
    if liveness is None:
        return
    stuck, round_trip = _ask(link.sock)
    patience = 0.0 if stuck else max(PROOF, ROUND_TRIPS * round_trip)
    asyncio.get_running_loop().call_later(patience, _judge, link, liveness.heard_at)


def _judge(link: Link, heard_at: float) -> None:
    """Its time is over: nothing may have been heard since then."""
    liveness = link.liveness
    if liveness is not None and liveness.heard_at == heard_at and not liveness.away:
        forget(link.sock)
        link.fail(LinkLost("nothing was heard over a path that is back", "silent"))


def _ask(sock: socket.socket) -> tuple[bool, float]:
    """Whether TCP has sent something again, in vain so far; and the round trip, in seconds."""
    try:
        found = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except (AttributeError, OSError, struct.error):
        return False, 0.0
    return found[_RETRIES] > 0 and found[_UNANSWERED] > 0, found[_ROUND_TRIP] / 1e6


def _paths(sock: socket.socket) -> list[Where]:
    """The path of this socket, and then where else a link could go; empty: not off this machine."""
    if not leaves(sock):
        return []
    try:
        peer, local = sock.getpeername(), sock.getsockname()
    except OSError:
        return []
    if not peer:  # where a command goes, nobody knows
        return [((host, 0), None, "") for host in _ANYWHERE]
    interface = _interface(sock)
    return [] if local[0] == peer[0] else [(peer, local, interface), (peer, None, interface)]


def _interface(sock: socket.socket) -> str:
    """The name of that by which this socket goes out, if it was chosen."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LONGEST)
    except (AttributeError, OSError):
        return ""
    return os.fsdecode(found.partition(b"\0")[0])
