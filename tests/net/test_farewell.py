"""A connection that is seen off."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bpipe.net import farewell
from bpipe.net.farewell import see_off


def test_the_rest_reaches_the_peer_although_it_has_said_more() -> None:
    async def check() -> None:
        here, there = socket.socketpair()
        with there:
            here.setblocking(False)
            there.setblocking(False)
            there.sendall(b"unread")
            seeing = asyncio.ensure_future(see_off(here, b"the rest"))
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(there, 100) == b"the rest"
            assert await loop.sock_recv(there, 100) == b""
            assert not seeing.done()
            there.shutdown(socket.SHUT_WR)
            await seeing
            assert here.fileno() == -1

    asyncio.run(check())


def test_a_peer_that_does_not_part_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "CLOSE_TIMEOUT", 0.01)

    async def check() -> None:
        here, there = socket.socketpair()
        with there:
            here.setblocking(False)
            await see_off(here, b"")
            assert here.fileno() == -1

    asyncio.run(check())


def test_who_talks_too_much_is_left_unheard() -> None:
    async def check() -> None:
        here, there = socket.socketpair()
        with there:
            here.setblocking(False)
            there.sendall(bytes(1000))
            await see_off(here, b"", 500)
            assert here.fileno() == -1

    asyncio.run(check())
