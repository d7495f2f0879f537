"""What the system tells of the consumer behind a descriptor: what it has read, and how it left."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import termios
from typing import Final

from bpipe.net.outlet import waiting

UNREAD_FOR: Final = 2.0  # seconds in a pipe whose reader lives: then bytes count as taken
LOOKS: Final = (0.001, 0.02)  # seconds between two looks at what it has not read: first, longest
GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.ENOTCONN)  # what it looks like
BROKEN: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL  # events that say the same


def broken(descriptor: int) -> OSError:
    """Why this descriptor's consumer is gone."""
    number = 0
    if _is_socket(descriptor):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    number = number or errno.EPIPE
    return OSError(number, os.strerror(number))


def has_left_bytes(descriptor: int, error: OSError) -> bool:
    """Whether a consumer that has gone, with this error, has left bytes there, as far as is known.

    Of a Unix socket the system tells. A TCP connection breaks only under bytes that nobody takes.
    """
    if not _is_socket(descriptor):
        return unread(descriptor) > 0
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.family != socket.AF_UNIX or error.errno == errno.ECONNRESET


def unread(descriptor: int) -> int:
    """The bytes that the consumer behind this descriptor has not read; 0 where nobody knows.

    Of a TCP connection only those count that the other system has not taken.
    """
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return waiting(descriptor)
    return waiting(descriptor, termios.TIOCOUTQ) if _is_socket(descriptor) else 0


def close_writing(descriptor: int) -> None:
    """Close it; OSError if the last bytes could not be kept.

    Where the producer is behind the same socket, as under inetd, a close would not end the stream.
    """
    if _is_socket(descriptor):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.shutdown(socket.SHUT_WR)
    os.close(descriptor)


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
