"""The holder: the far end of a session, which stays when the connection that has started it ends.

It listens at an abstract socket for relays, which have to be of this user and to know the first
half of a token. Then it is a listener as any other, with a program: that is started when the
session is established, and the holder ends with it.

It has nothing of the process that has started it: no terminal, no descriptor, no session. Only its
folder and its environment are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, Final

from bpipe.ends.program_errors import ErrorsChild, RemoteProgram
from bpipe.ends.scheduling import LoopScheduling
from bpipe.errors import LinkLost
from bpipe.net.acceptor import Acceptor, Host
from bpipe.net.bound import Bound
from bpipe.net.listener import Listener
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.session import Session
from bpipe.protocol.wire import RECORDS, Reason
from bpipe.remote.relay import HALF, enlarge
from bpipe.remote.starter import restore_locale
from bpipe.run.join import Join

UNUSED_FOR: Final = 60.0  # seconds until a holder leaves in whose session nobody was heard
INTRODUCTION: Final = 5.0  # seconds for a relay to say its half of the token
_BUFFER: Final = 1 << 18  # bytes in the kernel on their way to a relay: behind it there are more


def main(parcel: Mapping[str, Any]) -> None:
    """The whole life of the holder's process; descriptor 1 is the socket that listens."""
    _detach()
    restore_locale()
    listening = socket.socket(fileno=os.dup(1))
    listening.setblocking(False)
    with open(os.devnull, "r+b", buffering=0) as null:
        for descriptor in range(3):
            os.dup2(null.fileno(), descriptor)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(hold(listening, bytes.fromhex(parcel["token"]), parcel["errand"]))


def _detach() -> None:
    """Leave the session of the one that has started us, if that was not done, and be known."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write("bpipe-holder")


async def hold(listening: socket.socket, token: bytes, errand: Mapping[str, Any]) -> None:
    """Serve one session, to its end."""
    limits = Limits(heartbeat=errand["heartbeat"], give_up_after=errand["give_up_after"])
    size, links = errand["buffer_size"], errand["links"]
    session = Session(size, limits, needs=RECORDS, links=links)
    bound = Bound([listening], f"unix:@{os.fsdecode(listening.getsockname()[1:])}")
    listener = Listener(bound, door=lambda bound, host: Door(bound, host, token))
    pipe = BackedPipe(session, listener.source(session))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, _interrupt, pipe, number)
    unused = loop.call_later(UNUSED_FOR, _leave_unused, pipe)
    await Join(pipe, RemoteProgram(_argv(errand), launch=_launch), LoopScheduling()).run()
    unused.cancel()


def _argv(errand: Mapping[str, Any]) -> list[str]:
    """What is started: a program, or a command for the user's shell."""
    if "argv" in errand:
        return list(errand["argv"])
    return [os.environ.get("SHELL") or "/bin/sh", "-c", errand["command"]]


def _launch(*what: Any) -> ErrorsChild:
    """The program runs; there is one, so its pipes may be large."""
    child = ErrorsChild(*what)
    enlarge(child.stdin)
    enlarge(child.stdout)
    return child


def _interrupt(pipe: BackedPipe, number: int) -> None:
    pipe.abort(Reason.INTERRUPTED, f"the far side was told to end ({signal.Signals(number).name})")


def _leave_unused(pipe: BackedPipe) -> None:
    if not pipe.engine.session.established:
        pipe.abort(Reason.GIVEN_UP, f"nobody came in {UNUSED_FOR:g} s")


class Door:
    """What lets relays in to a listener: those of this user that know the token."""

    def __init__(self, bound: Bound, host: Host, token: bytes) -> None:
        self._host = host
        self._token = token
        self._acceptor = Acceptor(bound, self)
        self._coming: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to accept. Again: no effect."""
        self._acceptor.open()

    def close(self) -> None:
        """Accept nobody any more. Again: no effect."""
        self._acceptor.close()
        for task in self._coming:
            task.cancel()

    # --- what the acceptor tells: see ``Host`` ---

    def welcome(self, sock: socket.socket, peer: str) -> None:
        """Hear what it knows."""
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._hear(sock, peer))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def turn_away(self) -> None:
        """It is another user's."""
        self._host.turn_away()

    def make_room(self, why: str) -> bool:
        """As the host can."""
        return self._host.make_room(why)

    def hold_up(self, cause: LinkLost) -> None:
        """Somebody waits."""
        self._host.hold_up(cause)

    async def _hear(self, sock: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            said = await asyncio.wait_for(loop.sock_recv(sock, HALF), INTRODUCTION)
            if not hmac.compare_digest(said, self._token[:HALF]):
                raise ConnectionRefusedError
            sock.send(self._token[HALF:])
            self._host.welcome(sock, peer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            sock.close()
