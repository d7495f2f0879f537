"""The asyncio interface, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import bpipe
from bpipe.errors import (
    LocalAbort,
    PeerAborted,
    PipeClosed,
    SessionEnded,
)
from tests.support.pipes import (
    DATA,
    QUICK,
    both,
    connect_both,
    open_both,
    read_all,
    run,
    send,
    until,
)
from tests.support.strangers import abstract_name, needs_abstract

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


@needs_abstract
def test_an_abstract_socket_has_a_name_at_both_ends() -> None:
    name = f"unix:{abstract_name()}"

    async def check() -> None:
        listener = await bpipe.listen(name)
        caller = await bpipe.connect(name, limits=QUICK)
        answer = asyncio.ensure_future(exchange(listener, b"there"))
        assert await exchange(caller, b"here") == b"there"
        assert await answer == b"here"

    async def exchange(pipe: bpipe.BackedPipe, said: bytes) -> bytes:
        async with pipe:
            assert pipe.status().peer == name
            await pipe.write(said)
            pipe.finish()
            return await read_all(pipe)

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


def test_a_program_that_is_cancelled_while_it_closes_aborts_too() -> None:
    """Its link must not live on: the peer would wait for ever over it."""

    async def check() -> None:
        caller, listener = await open_both()
        waiting = asyncio.ensure_future(listener.connect())

        async def use() -> None:
            async with caller:
                await caller.write(b"nobody reads this")

        using = asyncio.ensure_future(use())
        await waiting
        await until(lambda: caller.status().finished)
        using.cancel()
        await asyncio.wait([using])
        assert using.cancelled()
        await listener.wait_closed()
        assert isinstance(listener.failure, PeerAborted)

    run(check)


def test_who_stops_waiting_for_the_end_ends_nothing() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(caller.wait_closed(), timeout=0.01)
            await send(caller, b"still here")
            assert await read_all(listener) == b"still here"

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


# --- whom it lets in ---
