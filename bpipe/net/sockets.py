"""What a link's socket is told: the options that it needs."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

UNSENT: Final = 128 << 10  # bytes in the kernel that wait behind what the path takes
LOCAL_BUFFER: Final = 4 << 20  # bytes in the kernel on their way through a Unix socket
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: nothing stays in the kernel after a close


def prepare(sock: socket.socket, heartbeat: float) -> None:
    """Set what a link's socket needs; ``heartbeat`` is in seconds."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):  # TCP's is left to the kernel, which adapts it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOCAL_BUFFER)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    patience = min(max(1, int(3000 * heartbeat)), (1 << 31) - 1)
    for option, value in (("TCP_USER_TIMEOUT", patience), ("TCP_NOTSENT_LOWAT", UNSENT)):
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def forget(sock: socket.socket) -> None:
    """Have the kernel forget this connection as soon as it is closed."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
