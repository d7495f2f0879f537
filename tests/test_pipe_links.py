"""Pipes whose links are lost and replaced."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

import bpipe
from bpipe.demo.faults import Cut, Fault
from bpipe.errors import Busy, NotConnected, SessionEnded, SessionLost
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    VERDICT_SIZE,
    Admission,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    pack_frame,
    pack_hello,
    unpack_verdict,
)
from tests.support.pipes import (
    DATA,
    QUICK,
    both,
    connect_both,
    open_both,
    open_through_proxy,
    read_all,
    run,
    send,
    taken,
    until,
)


def test_connected_and_wait_for_connection() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        assert not caller.connected
        waiting = asyncio.ensure_future(listener.connect())
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError, match="there is no link yet"):
                await listener.wait_for_connection(timeout)
        await caller.connect()
        await waiting
        await listener.wait_for_connection(0)
        assert caller.connected
        assert listener.connected
        await asyncio.gather(caller.close(), listener.close())
        assert not caller.connected
        for timeout in (1, 0):
            with pytest.raises(SessionEnded):
                await caller.wait_for_connection(timeout)

    run(check)


def test_connect_gives_up_after_its_limit() -> None:
    async def check() -> None:
        pipe = await bpipe.connect("127.0.0.1:1", limits=bpipe.Limits(connect_timeout=0.2))
        with pytest.raises(NotConnected, match="connection refused"):
            await pipe.connect()
        with pytest.raises(NotConnected):
            await pipe.write(b"x")
        assert pipe.status().state is bpipe.State.OVER

    run(check)


def test_a_listener_serves_one_session() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        second = await bpipe.connect(listener.status().peer, limits=QUICK)
        await connect_both(caller, listener)
        with pytest.raises(Busy):
            await second.connect()
        await asyncio.gather(caller.close(), listener.close())

    run(check)


@pytest.mark.parametrize("who", ["caller", "listener", "both"])
def test_force_reconnect_in_mid_transfer(who: str) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            sending = asyncio.gather(send(caller, DATA * 4), send(listener, DATA))
            got = b""
            for turn in range(1, 11):
                while len(got) < turn * 1_000_000:
                    got += await listener.read()
                await until(lambda: taken(caller) and taken(listener))
                before = caller.status().links
                if who != "listener":
                    caller.force_reconnect()
                if who != "caller":
                    listener.force_reconnect()
                await until(lambda: caller.status().links > before)  # noqa: B023
            got += await read_all(listener)
            assert await read_all(caller) == DATA
            await sending
            assert got == DATA * 4
            assert caller.status().links > 10
            await asyncio.gather(caller.close(), listener.close())

    run(check)


def test_force_reconnect_tries_now_when_there_is_no_link(tmp_path: Path) -> None:
    async def check() -> None:
        limits = QUICK._replace(connect_timeout=3600.0, retry_max=3600.0)
        address = f"unix:{tmp_path}/s"
        caller = await bpipe.connect(address, limits=limits)
        waiting = asyncio.ensure_future(caller.connect())
        await until(lambda: "no such file" in caller.status().cause)
        listener = await bpipe.listen(address, limits=QUICK)
        listening = asyncio.ensure_future(listener.connect())
        while not waiting.done():
            caller.force_reconnect()
            await asyncio.sleep(0.01)
        await listening
        await asyncio.gather(caller.close(), listener.close())

    run(check)


@pytest.mark.slow
def test_giving_up_says_what_is_confirmed() -> None:
    async def check() -> None:
        limits = QUICK._replace(give_up_after=0.3)
        caller, listener, proxy = await open_through_proxy([], limits)
        await connect_both(caller, listener)
        await caller.write(b"1234567")
        assert await listener.read(4) == b"1234"
        await until(lambda: caller.status().confirmed == 4)
        proxy.freeze()
        with pytest.raises(SessionLost, match="4 bytes are confirmed, 3 more are not"):
            await caller.close()
        with pytest.raises(SessionLost, match="gave up"):
            await read_all(listener)
        await proxy.close()

    run(check)


FIRST = 5


UP = HELLO_SIZE + HEADER_SIZE * 6 + FIRST  # and CONFIRM, ACK, DATA, FIN, ACK, BYE


DOWN = VERDICT_SIZE + HEADER_SIZE * 6 + FIRST


@pytest.mark.slow
@pytest.mark.parametrize(("upward", "size"), [(True, UP), (False, DOWN)], ids=["up", "down"])
def test_a_cut_after_each_byte_of_a_short_session(upward: bool, size: int) -> None:
    few = asyncio.Semaphore(16)  # more would be so slow that their dials are repeated

    async def session(offset: int) -> bool:
        async with few:
            return await cut_at(offset)

    async def cut_at(offset: int) -> bool:
        fault = Fault.RESET if offset % 2 else Fault.EOF
        caller, listener, proxy = await open_through_proxy([Cut(fault, upward, offset)])
        await connect_both(caller, listener)
        await asyncio.gather(send(caller, b"there"), send(listener, b"back!"))
        got = await asyncio.gather(read_all(listener), read_all(caller))
        assert list(got) == [b"there", b"back!"]
        await asyncio.gather(caller.close(), listener.close())
        await proxy.close()
        return bool(proxy.made)

    async def check() -> None:
        made = await asyncio.gather(*map(session, range(size)))
        assert sum(made) > size - 3 * HEADER_SIZE

    run(check)


def test_a_greeting_that_was_overtaken_replaces_nobody() -> None:
    async def test() -> None:
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK)
        connecting = asyncio.create_task(listener.connect())
        host, _, port = listener.status().peer.rpartition(":")

        async def greet(name: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(pack_hello(Hello(Opening.OPEN, name * 16, 1, Position(0, 0, 9))))
            assert unpack_verdict(await reader.readexactly(VERDICT_SIZE)).admission is Admission.OK
            return reader, writer

        old, new = await greet(b"1"), await greet(b"2")
        new[1].write(pack_frame(Kind.CONFIRM, 0))
        await new[0].readexactly(HEADER_SIZE)
        await connecting
        new[1].close()
        while listener.connected:
            await listener.engine.changed()
        with contextlib.suppress(ConnectionError):
            old[1].write(pack_frame(Kind.CONFIRM, 0))
            assert await old[0].read() == b""
        old[1].close()
        listener.abort(Reason.INTERRUPTED, "enough")
        await listener.wait_closed()

    run(test)


def test_nothing_is_left_behind() -> None:
    async def check() -> None:
        before = asyncio.all_tasks()
        async with both() as (caller, listener):
            await asyncio.gather(caller.close(), listener.close())
        assert asyncio.all_tasks() == before

    run(check)
