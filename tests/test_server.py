"""Many callers at one address."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

import bpipe
from bpipe.demo.faults import Cut, Fault, FaultProxy
from bpipe.protocol.wire import HEADER_SIZE, VERDICT_SIZE, Answer, Kind, Opening, pack_frame
from tests.support.listening import end_of, hello
from tests.support.pipes import QUICK, read_all, run, send, taken, until

EAGER = QUICK._replace(retry_max=0.02)
IMPATIENT = EAGER._replace(connect_timeout=0.3)


def port(server: bpipe.Server) -> int:
    return int(server.address.rpartition(":")[2])


async def call(address: str, data: bytes, **options: Any) -> bytes:
    """Send this, and read what is answered."""
    options.setdefault("limits", EAGER)
    async with await bpipe.connect(address, **options) as pipe:
        await send(pipe, data)
        return await read_all(pipe)


async def digest(pipe: bpipe.BackedPipe) -> None:
    """Answer with a digest of what has come."""
    await send(pipe, hashlib.sha256(await read_all(pipe)).digest())


async def wait_for_end(pipe: bpipe.BackedPipe) -> None:
    await read_all(pipe)


def serve(handler: Any, **options: Any) -> bpipe.Server:
    options.setdefault("limits", QUICK)
    return bpipe.serve("127.0.0.1:0", handler, **options)


@pytest.mark.parametrize("secret", [None, bpipe.Secret(bytes(32))], ids=["plain", "sealed"])
def test_each_caller_has_a_session_of_its_own_through_cuts(secret: bpipe.Secret | None) -> None:
    async def check() -> None:
        async with serve(digest, secret=secret) as server:
            places = [Cut(Fault.RESET, n % 2 > 0, 200 * (n % 7)) for n in range(40)]
            proxy = FaultProxy(("127.0.0.1", port(server)), places)
            address = "{}:{}".format(*proxy.start())
            calls = [call(address, bytes([n]) * n * 1000, secret=secret) for n in range(20)]
            for number, answer in enumerate(await asyncio.gather(*calls)):
                expected = hashlib.sha256(bytes([number]) * number * 1000).digest()
                assert answer == expected
            await until(lambda: not server.pipes)
            await proxy.close()

    run(check)


def test_who_is_too_many_waits_for_room() -> None:
    async def check() -> None:
        async with serve(digest, max_sessions=1) as server:
            first = await bpipe.connect(server.address, limits=QUICK)
            async with first:
                await first.write(b"a")
                second = asyncio.create_task(call(server.address, b"b"))
                await until(lambda: server.pipes)
                await asyncio.sleep(0)
                assert not second.done()
                first.finish()
                assert await read_all(first) == hashlib.sha256(b"a").digest()
            assert await second == hashlib.sha256(b"b").digest()

    run(check)


def test_who_is_too_many_for_too_long_is_told_why() -> None:
    why = "takes no more callers for now, or waits 10 s for a sender that is away$"

    async def check() -> None:
        async with serve(wait_for_end, max_sessions=1) as server:
            first = await bpipe.connect(server.address, limits=QUICK)
            async with first:
                await until(lambda: server.pipes)
                with pytest.raises(
                    bpipe.NotConnected,
                    match=why,
                ):
                    await call(server.address, b"b", limits=IMPATIENT)

    run(check)


async def reconnect(pipe: bpipe.BackedPipe) -> None:
    await until(lambda: taken(pipe))
    before = pipe.status().reconnects
    pipe.force_reconnect()
    await until(lambda: pipe.status().reconnects > before)


def test_who_comes_back_is_never_refused_for_want_of_room() -> None:
    async def check() -> None:
        async with serve(digest, max_sessions=1) as server:
            async with await bpipe.connect(server.address, limits=EAGER) as pipe:
                for _ in range(5):
                    await pipe.write(b"a")
                    await reconnect(pipe)
                pipe.finish()
                assert await read_all(pipe) == hashlib.sha256(b"aaaaa").digest()

    run(check)


def test_who_was_let_in_and_not_heard_may_come_back_for_a_while() -> None:
    """Its link broke behind READY: it knows that it was let in, and does not call anew."""

    async def check() -> None:
        async with serve(digest, max_sessions=1) as server:
            await greet_and_go(server, 1)
            with pytest.raises(bpipe.NotConnected, match="takes no more callers"):
                await call(server.address, b"x", limits=IMPATIENT)
            await greet_and_go(server, 1, Opening.RESUME)
            assert server.pipes == []

    run(check)


def test_one_who_does_not_come_back_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpipe.server.UNHEARD_FOR", 0.2)

    async def check() -> None:
        async with serve(digest, max_sessions=2) as server:
            for number in range(2):
                await greet_and_go(server, number)
            assert await call(server.address, b"x") == hashlib.sha256(b"x").digest()
            await until(lambda: not server.pipes)

    run(check)


async def greet_and_go(server: bpipe.Server, number: int, opening: Opening = Opening.OPEN) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
    writer.write(hello(number, opening, epoch=opening))
    assert (await reader.readexactly(VERDICT_SIZE))[0] == Answer.ACCEPT
    writer.write(pack_frame(Kind.CONFIRM, 0))
    await reader.readexactly(HEADER_SIZE)
    writer.close()
    await writer.wait_closed()


def test_a_handler_that_fails_fails_its_own_session_alone() -> None:
    async def fail(pipe: bpipe.BackedPipe) -> None:
        if await pipe.read() == b"bad":
            raise ValueError
        await send(pipe, b"good")

    async def check() -> None:
        failed: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failed.append(context["exception"]))
        async with serve(fail) as server:
            calls = [call(server.address, data) for data in (b"fine", b"bad", b"fine")]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers[0] == answers[2] == b"good"
        assert isinstance(answers[1], bpipe.PeerAborted)
        assert [type(each) for each in failed] == [ValueError]

    run(check)


def test_a_session_that_fails_is_no_error_of_the_server() -> None:
    async def check() -> None:
        failed: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failed.append(context))
        async with serve(wait_for_end) as server:
            pipe = await bpipe.connect(server.address, limits=QUICK)
            await pipe.connect()
            await until(lambda: server.pipes)
            pipe.abort(bpipe.Reason.INTERRUPTED, "enough")
            await pipe.wait_closed()
            await until(lambda: not server.pipes)
        assert not failed

    run(check)


def test_stopped_it_serves_those_who_are_there_and_nobody_else() -> None:
    async def check() -> None:
        async with serve(digest) as server:
            async with await bpipe.connect(server.address, limits=EAGER) as pipe:
                await until(lambda: server.pipes)
                server.stop()
                with pytest.raises(bpipe.NotConnected, match="takes no more callers for now"):
                    await call(server.address, b"b", limits=IMPATIENT)
                await until(lambda: taken(pipe))
                pipe.force_reconnect()
                await send(pipe, b"a")
                assert await read_all(pipe) == hashlib.sha256(b"a").digest()
            await server.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port(server))

    run(check)


def test_leaving_it_ends_those_who_are_served() -> None:
    async def check() -> None:
        async with serve(wait_for_end) as server:
            pipes = [await bpipe.connect(server.address, limits=QUICK) for _ in range(3)]
            for pipe in pipes:
                await pipe.connect()
            await until(lambda: len(server.pipes) == 3)
        for pipe in pipes:
            await pipe.wait_closed()
            assert isinstance(pipe.failure, bpipe.PeerAborted)
        assert not server.pipes

    run(check)


def test_leaving_it_ends_those_whose_handler_has_returned_and_who_have_not_read_all() -> None:
    async def speak(pipe: bpipe.BackedPipe) -> None:
        await pipe.write(b"nobody reads this")

    async def check() -> None:
        async with serve(speak) as server:
            pipe = await bpipe.connect(server.address, limits=QUICK)
            await pipe.connect()
            await until(lambda: pipe.status().peer_finished)
        await pipe.wait_closed()
        assert isinstance(pipe.failure, bpipe.PeerAborted)

    run(check)


def test_leaving_it_at_once_leaves_nothing_behind() -> None:
    async def check() -> None:
        before = len(asyncio.all_tasks())
        async with serve(digest) as server:
            session = server.more()
            assert session is not None
        assert session.over
        await until(lambda: len(asyncio.all_tasks()) == before)

    run(check)


def test_strangers_are_counted_and_concern_no_session() -> None:
    async def check() -> None:
        async with serve(wait_for_end, secret=bpipe.Secret(bytes(32))) as server:
            told: list[int] = []
            server.observe(lambda: told.append(server.refused))
            secret = bpipe.Secret(bytes(32))
            async with await bpipe.connect(server.address, limits=QUICK, secret=secret):
                await until(lambda: server.pipes)
                reader, writer = await asyncio.open_connection("127.0.0.1", port(server))
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                assert await end_of(reader) == b""
                writer.close()
                await until(lambda: told)
                assert told == [1]
                assert server.pipes[0].status().refused == 0

    run(check)


def test_an_address_that_others_can_reach_needs_a_secret() -> None:
    async def check() -> None:
        with pytest.raises(bpipe.AddressError, match="secret"):
            async with bpipe.serve("0.0.0.0:0", digest):
                raise AssertionError
        async with bpipe.serve("0.0.0.0:0", digest, insecure=True) as server:
            assert server.exposed

    run(check)
