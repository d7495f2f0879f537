"""Connections that are made here, and carried."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

import bpipe
from bpipe.ends.local import Ends
from bpipe.ends.scheduling import LoopScheduling
from bpipe.net.address import parse
from bpipe.run.forward import Forwarder
from bpipe.run.join import Join
from tests.support.pipes import QUICK, run, until

pytestmark = pytest.mark.slow


async def carry(pipe: bpipe.BackedPipe, ends: Ends) -> None:
    await Join(pipe, ends, LoopScheduling()).run()


async def echo(pipe: bpipe.BackedPipe) -> None:
    while data := await pipe.read():
        await pipe.write(data)


@contextlib.asynccontextmanager
async def forwarding(
    most: int = 9, handler: Callable[[bpipe.BackedPipe], Awaitable[None]] = echo
) -> AsyncIterator[tuple[Forwarder, bpipe.Server]]:
    """What is made here is carried to a server that answers the same."""
    async with bpipe.serve("127.0.0.1:0", handler, limits=QUICK) as server:
        dial = partial(bpipe.connect, server.address, limits=QUICK)
        async with Forwarder(parse("127.0.0.1:0"), dial, carry, most) as forwarder:
            yield forwarder, server


async def talk(forwarder: Forwarder, said: bytes) -> bytes:
    host, _, port = forwarder.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_each_connection_has_a_session_of_its_own() -> None:
    async def check() -> None:
        async with forwarding() as (forwarder, server):
            said = [bytes([number]) * 100_000 for number in range(5)]
            assert await asyncio.gather(*(talk(forwarder, each) for each in said)) == said
            await until(lambda: not server.pipes)
            assert forwarder.refused == 0

    run(check)


def test_one_that_is_too_many_waits() -> None:
    async def check() -> None:
        async with forwarding(most=1) as (forwarder, server):
            port = int(forwarder.address.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"a")
            await until(lambda: server.pipes)
            second = asyncio.create_task(talk(forwarder, b"b"))
            await asyncio.sleep(0.05)
            assert len(server.pipes) == 1
            writer.close()
            assert await second == b"b"

    run(check)


def test_leaving_it_resets_what_is_carried() -> None:
    async def check() -> None:
        async with forwarding() as (forwarder, server):
            port = int(forwarder.address.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"a")
            assert await reader.read(1) == b"a"
            await forwarder.__aexit__(None, None, None)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            await until(lambda: not server.pipes)

    run(check)


def test_it_does_not_begin_where_the_other_end_may_not_be_called() -> None:
    async def check() -> None:
        dial = partial(bpipe.connect, "192.0.2.1:1")
        with pytest.raises(bpipe.AddressError, match="secret"):
            async with Forwarder(parse("127.0.0.1:0"), dial, carry, 1):
                raise AssertionError

    run(check)


def test_who_cannot_be_carried_is_reset_and_counted() -> None:
    async def check() -> None:
        outcomes = iter([None, bpipe.AddressError("it means another address now")])

        async def dial() -> bpipe.BackedPipe:
            if (error := next(outcomes)) is not None:
                raise error
            return await bpipe.connect("127.0.0.1:1", limits=QUICK)

        async with Forwarder(parse("127.0.0.1:0"), dial, carry, 1) as forwarder:
            told: list[int] = []
            forwarder.observe(lambda: told.append(forwarder.refused))
            with socket.create_connection(
                ("127.0.0.1", int(forwarder.address.rpartition(":")[2]))
            ) as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionResetError):
                    await asyncio.get_running_loop().sock_recv(sock, 1)
            assert told == [1]

    run(check)
