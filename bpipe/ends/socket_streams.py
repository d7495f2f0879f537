"""The two streams of a connected socket: the event loop moves their bytes.

What the socket gives is read straight into the memory of the stream, and sent in the same callback.
What has come for it is given to it in the same ``drive``, before anything is said of it. Each does
at most one system call and 512 KiB before others have their turn.

Bytes count as taken when the kernel has taken them. The end of the stream does when the socket's
writing half is shut down and nothing waits there any more: over TCP, when the other system has
acknowledged everything; over a Unix socket, when its owner has read everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import termios
from collections.abc import Callable
from typing import Final

from bpipe.ends.local import Sink, Source
from bpipe.engine import Engine
from bpipe.net.outlet import Outlet, waiting
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.wire import Ended, Finish

AT_ONCE: Final = 1 << 19  # bytes; half as many cost half as much processor time again
LOOKS: Final = (0.001, 0.25)  # seconds between two looks at what waits: first, longest

Broken = Callable[[OSError], None]


class Incoming(Source):
    """What the socket gives: the stream that is sent.

    ``broken`` is called when the socket fails; an end of file, also of one that was closed, is the
    end of the stream. When the peer takes no more, the rest is read and discarded: the owner may
    still wait for what comes for it, and would not read that while it cannot write.
    """

    def __init__(self, engine: Engine, sock: socket.socket, name: str, broken: Broken) -> None:
        super().__init__(engine, name)
        self.over = False  # nothing more comes from the socket
        self._sock = sock
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._told = False  # that nobody takes more, or that this is the end
        self._watching = False
        self._watch(True)

    def look(self) -> None:
        """There may be space again, or nobody may want more. Moves nothing by itself."""
        if self.over:
            return
        if not self._watching and (self.spacious or self.refused):
            self._watch(True)
        if self.refused and not self._told and not self.engine.writer.unwanted:
            self._told = True
            self._loop.call_soon(self._turn_away)

    def halt(self) -> None:
        """Read nothing more."""
        self._watch(False)
        self.over = True

    def cut(self) -> None:
        """The socket is reset from our side: this stream was not at its end."""
        if not self.over:
            self.halt()
            self.finish(ended=Finish(Ended.CUT))

    def _watch(self, watching: bool) -> None:
        if watching is not self._watching:
            self._watching = watching
            if watching:
                self._loop.add_reader(self._sock, self._readable)
            else:
                self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        try:
            count = self._discard() if self.refused else self._take()
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(error)
            return
        if count == 0:
            self.halt()
            self.finish()

    def _take(self) -> int | None:
        """Bytes for the stream; None if it has to wait for space."""
        views = self.lend(AT_ONCE)
        if not views:
            self._watch(False)
            return None
        count = self._sock.recvmsg_into(views)[0]
        if count:
            self.wrote(count)
            self.engine.drive()
        return count

    def _discard(self) -> int:
        return len(self._sock.recv(AT_ONCE))

    def _turn_away(self) -> None:
        """The peer's consumer has left: say whether there is more, and discard the rest."""
        if self.over:
            return
        more = False
        with contextlib.suppress(OSError):  # the next read meets it
            more = bool(self._sock.recv(1, socket.MSG_PEEK))
        self.finish(more=more)


class Outgoing(Sink):
    """What the socket is given: the stream that has come.

    ``broken`` is called, outside of any ``drive``, when the socket fails. ``cut`` is called, when
    everything is given to it, in place of its end: the producer has failed, and the owner must not
    take that for the end of a whole stream.
    """

    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        name: str,
        broken: Broken,
        cut: Callable[[], None],
    ) -> None:
        super().__init__(engine, name)
        self.open = True  # it may still be given something, or is not known to have it
        self._sock = sock
        self._broken = broken
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._full = False  # the event loop waits for room
        self._alone = False  # the socket gives nothing more
        self._ending = False  # everything is given to it
        self._looks: asyncio.TimerHandle | None = None
        self._pause = LOOKS[0]
        self._waited = 0  # bytes that waited when it was looked last
        if self.reader is engine.reader:
            engine.use_outlet(_SocketOutlet(sock.fileno(), self._come))

    def look(self) -> None:
        """The stream may be at its end. Moves nothing by itself."""
        reader = self.reader
        if reader.mark is not None and not reader.buffered and self.open and not self._ending:
            self._ending = True
            self._loop.call_soon(self._end)

    def watch_over(self) -> None:
        """Nobody reads the socket any more, so that nobody else would hear that it is broken."""
        self._alone = True

    def halt(self) -> None:
        """Give it nothing more."""
        self.open = False
        self._wait_for_room(False)
        if self._looks is not None:
            self._looks.cancel()

    def _come(self) -> None:
        """In ``drive``: there are bytes for it."""
        if self.open and not self._full:
            self._give()

    def _give(self) -> None:
        try:
            self.took(self._sock.sendmsg(self.lend(AT_ONCE)))
        except BlockingIOError:
            pass
        except OSError as error:
            self.halt()
            self._loop.call_soon(self._broken, error)
            return
        self._wait_for_room(self.half.buffered > 0)
        if self._alone and self._looks is None:
            self._look_after(LOOKS[0])

    def _wait_for_room(self, full: bool) -> None:
        if full is not self._full:
            self._full = full
            if full:
                self._loop.add_writer(self._sock, self._room)
            else:
                self._loop.remove_writer(self._sock)

    def _room(self) -> None:
        if self.half.buffered:
            self._give()
        else:
            self._wait_for_room(False)
        self.engine.drive()

    # --- its end ---

    def _end(self) -> None:
        if not self.open or self.lend(1) or not self.half.drained:
            return  # or the stream has ended within a record
        try:
            if not self.reader.ended.failed:
                self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.halt()
            self._broken(error)
            return
        if self._looks is not None:
            self._looks.cancel()
        self._pause = LOOKS[0]
        self._look_again()

    def _look_after(self, pause: float) -> None:
        self._pause = pause
        self._looks = self._loop.call_later(pause, self._look_again)

    def _look_again(self) -> None:
        """See what waits in the kernel, and then whether the socket is broken: in this order."""
        self._looks = None
        left = waiting(self._sock.fileno(), termios.TIOCOUTQ)
        if number := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.halt()
            self._broken(OSError(number, ""))
        elif left:
            first, longest = LOOKS
            self._look_after(first if left < self._waited else min(2 * self._pause, longest))
            self._waited = left
        elif self._ending:
            self._finish()

    def _finish(self) -> None:
        self.halt()
        if self.reader.ended.failed:
            self._cut()
        self.deliver()


class _SocketOutlet(Outlet):
    """A way that is told of what has come; nothing is spliced into it."""

    def __init__(self, descriptor: int, come: Callable[[], None]) -> None:
        super().__init__(descriptor, lambda: False)
        self._come = come

    def deliver(self, reader: BackedReader) -> None:
        """There are bytes."""
        self._come()
