"""The asyncio interface, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import bpipe
import bpipe.engine
import bpipe.net.dialer
import bpipe.net.link
from bpipe.demo.faults import Cut, Fault, FaultProxy
from bpipe.errors import (
    AddressError,
    Busy,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    SessionEnded,
    SessionLost,
)
from bpipe.net.clock import clock
from bpipe.net.link import Link
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    VERDICT_SIZE,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    Status,
    pack_frame,
    pack_hello,
    unpack_verdict,
)

QUICK = bpipe.Limits(heartbeat=0.1, connect_timeout=5.0, give_up_after=5.0, linger=0.5)
SECRET = bpipe.Secret(bytes(32))
DATA = random.Random(8).randbytes(3_000_000)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


async def open_both(
    limits: bpipe.Limits = QUICK, **options: Any
) -> tuple[bpipe.BackedPipe, bpipe.BackedPipe]:
    """A caller and a listener that know of each other and are not yet connected."""
    listener = await bpipe.listen("127.0.0.1:0", limits=limits, **options)
    caller = await bpipe.connect(listener.status().peer, limits=limits, **options)
    return caller, listener


async def open_through_proxy(
    cuts: Iterable[Cut], limits: bpipe.Limits = QUICK
) -> tuple[bpipe.BackedPipe, bpipe.BackedPipe, FaultProxy]:
    """A caller, a listener, and the proxy between them."""
    listener = await bpipe.listen("127.0.0.1:0", limits=limits, buffer_size=1000)
    host, _, port = listener.status().peer.rpartition(":")
    proxy = FaultProxy((host, int(port)), cuts)
    address = "{}:{}".format(*proxy.start())
    caller = await bpipe.connect(address, limits=limits, retry_max=0.02, buffer_size=1000)
    return caller, listener, proxy


async def connect_both(*pipes: bpipe.BackedPipe) -> None:
    await asyncio.gather(*(pipe.connect() for pipe in pipes))


@contextlib.asynccontextmanager
async def both(
    limits: bpipe.Limits = QUICK, **options: Any
) -> AsyncIterator[tuple[bpipe.BackedPipe, bpipe.BackedPipe]]:
    """A caller and a listener that are connected; aborted in the end if they are not over."""
    pipes = await open_both(limits, **options)
    try:
        await connect_both(*pipes)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
        for pipe in pipes:
            await pipe.wait_closed()


async def send(pipe: bpipe.BackedPipe, data: bytes) -> None:
    await pipe.write(data)
    pipe.finish()


async def read_all(pipe: bpipe.BackedPipe) -> bytes:
    found = []
    while data := await pipe.read():
        found.append(data)
    return b"".join(found)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def taken(pipe: bpipe.BackedPipe) -> bool:
    """Whether the link that is attached is the pipe's: until then there is none to drop."""
    return pipe.engine.link is not None and pipe.engine.link.cause is None


# --- the stream ---


def test_what_is_written_is_read_and_both_ends_succeed() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            sending = asyncio.gather(send(caller, DATA), send(listener, DATA[::-1]))
            got = await asyncio.gather(read_all(listener), read_all(caller))
            await sending
            assert got[0] == DATA
            assert got[1] == DATA[::-1]
            await asyncio.gather(caller.close(), listener.close())
            assert caller.failure is None
            assert listener.failure is None

    run(check)


def test_the_context_manager_connects_and_closes(tmp_path: Path) -> None:
    async def check() -> None:
        async def listen() -> bytes:
            async with await bpipe.listen(f"unix:{tmp_path}/s") as pipe:
                return await read_all(pipe)

        answer = asyncio.ensure_future(listen())
        async with await bpipe.connect(f"unix:{tmp_path}/s", limits=QUICK) as pipe:
            assert pipe.connected
            await pipe.write(b"hello")
        assert await answer == b"hello"
        assert not (tmp_path / "s").exists()

    run(check)


