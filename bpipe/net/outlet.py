"""A way for payload from a socket to the consumer that leads past this process's memory.

Where the consumer is behind a pipe, Linux moves bytes from a socket into it without a copy in
user space (splice(2)). Such bytes are received and delivered in one step, so this is possible
only while nothing else waits for the consumer: its own thread is parked, and lends the event loop
the consumer's cursor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import termios
from collections.abc import Callable


class Outlet:
    """The pipe behind ``descriptor``; ``idle`` says whether its own thread is parked."""

    def __init__(self, descriptor: int, idle: Callable[[], bool]) -> None:
        self.idle = idle
        self._descriptor = descriptor

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
            return os.splice(sock.fileno(), self._descriptor, limit, flags=os.SPLICE_F_NONBLOCK)
        except BrokenPipeError:
            return None
        except BlockingIOError:
            if _waiting(sock):
                return None
            raise


def _waiting(sock: socket.socket) -> int:
    """The bytes that have arrived at a socket."""
    count = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock, termios.FIONREAD, count)
    return int.from_bytes(count, "little")
