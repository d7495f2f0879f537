"""What a dialer does beside a link over which nothing comes any more."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bpipe.protocol.liveness import OWED
from bpipe.protocol.wire import (
    Kind,
    pack_frame,
)
from tests.support.callee import CALM, VERDICT, called
from tests.support.loopback import write

pytestmark = pytest.mark.slow  # it is a second before a link is in doubt


def test_a_link_that_falls_silent_is_held_and_replaced_by_the_first_that_is_answered() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            began = loop.time()
            second = await callee.accept()
            assert loop.time() - began > OWED - 0.1
            write(callee.session, b"x")
            old.flush()
            with pytest.raises(BlockingIOError):
                peer.recv(1000)  # what would contradict the greeting
            assert callee.session.attached
            await loop.sock_sendall(second, VERDICT)
            cause = await old.lost
            assert str(cause).startswith("nothing was heard for 1.")
            assert str(cause).endswith(" s, and a new connection is answered")
            assert cause.code == "silent"
            assert await loop.sock_recv(second, 1000) == pack_frame(Kind.CONFIRM, 0)

    asyncio.run(check())


def test_a_link_that_is_heard_again_is_kept_and_goes_on() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            second = await callee.accept()
            await loop.sock_sendall(peer, pack_frame(Kind.PING, 7))
            assert await loop.sock_recv(peer, 1000) == pack_frame(Kind.PONG, 7)
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(second, VERDICT)  # too late
                assert await loop.sock_recv(second, 1000) == b""
            assert callee.session.attached
            assert old.cause is None

    asyncio.run(check())


def test_one_whose_link_is_the_only_one_looks_for_no_other() -> None:
    async def check() -> None:
        async with called(CALM._replace(give_up_after=0)) as callee:
            old, _ = await callee.link()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(callee.accept(), OWED + 0.5)
            assert old.cause is None

    asyncio.run(check())


def test_while_the_old_link_is_trusted_no_other_is_looked_for() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with called() as callee:
            old, peer = await callee.link()
            waiting = asyncio.ensure_future(callee.accept())
            for number in range(3):
                await asyncio.sleep(OWED / 2)
                await loop.sock_sendall(peer, pack_frame(Kind.PING, number))
                assert await loop.sock_recv(peer, 1000) == pack_frame(Kind.PONG, number)
            assert not waiting.done()
            assert old.cause is None
            waiting.cancel()
            await asyncio.wait([waiting])

    asyncio.run(check())
