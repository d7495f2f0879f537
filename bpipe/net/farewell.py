"""Seeing a connection off: what was written reaches the peer, and then it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import Final

CLOSE_TIMEOUT: Final = 1.0  # seconds for the peer to take what was written, and to close


async def see_off(sock: socket.socket, rest: bytes, limit: float = math.inf) -> None:
    """Send the rest and the end, discard what comes, at most about ``limit`` bytes, and close.

    A close with unread input would make the kernel send a reset, and destroy what is on its way.
    Takes at most a second. Failures mean nothing any more.
    """
    with contextlib.suppress(OSError, asyncio.TimeoutError), sock:
        await asyncio.wait_for(_part(sock, rest, limit), CLOSE_TIMEOUT)


async def _part(sock: socket.socket, rest: bytes, limit: float) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, rest)
    sock.shutdown(socket.SHUT_WR)
    while limit > 0 and (data := await loop.sock_recv(sock, 1 << 14)):
        limit -= len(data)
        await asyncio.sleep(0)  # while there is something, sock_recv does not wait
