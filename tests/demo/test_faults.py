"""The fault proxy does to a connection what it was told, at that byte, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from bpipe.demo.faults import GREETING_SIZE, Cut, Fault, FaultProxy, random_cuts

DATA = random.Random(9).randbytes(100_000)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


class Server:
    """Answers each connection with what it says, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[bytearray] = []
        self.reset = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        try:
            while data := await reader.read(1 << 16):
                heard += data
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            self.reset += 1
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def behind(
    *cuts: Cut,
) -> AsyncIterator[tuple[Server, FaultProxy, Callable[[], Awaitable[Streams]]]]:
    """A server behind a proxy, and how to connect to it."""
    server = Server()
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        proxy = FaultProxy(listening.sockets[0].getsockname(), cuts)
        address = proxy.start()
        assert not isinstance(address, str)
        writers = []

        async def dial() -> Streams:
            reader, writer = await asyncio.open_connection(*address)
            writers.append(writer)
            return reader, writer

        try:
            yield server, proxy, dial
        finally:
            for writer in writers:
                writer.close()
            await proxy.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def exchange(streams: Streams, data: bytes = DATA) -> bytes:
    """Say this, and hear what comes until the end."""
    reader, writer = streams

    async def say() -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            writer.write_eof()

    saying = asyncio.ensure_future(say())
    heard = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            heard += piece
    await saying
    return heard


def test_without_a_cut_it_only_relays() -> None:
    async def check() -> None:
        async with behind() as (server, proxy, dial):
            assert await exchange(await dial()) == DATA
            assert await exchange(await dial()) == DATA
            assert server.heard == [DATA, DATA]
            assert (proxy.connections, proxy.relayed, proxy.made) == (2, 4 * len(DATA), [])

    run(check)


def test_unix_sockets(tmp_path: Path) -> None:
    async def check() -> None:
        server = Server()
        goal, front = str(tmp_path / "goal"), str(tmp_path / "front")
        async with await asyncio.start_unix_server(server.answer, goal):
            proxy = FaultProxy(goal, [Cut(Fault.EOF, True, 1000)])
            assert proxy.start(front) == front
            for most in (1000, len(DATA)):
                reader, writer = await asyncio.open_unix_connection(front)
                heard = await exchange((reader, writer))
                assert DATA[:most].startswith(heard)
                writer.close()
            assert heard == DATA
            assert server.heard == [DATA[:1000], DATA]
            await proxy.close()

    run(check)


@pytest.mark.parametrize("offset", [0, 1, 5000, len(DATA)])
@pytest.mark.parametrize("upward", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.EOF])
def test_a_cut_comes_after_that_byte(fault: Fault, upward: bool, offset: int) -> None:
    async def check() -> None:
        cut = Cut(fault, upward, offset)
        async with behind(cut) as (server, proxy, dial):
            heard = await exchange(await dial())
            await until(lambda: proxy.made)
            assert proxy.made == [cut]
            assert DATA[:offset].startswith(heard)
            if fault is Fault.EOF:  # a reset destroys what is on its way
                assert (bytes(server.heard[0]) if upward else heard) == DATA[:offset]
            assert await exchange(await dial()) == DATA  # the next has nothing to fear

    run(check)


def test_a_cut_that_a_connection_does_not_live_to_see_is_for_the_next_one() -> None:
    async def check() -> None:
        cuts = [Cut(Fault.EOF, True, 1000), Cut(Fault.EOF, True, 2000)]
        async with behind(*cuts) as (server, proxy, dial):
            assert await exchange(await dial(), DATA[:999]) == DATA[:999]
            for cut in cuts:
                await exchange(await dial())
                assert server.heard[-1] == DATA[: cut.offset]
            assert proxy.made == cuts
            assert await exchange(await dial()) == DATA

    run(check)


@pytest.mark.parametrize("before", [10, 5000], ids=["before its byte", "after it"])
def test_a_cut_that_is_left_over_is_for_one_that_is_there_already(before: int) -> None:
    async def check() -> None:
        cut = Cut(Fault.EOF, True, 1000)
        async with behind(cut) as (server, proxy, dial):
            first = await dial()
            await until(lambda: proxy.connections == 1)
            reader, writer = await dial()
            writer.write(DATA[:before])
            assert await reader.readexactly(before) == DATA[:before]
            assert await exchange(first, b"too little") == b"too little"
            count = before
            while not proxy.made:  # with each byte it can have got the cut
                writer.write(DATA[count : count + 1])
                count += len(await reader.read(1))
            assert DATA.startswith(server.heard[1])
            await until(lambda: before > 1000 or len(server.heard[1]) == 1000)

    run(check)


def test_a_reset_is_a_reset_and_an_end_of_file_is_one() -> None:
    async def check() -> None:
        cuts = [Cut(Fault.RESET, True, 1), Cut(Fault.EOF, True, 1)]
        async with behind(*cuts) as (_, _, dial):
            reader, writer = await dial()
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            reader, writer = await dial()
            writer.write(b"x")
            assert await reader.read() in (b"", b"x")

    run(check)


