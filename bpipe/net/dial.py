"""A connection to a service, all of whose endpoints are tried."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from bpipe.net.address import Address
from bpipe.net.clock import clock
from bpipe.net.connectors import reach
from bpipe.net.resolve import Endpoint, resolve

QUEUE_LOOK: Final = 0.01  # seconds between two tries at a Unix socket whose queue is full


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