def test_read_takes_at_most_what_was_asked_for_and_b_at_the_end() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await send(caller, b"12345")
            await until(lambda: listener.status().received == 5)
            assert await listener.read(2) == b"12"
            assert await listener.read(100) == b"345"
            assert await listener.read() == b""
            assert await listener.read() == b""

    run(check)


def test_read_waits_for_the_first_byte() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            reading = asyncio.ensure_future(listener.read())
            done, _ = await asyncio.wait([reading], timeout=0.1)
            assert not done
            await caller.write(b"x")
            assert await reading == b"x"

    run(check)


def test_write_takes_anything_that_holds_bytes() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await caller.write(bytearray(b"a"))
            await caller.write(memoryview(b"xbx")[1:2])
            await caller.write(memoryview(b"cd").cast("H"))
            await caller.write(b"")
            caller.finish()
            assert await read_all(listener) == b"abcd"

    run(check)


def test_write_waits_while_the_buffer_is_full() -> None:
    async def check() -> None:
        async with both(buffer_size=100_000) as (caller, listener):
            writing = asyncio.ensure_future(send(caller, DATA))
            done, _ = await asyncio.wait([writing], timeout=0.2)
            assert not done
            assert caller.status().unconfirmed == caller.status().buffer_size == 100_000
            assert await read_all(listener) == DATA
            await writing

    run(check)


def test_finish_leaves_the_other_direction_open() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            caller.finish()
            caller.finish()
            assert await listener.read() == b""
            await send(listener, b"still here")
            assert await read_all(caller) == b"still here"

    run(check)


@pytest.mark.parametrize("data", [b"x", DATA])
def test_write_after_finish_is_a_mistake(data: bytes) -> None:
    async def check() -> None:
        async with both() as (caller, _):
            caller.finish()
            with pytest.raises(ValueError, match="finished stream"):
                await caller.write(data)

    run(check)


def test_what_is_written_before_there_is_a_link_is_sent() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        await send(caller, b"early")
        await connect_both(caller, listener)
        assert await read_all(listener) == b"early"
        await asyncio.gather(caller.close(), listener.close())

    run(check)


# --- the end ---


def test_close_waits_until_the_far_consumer_has_taken_everything() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await caller.write(b"12345")
            closing = asyncio.ensure_future(caller.close())
            assert await listener.read(4) == b"1234"
            done, _ = await asyncio.wait([closing], timeout=0.1)
            assert not done
            assert await read_all(listener) == b"5"
            await asyncio.gather(closing, listener.close())

    run(check)


def test_close_says_so_when_the_peer_has_not_read_everything() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await caller.write(b"12345")
            assert await listener.read(2) == b"12"
            results = await asyncio.gather(caller.close(), listener.close(), return_exceptions=True)
            assert isinstance(results[0], PipeClosed)
            assert results[1] is None

    run(check)


def test_a_peer_that_stops_ends_what_is_written_here_and_not_what_it_sends() -> None:
    async def check() -> None:
        async with both(buffer_size=1000) as (caller, listener):
            writing = asyncio.ensure_future(caller.write(DATA))
            listener.stop()
            await send(listener, b"still sent")
            assert await read_all(caller) == b"still sent"
            with pytest.raises(PipeClosed, match="stopped reading"):
                await writing
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert isinstance(caller.failure, PipeClosed)
            assert listener.failure is None

    run(check)


def test_an_exception_in_the_context_manager_aborts_at_the_peer() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        waiting = asyncio.ensure_future(listener.connect())

        async def fail() -> None:
            async with caller:
                await waiting
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert isinstance(caller.failure, LocalAbort)
        with pytest.raises(PeerAborted, match="ZeroDivisionError"):
            await listener.read()
        with pytest.raises(PeerAborted):
            await listener.write(b"x")
        with pytest.raises(PeerAborted):
            await listener.close()

    run(check)


def test_a_cancelled_program_aborts_too() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        waiting = asyncio.ensure_future(listener.connect())

        async def use() -> None:
            async with caller:
                await caller.read()

        using = asyncio.ensure_future(use())
        await waiting
        await until(lambda: caller.connected)
        using.cancel()
        await asyncio.wait([using])
        assert using.cancelled()
        with pytest.raises(PeerAborted, match="CancelledError"):
            await listener.read()

    run(check)