def test_silence_forwards_nothing_and_closes_nothing() -> None:
    async def check() -> None:
        async with behind(Cut(Fault.SILENCE, True, 5)) as (server, proxy, dial):
            reader, writer = await dial()
            writer.write(DATA)
            await until(lambda: proxy.made)
            assert bytes(server.heard[0]) in (b"", DATA[:5])
            reading = asyncio.ensure_future(reader.read())
            done, _ = await asyncio.wait([reading], timeout=0.2)
            assert not done
            assert server.reset == 0
            reading.cancel()

    run(check)


def test_what_strikes_several_leaves_the_others_and_their_cuts() -> None:
    async def check() -> None:
        cut = Cut(Fault.EOF, True, 1000)
        async with behind(cut) as (server, proxy, dial):
            links = [await dial() for _ in range(3)]
            for reader, writer in links:
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            proxy.strike(Fault.EOF, 2)
            for _, writer in links:
                writer.write(b"y")
            for reader, _ in links[:2]:
                assert await reader.read() in (b"", b"y")  # which was under way
            reader, writer = links[2]
            assert await reader.readexactly(1) == b"y"
            assert proxy.made == [Cut(Fault.EOF, True, 0)] * 2
            await exchange(await dial())
            assert server.heard[-1] == DATA[: cut.offset]

    run(check)


def test_freeze_and_thaw() -> None:
    async def check() -> None:
        async with behind() as (server, proxy, dial):
            reader, writer = await dial()
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            proxy.freeze()
            writer.write(b"during")
            fresh, _ = await dial()  # is accepted, and gets no further
            readings = [asyncio.ensure_future(each.read(6)) for each in (reader, fresh)]
            done, _ = await asyncio.wait(readings, timeout=0.2)
            assert not done
            assert server.heard == [b"before"]
            proxy.thaw()
            assert await readings[0] == b"during"
            await until(lambda: len(server.heard) == 2)
            readings[1].cancel()

    run(check)


def test_nobody_behind_it_is_an_end_of_file() -> None:
    async def check() -> None:
        proxy = FaultProxy(("127.0.0.1", 1))
        address = proxy.start()
        assert not isinstance(address, str)
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b""
        writer.close()
        await proxy.close()

    run(check)


def test_on_cut_is_told() -> None:
    async def check() -> None:
        told: list[Cut] = []
        async with await asyncio.start_server(Server().answer, "127.0.0.1", 0) as listening:
            cut = Cut(Fault.RESET, True, 0)
            proxy = FaultProxy(listening.sockets[0].getsockname(), [cut], told.append)
            address = proxy.start()
            assert not isinstance(address, str)
            _, writer = await asyncio.open_connection(*address)
            await until(lambda: told == [cut])
            writer.close()
            await proxy.close()

    run(check)


def test_a_reset_leaves_other_descriptors_alone() -> None:
    """The numbers of those that it closes are used again at once, by whoever shares the loop."""

    async def check() -> None:
        noticed: list[asyncio.Event] = []
        with contextlib.ExitStack() as stack:

            def on_cut(cut: Cut) -> None:
                for sock, other in (pair := socket.socketpair(), pair[::-1]):
                    stack.enter_context(sock)
                    noticed.append(asyncio.Event())
                    asyncio.get_running_loop().add_reader(sock, noticed[-1].set)
                    other.send(b"x")
                    stack.callback(asyncio.get_running_loop().remove_reader, sock)

            async with await asyncio.start_server(Server().answer, "127.0.0.1", 0) as listening:
                cuts = [Cut(Fault.RESET, upward, 3) for upward in (True, False)]
                proxy = FaultProxy(listening.sockets[0].getsockname(), cuts, on_cut)
                address = proxy.start()
                assert not isinstance(address, str)
                for _ in cuts:
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(b"123")
                    with pytest.raises(ConnectionResetError):
                        await reader.read()
                    writer.close()
                assert len(noticed) == 4
                for event in noticed:
                    await asyncio.wait_for(event.wait(), 2)
                await proxy.close()

    run(check)


def summary(cuts: Iterable[Cut]) -> list[Cut]:
    return list(cuts)


def test_random_cuts_follow_their_seed() -> None:
    cuts = summary(random_cuts(random.Random(1), 1000, 10_000_000))
    assert cuts == summary(random_cuts(random.Random(1), 1000, 10_000_000))
    assert cuts != summary(random_cuts(random.Random(2), 1000, 10_000_000))
    assert len(cuts) == 1000
    assert {cut.fault for cut in cuts} == set(Fault)
    early = [cut for cut in cuts if cut.offset < GREETING_SIZE]
    assert 200 < len(early) < 300
    assert {cut.upward for cut in early} == {True, False}
    assert max(cut.offset for cut in cuts) < 10_000_000
