"""What sockets are told, and say: options of a link's, and of an end's; that there are no more."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Final

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # more, later
UNSENT: Final = 128 << 10  # bytes in the kernel that wait behind what the path takes
LOCAL_BUFFER: Final = 4 << 20  # bytes in the kernel on their way through a Unix socket
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: nothing stays in the kernel after a close


def prepare(sock: socket.socket, heartbeat: float) -> None:
    """Set what a link's socket needs; ``heartbeat`` is in seconds."""
    prepare_end(sock)
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):  # TCP's is left to the kernel, which adapts it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOCAL_BUFFER)
        return
    patience = min(max(1, int(3000 * heartbeat)), (1 << 31) - 1)
    for option, value in (("TCP_USER_TIMEOUT", patience), ("TCP_NOTSENT_LOWAT", UNSENT)):
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def prepare_end(sock: socket.socket) -> None:
    """Set what a socket needs that is an end of a pipe: not to block, and to send a little at once.

    Its buffers are left to the kernel.
    """
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def forget(sock: socket.socket) -> None:
    """Have the kernel forget this connection as soon as it is closed."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def leaves(sock: socket.socket) -> bool:
    """Whether a connection that was made may leave this machine; a command may go anywhere."""
    try:
        peer = sock.getpeername()
    except OSError:
        return False
    if not isinstance(peer, tuple):
        return not peer
    host: str = peer[0]
    return host != "::1" and not host.startswith(("127.", "::ffff:127."))