@pytest.mark.parametrize(
    ("reason", "here", "there"),
    [
        (bpipe.Reason.BROKEN_PIPE, PipeClosed, PipeClosed),
        (bpipe.Reason.LOCAL_ERROR, LocalAbort, PeerAborted),
        (bpipe.Reason.INTERRUPTED, LocalAbort, PeerAborted),
    ],
)
def test_an_abort_and_its_reason(
    reason: bpipe.Reason, here: type[SessionEnded], there: type[SessionEnded]
) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await listener.write(b"lost")
            caller.abort(reason, "why\x1b[31m not" + "ü" * 600)
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert type(caller.failure) is here
            assert type(listener.failure) is there
            said = str(listener.failure)
            assert said.startswith(r'the other end: "why\x1b[31m notüü')  # fit for a terminal
            assert len(said) < 512

    run(check)


def test_an_abort_before_there_is_a_link_ends_at_once() -> None:
    async def check() -> None:
        listener = await bpipe.listen("127.0.0.1:0")
        waiting = asyncio.ensure_future(listener.connect())
        await asyncio.sleep(0)
        listener.abort(bpipe.Reason.INTERRUPTED, "no")
        with pytest.raises(LocalAbort):
            await waiting
        await listener.wait_closed()

    run(check)


# --- links ---


def test_connected_and_wait_for_connection() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        assert not caller.connected
        waiting = asyncio.ensure_future(listener.connect())
        with pytest.raises(TimeoutError):
            await listener.wait_for_connection(0.05)
        await caller.connect()
        await waiting
        await listener.wait_for_connection(0)
        assert caller.connected
        assert listener.connected
        await asyncio.gather(caller.close(), listener.close())
        assert not caller.connected
        with pytest.raises(SessionEnded):
            await caller.wait_for_connection(1)

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


def test_a_link_that_replaces_a_silent_one_is_seen_after_the_loss_of_that_one() -> None:
    async def check() -> None:
        calm = QUICK._replace(heartbeat=5.0)  # only the caller's return tells the listener
        cut = Cut(Fault.SILENCE, upward=True, offset=500)
        caller, listener, proxy = await open_through_proxy([cut], calm)
        await connect_both(caller, listener)
        await until(lambda: taken(listener))
        seen: list[tuple[str, str, int]] = []

        def look() -> None:
            status = listener.status()
            now = (status.state, status.peer, status.links)
            if not seen or seen[-1] != now:
                seen.append(now)

        look()
        listener.engine.observe(look)
        await caller.write(bytes(600))
        await until(lambda: proxy.made)
        caller.force_reconnect()
        await until(lambda: listener.status().links == 2 and taken(listener))
        peers = [peer for state, peer, _ in seen if state == bpipe.State.CONNECTED]
        assert len(set(peers)) == 2
        lost = [state for state, *_ in seen].index(bpipe.State.RECONNECTING)
        assert all(links == 1 for *_, links in seen[:lost])
        caller.finish()
        assert await read_all(listener) == bytes(600)
        await asyncio.gather(caller.close(), listener.close())
        await proxy.close()

    run(check)


def test_force_reconnect_tries_now_when_there_is_no_link(tmp_path: Path) -> None:
    async def check() -> None:
        limits = QUICK._replace(connect_timeout=3600.0)
        address = f"unix:{tmp_path}/s"
        caller = await bpipe.connect(address, limits=limits, retry_max=3600.0)
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


def test_no_connection_is_looked_for_again_before_one_was_lost() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        seen: list[bpipe.State] = []
        for end in (caller, listener):
            end.engine.observe(lambda end=end: seen.append(end.status().state))  # type: ignore[misc]
        await connect_both(caller, listener)
        await asyncio.gather(caller.close(), listener.close())
        assert bpipe.State.CONNECTED in seen
        assert bpipe.State.RECONNECTING not in seen

    run(check)


