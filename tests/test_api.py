"""Which addresses connect and listen take, and who gets in."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import bpipe
from bpipe.errors import (
    AddressError,
    NotConnected,
)
from bpipe.net.congestion import allowed
from bpipe.net.dialer import Dialer
from bpipe.net.dialers import Dialers
from bpipe.protocol.rate import Bucket
from tests.support.pipes import (
    DATA,
    QUICK,
    SECRET,
    both,
    connect_both,
    read_all,
    run,
    send,
    until,
)

# --- the stream ---


@pytest.mark.parametrize("text", ["", "host:port", "::1", "192.0.2.1:1"])
def test_an_address_that_cannot_be_used(text: str) -> None:
    async def check() -> None:
        with pytest.raises(AddressError):
            await bpipe.connect(text)
        with pytest.raises(AddressError):
            await bpipe.listen(text)

    run(check)


@pytest.mark.parametrize(
    ("address", "options", "name", "exposed"),
    [
        (":0", {}, ("localhost:", "127.0.0.1:"), False),
        (":0", {"secret": SECRET}, "*:", False),
        (":0", {"insecure": True}, ("localhost:", "127.0.0.1:"), False),
        ("*:0", {"insecure": True}, "*:", True),
        ("127.0.0.1:0", {"secret": SECRET}, "127.0.0.1:", False),
    ],
)
def test_where_it_listens_and_who_gets_in(
    address: str, options: dict[str, Any], name: str | tuple[str, ...], exposed: bool
) -> None:
    async def check() -> None:
        pipe = await bpipe.listen(address, **options)
        assert pipe.status().peer.startswith(name)
        assert pipe.exposed is exposed
        await pipe.wait_closed()

    run(check)


def test_with_a_secret_what_is_written_is_read() -> None:
    async def check() -> None:
        async with both(secret=SECRET) as (caller, listener):
            sending = asyncio.gather(send(caller, DATA), send(listener, DATA[::-1]))
            assert await read_all(listener) == DATA
            assert await read_all(caller) == DATA[::-1]
            await sending
            await asyncio.gather(caller.close(), listener.close())

    run(check)


def test_a_rate_is_told_to_the_peer_and_a_bucket_is_shared() -> None:
    async def check() -> None:
        bucket = Bucket(2048)
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, rate=bucket)
        caller = await bpipe.connect(listener.status().peer, limits=QUICK, rate=4096)
        assert listener.engine.session.rate.own is bucket
        await connect_both(caller, listener)
        await caller.write(b"x")
        assert await listener.read() == b"x"
        assert [pipe.engine.session.rate.limit for pipe in (caller, listener)] == [2048, 2048]
        await asyncio.gather(caller.close(), listener.close())
        async with bpipe.serve("127.0.0.1:0", say_x, limits=QUICK, rate=bucket) as server:
            async with await bpipe.connect(server.address, limits=QUICK) as other:
                assert await other.read() == b"x"
                assert other.engine.session.rate.limit == 2048
        with pytest.raises(ValueError, match="too few"):
            await bpipe.connect("127.0.0.1:1", rate=5)

    run(check)


async def say_x(pipe: bpipe.BackedPipe) -> None:
    await pipe.write(b"x")


def test_another_secret_is_refused_and_the_listener_waits_on() -> None:
    async def check() -> None:
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, secret=SECRET)
        waiting = asyncio.ensure_future(listener.connect())
        address = listener.status().peer
        brief = bpipe.Limits(connect_timeout=0.2)
        for other in (bpipe.Secret(bytes(range(32))), None):
            caller = await bpipe.connect(address, limits=brief, secret=other)
            with pytest.raises(NotConnected, match="secret"):
                await caller.connect()
            await caller.wait_closed()
        assert listener.status().refused >= 2
        assert not waiting.done()
        caller = await bpipe.connect(address, limits=QUICK, secret=SECRET)
        await connect_both(caller, listener)
        await waiting
        await asyncio.gather(caller.close(), listener.close())

    run(check)


# --- several links ---


@pytest.mark.parametrize(
    ("wanted", "allowed", "there"),
    [(3, 8, 3), (3, 2, 2), (3, 1, 1), (1, 8, 1), (bpipe.Links(bind=["lo", "127.0.0.9"]), 8, 2)],
)
def test_there_are_as_many_links_as_both_ends_want(
    wanted: int | bpipe.Links, allowed: int, there: int
) -> None:
    async def check() -> None:
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, links=allowed)
        caller = await bpipe.connect(listener.status().peer, limits=QUICK, links=wanted)
        await asyncio.gather(listener.connect(), caller.connect())
        ends = listener.engine, caller.engine
        await until(lambda: [len(each.links) for each in ends] == [there, there])
        reading = asyncio.ensure_future(read_all(listener))
        await send(caller, DATA)
        assert await reading == DATA
        await asyncio.gather(listener.close(), caller.close())

    run(check)


@pytest.mark.parametrize("links", [0, 9, bpipe.Links(congestion="none")])
def test_links_that_cannot_be(links: int | bpipe.Links) -> None:
    async def check() -> None:
        with pytest.raises(ValueError, match=r"1 to 8 links|is not known here"):
            await bpipe.connect("localhost:1", links=links)
        with pytest.raises(ValueError, match=r"1 to 8 links|is not known here"):
            await bpipe.listen("localhost:0", links=links)

    run(check)


def test_a_server_allows_eight() -> None:
    async def answer(pipe: bpipe.BackedPipe) -> None:
        await send(pipe, await read_all(pipe))

    async def check() -> None:
        async with bpipe.serve("127.0.0.1:0", answer, limits=QUICK) as server:
            async with await bpipe.connect(server.address, limits=QUICK, links=8) as caller:
                await until(lambda: len(caller.engine.links) == 8)
                await send(caller, DATA)
                assert await read_all(caller) == DATA

    run(check)


def test_congestion_is_dealt_with_at_either_end_as_that_wants() -> None:
    def congestion(pipe: bpipe.BackedPipe) -> list[str]:
        found = [
            each.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            for each in pipe.engine.links.values()
        ]
        return [each.rstrip(b"\0").decode() for each in found]

    async def check() -> None:
        here, there = bpipe.Links(2, congestion="reno"), bpipe.Links(congestion=allowed()[0])
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, links=here)
        caller = await bpipe.connect(listener.status().peer, limits=QUICK, links=there)
        await asyncio.gather(listener.connect(), caller.connect())
        assert (congestion(listener), congestion(caller)) == (["reno"], [allowed()[0]])
        await asyncio.gather(listener.close(), caller.close())

    run(check)


@pytest.mark.parametrize(("count", "kind"), [(1, Dialer), (2, Dialers)])
def test_one_link_is_dialled_as_ever(count: int, kind: type[object]) -> None:
    async def check() -> None:
        pipe = await bpipe.connect("localhost:1", links=count)
        assert type(pipe.engine.source) is kind
        await pipe.wait_closed()

    run(check)
