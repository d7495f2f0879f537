"""One connection to one endpoint; and to a service, all of whose endpoints are tried."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from bpipe.net.address import Address
from bpipe.net.clock import clock
from bpipe.net.resolve import Endpoint, resolve
from bpipe.net.sockets import forget

QUEUE_LOOK: Final = 0.01  # seconds between two tries at a Unix socket whose queue is full

Prepare = Callable[[socket.socket], None]


async def reach(endpoint: Endpoint, prepare: Prepare | None = None) -> socket.socket:
    """A connection to whoever is at this endpoint; OSError if that cannot be.

    ``prepare`` is called with the socket before it connects, and may raise what it likes.
    """
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if prepare is not None:
            prepare(sock)
        await asyncio.get_running_loop().sock_connect(sock, endpoint.sockaddr)
        if endpoint.family == socket.AF_UNIX:
            _require_place(sock)
        elif sock.getsockname() == sock.getpeername():
            forget(sock)  # else the kernel would keep the port for a minute, and from the listener
            raise OSError(errno.ECONNREFUSED, "connection refused")  # by itself
    except BaseException:
        sock.close()
        raise
    return sock


def _require_place(sock: socket.socket) -> None:
    """BlockingIOError if the queue is full: asyncio takes that for a connection that is made."""
    try:
        sock.getpeername()
    except OSError:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None


async def dial(address: Address, limit: float) -> socket.socket:
    """A connection to a service, anybody's, that is there now; all its endpoints are tried.

    Raises OSError, the last one if there are several, AddressError for a name that has no address,
    and TimeoutError when ``limit`` seconds are over.
    """
    until = clock() + limit
    try:
        endpoints = await asyncio.wait_for(_endpoints(address), limit)
        for left in range(len(endpoints), 1, -1):  # a silent one leaves the others their share
            share = (until - clock()) / left
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                return await asyncio.wait_for(_reach_in_turn(endpoints[-left]), share)
        return await asyncio.wait_for(_reach_in_turn(endpoints[-1]), until - clock())
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer in {limit:g} s") from None


async def _endpoints(address: Address) -> list[Endpoint]:
    if address.path is not None:
        return [Endpoint(socket.AF_UNIX, address.path)]
    return await resolve(address)


async def _reach_in_turn(endpoint: Endpoint) -> socket.socket:
    """The same as ``reach``, after those who wait before us at a Unix socket whose queue is full.

    That queue cannot be waited for: it is looked at.
    """
    while True:
        try:
            return await reach(endpoint)
        except BlockingIOError:
            await asyncio.sleep(QUEUE_LOOK)
