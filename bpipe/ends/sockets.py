"""A connected socket as both ends of a pipe: what it gives is sent, and it gets what has come.

An end of file is the end of the stream that is sent, and nothing else: the other direction goes on
(half-close). An owner that has closed its socket altogether looks like that, too, until bytes come
for it. So the peer's stream ends here with a shutdown of the writing half, and the socket is closed
when the session is over.

A reset is carried, too. When the socket is reset, both directions end with an ABORT. When the
session fails, on whichever side, the socket is reset: so nobody takes a stream that was cut for a
whole one. A Unix socket has no reset: its owner sees ECONNRESET only if it has sent bytes that were
not read, else an end of file.

An owner that has closed its socket before it has taken everything ends both directions, as any
consumer does that leaves bytes untaken. What it had sent before that, or before its reset, is
carried first, with its end, for as long as two seconds: as over a plain connection an answer is
read before the reset is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Final

from bpipe.ends.socket_streams import Incoming, Outgoing
from bpipe.engine import Engine
from bpipe.errors import AddressError, explain
from bpipe.net.address import Address
from bpipe.net.dial import dial
from bpipe.net.sockets import forget, prepare_end
from bpipe.protocol.ending import MOVING
from bpipe.protocol.wire import Reason

DIAL_TIMEOUT: Final = 10.0  # seconds
LINGER: Final = 2.0  # seconds for the peer to take what had come from a socket that is broken


class Plug:
    """A socket that moves its bytes from now on, until ``close``, as the ends of this engine.

    ``name`` is what errors call it, as in "the connection to localhost:22 was reset".
    """

    def __init__(self, engine: Engine, sock: socket.socket, name: str) -> None:
        prepare_end(sock)
        self._engine = engine
        self._sock = sock
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._failure: tuple[Reason, str] | None = None  # what the peer is to be told
        self._abort_due: asyncio.TimerHandle | None = None
        self._in = Incoming(engine, sock, name, self._broken)
        self._out = Outgoing(engine, sock, name, self._broken, self._cut)

    def look(self) -> None:
        """Something has happened: what follows is done outside of this call."""
        self._in.look()
        self._out.look()
        if self._in.over:
            self._out.watch_over()
        if self._failure is not None and self._in.over:
            if self._carried:
                self._loop.call_soon(self._abort)
            elif self._abort_due is None:
                self._abort_due = self._loop.call_later(LINGER, self._abort)

    def close(self) -> None:
        """The session is over, or has failed. Again: no effect."""
        if self._engine.failure is not None:
            self._reset()
        self._stop()
        self._sock.close()

    @property
    def _carried(self) -> bool:
        """Whether the peer has taken everything that came from the socket, or takes no more."""
        writer = self._engine.writer
        if writer.mark is None:
            return writer.confirmed == writer.written
        return writer.done or writer.stopped is not None

    def _broken(self, error: OSError) -> None:
        """Its owner has closed it, or reset it, or the path to it is gone."""
        if self._sock.fileno() < 0 or self._failure is not None:
            return
        if error.errno == errno.EPIPE or self._in.over:
            if self._out.reader.done:
                return  # it has taken everything before
            message = f"{self._name} was closed before everything was taken"
            self._failure = Reason.BROKEN_PIPE, message
        else:
            self._in.halt()
            what = "was reset" if error.errno == errno.ECONNRESET else f"failed: {explain(error)}"
            self._failure = Reason.LOCAL_ERROR, f"{self._name} {what}"
        self._out.halt()
        self.look()

    def _abort(self) -> None:
        if self._sock.fileno() >= 0 and self._failure is not None:
            self._engine.abort(*self._failure)

    def _cut(self) -> None:
        """It has got all of a stream that is not whole."""
        self._in.cut()
        self._reset()

    def _reset(self) -> None:
        self._stop()
        reset(self._sock)

    def _stop(self) -> None:
        """Move nothing more."""
        self._in.halt()
        self._out.halt()
        if self._abort_due is not None:
            self._abort_due.cancel()


def reset(sock: socket.socket) -> None:
    """Close it, and where that is possible so that its owner does not see the end of a stream."""
    if sock.fileno() >= 0:
        forget(sock)
        sock.close()


class Connected:
    """A socket that is connected already, and now this object's. See ``Ends``.

    ``name`` is as for ``Plug``.
    """

    sends: Final = True
    receives: Final = True
    result: Final = None
    outcome: Final = None

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._name = name
        self._engine: Engine
        self._plug: Plug | None = None

    def start(self, engine: Engine) -> None:
        """Move its bytes from now on."""
        self._engine = engine
        self._plug = Plug(engine, self._sock, self._name)
        engine.observe(self._look)
        engine.drive()

    def hurry(self) -> bool:
        """There is nothing."""
        return False

    async def wait(self) -> None:
        """Close it; it is reset if the session has failed, or was never there."""
        if self._plug is None:
            reset(self._sock)
        else:
            self._plug.close()

    def _look(self) -> None:
        assert self._plug is not None
        if self._engine.session.phase in MOVING:
            self._plug.look()
        else:
            self._engine.call(self._plug.close)


class Dialled:
    """A connection to a service, made when the session is established. See ``Ends``.

    A service that is not there, or does not answer for ``limit`` seconds, ends both directions.
    Until it has answered nothing is taken.
    """

    sends: Final = True
    receives: Final = True
    result: Final = None
    outcome: Final = None

    def __init__(self, address: Address, limit: float = DIAL_TIMEOUT) -> None:
        self._address = address
        self._limit = limit
        self._engine: Engine
        self._dialling: asyncio.Task[None] | None = None
        self._plug: Plug | None = None

    def start(self, engine: Engine) -> None:
        """From now on the service may be called, as soon as the session is established."""
        self._engine = engine
        engine.observe(self._look)
        self._look()

    def hurry(self) -> bool:
        """There is nothing."""
        return False

    async def wait(self) -> None:
        """Close the connection, as ``Connected`` does, or make none."""
        self._end()
        if self._dialling is not None:
            await asyncio.wait([self._dialling])

    def _look(self) -> None:
        session, plug = self._engine.session, self._plug
        if session.phase not in MOVING:
            self._engine.call(self._end)
        elif plug is not None:
            plug.look()
        elif self._dialling is None and session.established:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def _end(self) -> None:
        """The session is over, or has failed."""
        if self._plug is not None:
            self._plug.close()
        elif self._dialling is not None:
            self._dialling.cancel()

    async def _dial(self) -> None:
        try:
            self._connected(await dial(self._address, self._limit))
        except (OSError, AddressError) as error:
            why = explain(error) if isinstance(error, OSError) else str(error)
            message = f"cannot connect to {self._address}: {why}"
            self._engine.abort(Reason.LOCAL_ERROR, message)

    def _connected(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(reset, sock)
            if self._engine.session.phase not in MOVING:
                return  # it was too late
            self._plug = Plug(self._engine, sock, f"the connection to {self._address}")
            stack.pop_all()
        self._engine.drive()
