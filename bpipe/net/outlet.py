"""Ways for payload to the consumer that do not need the consumer's own thread.

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
from collections.abc import Callable, Iterator
from typing import Final

from bpipe.net.clock import clock
from bpipe.protocol.ring import Views

HELD_UP: Final = 1.0  # seconds for a call that is not to wait, after which it is not trusted
CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)  # be asked not to wait


class Outlet:
    """The pipe behind ``descriptor``; ``idle`` says whether its own thread is parked."""

    def __init__(self, descriptor: int, idle: Callable[[], bool]) -> None:
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
        try:
            with self._watched():
                return os.splice(sock.fileno(), self._descriptor, limit, flags=os.SPLICE_F_NONBLOCK)
        except BrokenPipeError:
            return None
        except BlockingIOError:
            if waiting(sock.fileno()):
                return None
            raise

    def give(self, data: Views) -> int:
        """Write some of this; returns how many bytes, 0 if there is no room, or it fails.

        The thread that waits for the consumer will meet that, too.
        """
        if not self._takes_bytes:
            return 0
        try:
            with self._watched():
                return os.pwritev(self._descriptor, data, -1, os.RWF_NOWAIT)
        except OSError as error:
            self._takes_bytes = error.errno not in CANNOT
            return 0

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """What is done here is not to wait."""
        began = clock()
        try:
            yield
        finally:
            self._trusted = clock() - began < HELD_UP


def waiting(descriptor: int, question: int = termios.FIONREAD) -> int:
    """The bytes that have arrived at a socket, or lie in a pipe, whichever end of it this is."""
    count = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, question, count)
    return int.from_bytes(count, sys.byteorder)
