"""BackedPipe: a byte stream in each direction that outlives its connections, for programs.

What drives it is in ``engine.py``. The command line, which feeds and drains it from threads, works
with that. What makes one is in ``api.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from bpipe.engine import Engine
from bpipe.errors import PipeClosed, ProtocolError, SessionEnded
from bpipe.halves import Inward, Outward, inward, outward
from bpipe.net.clock import clock as system_clock
from bpipe.net.source import LinkSource
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import CONTENT, Record
from bpipe.protocol.ring import Views, fill
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from bpipe.status import Status


class BackedPipe:
    """A full-duplex byte stream to another process that survives the loss of its connections.

    The session's ``buffer_size`` bytes are kept for each direction: so much can be written before
    the far consumer has taken anything. With a secret its connections are encrypted, and only who
    has the same one gets in. The pipe is used within one event loop; use it as an
    asynchronous context manager, which connects on entry, and on exit closes, or aborts after
    an exception.
    """

    def __init__(
        self, session: Session, source: LinkSource, clock: Callable[[], float] = system_clock
    ) -> None:
        self.engine = Engine(session, source, clock)
        self.writer = session.writer  # the half that this end writes
        self.reader: BackedReader = session.reader  # the half that this end reads
        self._in: Inward | None = None  # the same, once it is known what they carry
        self._out: Outward | None = None
        self._finished = False

    async def __aenter__(self) -> BackedPipe:
        try:
            await self.connect()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                await self.close()
                return
            except asyncio.CancelledError as cancelled:
                await self._fail(cancelled)
                raise
        await self._fail(error)

    async def _fail(self, error: BaseException) -> None:
        """Abort for this reason, and wait until the peer was told, or cannot be."""
        self.abort(Reason.LOCAL_ERROR, f"the peer's program failed: {type(error).__name__}")
        await self.wait_closed()

    # --- the stream ---

    async def connect(self) -> None:
        """Start, and wait for the first link.

        Raises NotConnected when ``Limits.connect_timeout`` has passed (a listener waits for
        ever), Busy when the listener serves another session.
        """
        self.engine.start()
        await self.wait_for_connection()

    async def read(self, limit: int = 1 << 16) -> bytes:
        """The next bytes, at most ``limit``; waits for the first; ``b""`` at the peer's end.

        Bytes count as delivered, and are acknowledged, when this returns them. Raises
        SessionEnded when the session ended before the stream did. Of a far program whose stderr
        is carried, too, that is left out; ``read_record`` has it. A peer that writes to a file says
        nothing to anybody: ``b""`` at once.
        """
        while True:
            kind, data = await self.read_record(limit)
            if kind is Record.DATA or not data:
                return data

    async def read_record(self, limit: int = 1 << 16) -> tuple[Record, bytes]:
        """The same, and what it is: ``DATA``, or what is left out there."""
        while not (views := self._readable(limit)):
            if self._in is not None and self._in.half.drained:
                self._in.deliver()
                return Record.DATA, b""
            await self.engine.changed()
        assert self._in is not None
        half, data = self._in.half, b"".join(views)
        kind = Record.DATA if isinstance(half, BackedReader) else half.kind
        half.took(len(data))
        self.engine.drive()
        return kind, data

    def _readable(self, limit: int) -> Views:
        if self._in is None and self.engine.session.terms.records is not None:
            self._in = inward(self.engine, CONTENT)
        try:
            return [] if self._in is None else self._in.half.readable(limit)
        except ProtocolError as error:
            self.engine.abort(Reason.PROTOCOL, f"protocol error: {error}")
            return []

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Put all of ``data`` on the stream; waits while the buffer is full.

        The data is held until the far consumer has taken it; ``close`` says that it has. Raises
        PipeClosed when the peer takes no more, another SessionEnded when the session is over.
        """
        rest = memoryview(data).cast("B")
        while rest:
            if self.engine.failure is not None:
                raise self.engine.failure
            if self.writer.stopped is not None:
                self.engine.cut()
                raise PipeClosed("the far side stopped reading")
            if self._finished or self.writer.mark is not None:
                raise ValueError("write to a finished stream")
            out = self._begin_to_write()
            count = fill(out.space(len(rest)), rest)
            rest = rest[count:]
            out.half.wrote(count)
            self.engine.drive()
            if not count:
                await self.engine.changed()

    def _begin_to_write(self) -> Outward:
        if self._out is None:
            self._out = outward(self.engine)
        return self._out

    def finish(self, *, more: bool = False) -> None:
        """End the stream that is written here; what the peer sends goes on (half-close).

        ``more``: the peer takes no more, and there was more. If the peer writes to a file, the end
        may have to wait until it is known what lies there. Before there was a link this decides,
        as ``write`` does, that the streams are bytes: no such peer is accepted then.
        """
        self._finished = True
        self._begin_to_write().finish(more=more)

    def stop(self) -> None:
        """Take no more of what the peer sends, and tell it so; what is written here goes on."""
        self.engine.stop()

    def abort(self, reason: Reason, message: str) -> None:
        """End both directions, and tell the peer why in one line. Does not wait."""
        self.engine.abort(reason, message)

    async def close(self) -> None:
        """Finish, take no more, and wait until the peer has confirmed everything.

        Raises SessionEnded if not everything that was written reached the far consumer.
        """
        self.finish()
        self.stop()
        await self.wait_closed()
        if self.engine.failure is not None:
            raise self.engine.failure

    async def wait_closed(self) -> None:
        """Wait until the session is over and its link is closed; see ``failure``."""
        await self.engine.wait_closed()

    # --- the connection ---

    @property
    def connected(self) -> bool:
        """Whether there is a link now."""
        return self.engine.connected

    async def wait_for_connection(self, timeout: float | None = None) -> None:
        """Wait until there is a link, at most ``timeout`` seconds.

        Raises TimeoutError, or SessionEnded when there will be no link any more.
        """
        waiting = asyncio.ensure_future(self._connection())
        try:
            await asyncio.wait([waiting], timeout=timeout)
            if not waiting.done():
                raise TimeoutError("there is no link yet")
            waiting.result()
        finally:
            waiting.cancel()

    async def _connection(self) -> None:
        while not self.connected:
            await self.engine.changed()

    def force_reconnect(self) -> None:
        """Drop the link, or, while there is none, try now."""
        self.engine.force_reconnect()

    # --- what is known ---

    @property
    def failure(self) -> SessionEnded | None:
        """Why the session failed; None while it has not, and after success."""
        return self.engine.failure

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, and nothing tells who they are."""
        return self.engine.exposed

    def status(self) -> Status:
        """What the pipe is doing now."""
        return self.engine.status()