def test_status() -> None:
    async def check() -> None:
        caller, listener = await open_both(buffer_size=1000)
        assert caller.status().state is bpipe.State.CONNECTING
        address = caller.status().peer
        await connect_both(caller, listener)
        await caller.write(b"12345")
        await until(lambda: listener.status().received == 5)
        assert await listener.read(3) == b"123"
        await until(lambda: caller.status().confirmed == 3)
        here, there = caller.status(), listener.status()
        assert here.state is there.state is bpipe.State.CONNECTED
        assert here.peer == address != there.peer
        assert (here.buffer_size, here.written, here.unconfirmed) == (1000, 5, 2)
        assert (there.received, there.delivered) == (5, 3)
        assert (here.links, here.replayed, here.outage) == (1, 0, None)
        caller.force_reconnect()
        assert caller.status().state is bpipe.State.RECONNECTING
        assert caller.status().cause == "told to reconnect"
        assert caller.status().outage is not None
        await until(lambda: caller.status().links == 2)
        assert await listener.read() == b"45"
        await asyncio.gather(caller.close(), listener.close())
        last = caller.status()
        assert last.state is bpipe.State.OVER
        assert (last.written, last.confirmed, last.unconfirmed) == (5, 5, 0)
        assert listener.status().received == listener.status().delivered == 5

    run(check)


@pytest.mark.parametrize("text", ["", "host:port", "::1", "192.0.2.1:1"])
def test_an_address_that_cannot_be_used(text: str) -> None:
    async def check() -> None:
        with pytest.raises(AddressError):
            await bpipe.connect(text)
        with pytest.raises(AddressError):
            await bpipe.listen(text)

    run(check)


def test_an_error_in_the_reconnect_function_is_no_hang() -> None:
    class Broken:
        name = "nowhere"
        exposed = False
        refused = 0
        attempts = 0
        next_at = None

        def __init__(self) -> None:
            self.on_change: Callable[[], None] = lambda: None

        async def __call__(self, session: Session) -> Link:
            raise ZeroDivisionError("a bug")

        def hurry(self) -> None: ...

        async def close(self) -> None: ...

    async def check() -> None:
        pipe = bpipe.BackedPipe(Broken())
        with pytest.raises(SessionEnded, match="a bug"):
            await pipe.connect()
        with pytest.raises(SessionEnded):
            await pipe.read()
        with pytest.raises(SessionEnded):
            await pipe.write(b"x")

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


def test_nothing_is_left_behind() -> None:
    async def check() -> None:
        before = asyncio.all_tasks()
        async with both() as (caller, listener):
            await asyncio.gather(caller.close(), listener.close())
        assert asyncio.all_tasks() == before

    run(check)


# --- every byte of a short session may be the last of a link ---

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


def test_a_pause_between_a_link_and_its_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = 0.0

    def pause_once(_: str, text: str) -> None:
        nonlocal asleep
        asleep = 60.0 if text.startswith("attached") else asleep

    for module in (bpipe.engine, bpipe.net.dialer, bpipe.net.link):
        monkeypatch.setattr(module, "clock", lambda: clock() + asleep)

    async def test() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        caller, listener = await open_both()
        listener._session.trace = pause_once
        await connect_both(caller, listener)
        await caller.write(b"hello")
        assert await listener.read() == b"hello"
        await asyncio.gather(caller.close(), listener.close())
        assert not errors

    run(test)


def test_a_greeting_that_was_overtaken_replaces_nobody() -> None:
    async def test() -> None:
        listener = await bpipe.listen("127.0.0.1:0", limits=QUICK)
        connecting = asyncio.create_task(listener.connect())
        host, _, port = listener.status().peer.rpartition(":")

        async def greet(name: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(pack_hello(Hello(Opening.OPEN, name * 16, 1, Position(0, 0, 9))))
            assert unpack_verdict(await reader.readexactly(VERDICT_SIZE)).status is Status.OK
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
