"""How payload reaches the consumer without its thread.

Where the consumer is behind a pipe, Linux moves bytes from a socket into it without a copy in
user space (splice(2)). Such bytes are received and delivered in one step, so this is possible
only while nothing else waits for the consumer: its own thread is parked, and lends the event loop
the consumer's cursor. And a little that lies in memory is written sooner than that thread is woken.

Both ask the pipe not to wait, but a pipe has a lock, and a consumer that splices from it into
something that is blocked (pv(1) to a terminal after ^S) holds that lock all the while. Nothing
tells beforehand, so an outlet that has kept the event loop waiting is not used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import termios
from collections.abc import Callable
from typing import Final

from bpipe.net.clock import clock as system_clock
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Views

LITTLE: Final = 1 << 16  # bytes that are written here and now; for more the thread is faster
HELD_UP: Final = 1.0  # seconds for a call that is not to wait, after which it is not trusted
CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)  # be asked not to wait


class Outlet:
    """The pipe behind ``descriptor``; ``idle`` says whether its own thread is parked."""

    def __init__(
        self,
        descriptor: int,
        idle: Callable[[], bool],
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self._clock = clock
        self._descriptor = descriptor
        self._idle = idle
        self._trusted = True
        self._takes_bytes = hasattr(os, "RWF_NOWAIT")

    def idle(self) -> bool:
        """Whether this is a way now."""
        return self._trusted and self._idle()

    @staticmethod
    def possible(descriptor: int) -> bool:
        """Whether this descriptor can be an outlet, on this system."""
        return hasattr(os, "splice") and stat.S_ISFIFO(os.fstat(descriptor).st_mode)

    def fileno(self) -> int:
        """For the event loop, which waits until it is writable again."""
        return self._descriptor

    def take(self, sock: socket.socket, limit: int) -> int | None:
        """Move at most ``limit`` bytes; returns how many, 0 at the end of file, None when full.

        Raises BlockingIOError when the socket has nothing, another OSError when it fails. A
        consumer that is gone counts as full: the thread that waits for it will notice.
        """
        began = self._clock()
        try:
            return os.splice(sock.fileno(), self._descriptor, limit, flags=os.SPLICE_F_NONBLOCK)
        except BrokenPipeError:
            return None
        except BlockingIOError:
            if waiting(sock.fileno()):
                return None
            raise
        finally:
            self._trusted = self._clock() - began < HELD_UP

    def deliver(self, reader: BackedReader) -> None:
        """Have the consumer take what the reader holds, if that is a little, and it is a way now.

        The thread that waits for the consumer will meet what fails here, too.
        """
        if not 0 < reader.buffered <= LITTLE or not self.idle():
            return
        if count := self.give(reader.readable(LITTLE)):
            reader.took(count)

    def give(self, data: Views) -> int:
        """Write some of this; returns how many bytes, 0 if there is no room, or it fails."""
        if not self._takes_bytes:
            return 0
        began = self._clock()
        try:
            return os.pwritev(self._descriptor, data, -1, os.RWF_NOWAIT)
        except OSError as error:
            self._takes_bytes = error.errno not in CANNOT
            return 0
        finally:
            self._trusted = self._clock() - began < HELD_UP


def waiting(descriptor: int, question: int = termios.FIONREAD) -> int:
    """The bytes that have arrived at a socket, or lie in a pipe, whichever end of it this is."""
    count = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, question, count)
    return int.from_bytes(count, sys.byteorder)
