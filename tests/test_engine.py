"""What drives a session, with links from a source that does what a test wants, or real ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import bpipe
from bpipe.engine import READ_AHEAD, Engine
from bpipe.errors import LinkLost, LocalAbort, NotConnected, PipeClosed, SessionEnded
from bpipe.net.address import parse
from bpipe.net.backoff import Backoff
from bpipe.net.bind import bind
from bpipe.net.clock import clock as system_clock
from bpipe.net.connectors import connector
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from tests.support.pipes import QUICK, Nowhere, both, connect_both, read_all, run, until


@asynccontextmanager
async def waiting(source: Nowhere) -> AsyncIterator[Engine]:
    """An engine that waits for its first link."""
    engine = Engine(Session(1000, QUICK), source)
    engine.start()
    await until(lambda: "next link" in source.asked)
    try:
        yield engine
    finally:
        engine.abort(Reason.INTERRUPTED, "the test is over")
        await engine.wait_closed()


# --- its life ---


def test_it_starts_its_source_once_and_closes_it_when_the_session_is_over() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            engine.start()
            assert source.asked == ["start", "next link"]
            assert not engine.connected
        assert source.asked == ["start", "next link", "close"]
        assert isinstance(engine.failure, LocalAbort)

    run(check)


def test_one_that_was_never_started_closes_its_source() -> None:
    async def check() -> None:
        for written, failure in ((b"", None), (b"x", NotConnected)):
            source = Nowhere()
            engine = Engine(Session(1000), source)
            engine.space(1)[0][:] = b"x"
            engine.writer.wrote(len(written))
            await engine.wait_closed()
            assert source.asked == ["close"]
            assert type(engine.failure) is (failure or type(None))

    run(check)


def test_an_error_in_the_source_is_no_hang() -> None:
    async def check() -> None:
        source = Nowhere(ZeroDivisionError("a bug"))
        pipe = bpipe.BackedPipe(Session(1000), source)
        with pytest.raises(SessionEnded, match="a bug"):
            await pipe.connect()
        with pytest.raises(SessionEnded):
            await pipe.read()
        with pytest.raises(SessionEnded):
            await pipe.write(b"x")
        assert source.asked[-1] == "close"

    run(check)


def test_there_is_no_link_to_drop_before_the_first_and_the_source_hurries() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            engine.force_reconnect()
            assert source.asked[-1] == "hurry"

    run(check)


def test_whether_other_machines_can_connect_and_who_they_are() -> None:
    async def check() -> None:
        for exposed in (False, True):
            for secret in (None, bpipe.Secret(bytes(32))):
                engine = Engine(Session(1000, secret=secret), Nowhere(exposed=exposed))
                assert engine.source.exposed is exposed
                assert engine.exposed is (exposed and secret is None)

    run(check)


# --- who watches ---


def test_observers_are_told_after_everything_that_has_happened() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            told: list[int] = []
            engine.observe(lambda: told.append(engine.session.change))
            for happen in (source.drive, engine.finish, engine.stop, engine.cut):
                before = len(told)
                happen()
                assert len(told) == before + 1
                assert told[-1] == engine.session.change

    run(check)


def test_an_observer_may_not_drive_from_within_and_one_that_fails_hides_no_later_one() -> None:
    async def check() -> None:
        async with waiting(Nowhere()) as engine:
            told: list[str] = []

            def forward() -> None:
                told.append("asked for more")
                engine.drive()

            observers = [forward]
            engine.observe(lambda: observers[0]())
            with pytest.raises(AssertionError, match="an observer drives"):
                engine.drive()
            observers[0] = lambda: told.append("heard")
            engine.drive()
            assert told == ["asked for more", "heard"]

    run(check)


def test_who_waits_for_a_change_wakes_up_and_is_told_of_the_end() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            for _ in range(3):
                change = asyncio.ensure_future(engine.changed())
                await asyncio.sleep(0)
                assert not change.done()
                source.drive()
                await change
            engine.abort(Reason.INTERRUPTED, "enough")
            with pytest.raises(LocalAbort, match="enough"):
                await engine.changed()

    run(check)


def test_everything_but_counts_of_bytes_and_the_time_raises_the_change_number() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            seen = [engine.change]

            def note() -> None:
                seen.append(engine.change)

            source.change += 1
            note()
            engine.session.note(LinkLost("nobody there"))
            note()
            engine.finish()
            note()
            engine.abort(Reason.INTERRUPTED, "enough")
            note()
            assert seen == sorted(set(seen))
        assert engine.change == seen[-1]

    run(check)


def test_bytes_alone_change_nothing_that_has_to_be_compared() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            await caller.write(b"first")
            assert await listener.read() == b"first"
            await until(lambda: caller.status().unconfirmed == 0)
            before = caller.engine.change, listener.engine.change
            await caller.write(b"more")
            assert await listener.read() == b"more"
            await until(lambda: caller.status().unconfirmed == 0)
            assert (caller.engine.change, listener.engine.change) == before
            caller.force_reconnect()
            await until(lambda: caller.status().links == 2)
            assert caller.engine.change > before[0]

    run(check)


def test_each_frame_and_change_of_state_is_traced() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            lines: list[tuple[str, str]] = []
            caller.engine.session.trace_to(lambda sign, text: lines.append((sign, text)))
            await caller.write(b"12345")
            assert await listener.read() == b"12345"
            await until(lambda: caller.status().confirmed == 5)
            assert (">", "DATA 0 +5") in lines
            assert ("<", "ACK 5") in lines

    run(check)


# --- who feeds and drains it from a thread ---


def test_a_nudge_from_any_thread_drives_once() -> None:
    async def check() -> None:
        source = Nowhere()
        async with waiting(source) as engine:
            told: list[int] = []
            engine.observe(lambda: told.append(threading.get_ident()))

            def nudge_often() -> None:
                for _ in range(5):
                    engine.nudge()

            thread = threading.Thread(target=nudge_often)
            thread.start()
            thread.join()
            await asyncio.sleep(0)
            assert told == [threading.get_ident()]
            engine.nudge()
            await asyncio.sleep(0)
            assert len(told) == 2

    run(check)


def test_a_nudge_after_the_loop_has_ended_means_nothing() -> None:
    async def check() -> Engine:
        engine = Engine(Session(1000), Nowhere())
        await engine.wait_closed()
        return engine

    engine = asyncio.run(check())
    engine.nudge()
    engine.call(lambda: None)


def test_a_producer_in_a_thread_is_not_let_far_ahead_of_a_link() -> None:
    async def check() -> None:
        size = 4 * READ_AHEAD
        async with both(buffer_size=size) as (caller, _):
            engine, written = caller.engine, 0
            while views := engine.space(1 << 20):
                written += len(views[0])
                engine.writer.wrote(len(views[0]))
            assert READ_AHEAD <= written < READ_AHEAD + (1 << 20)
            assert not engine.spacious
            engine.drive()
            await until(lambda: engine.spacious)
            assert engine.space(1)

    run(check)


def test_without_a_link_it_may_fill_the_buffer() -> None:
    async def check() -> None:
        engine = Engine(Session(2 * READ_AHEAD), Nowhere())
        assert engine.spacious
        written = 0
        while views := engine.space(1 << 30):
            for view in views:
                written += len(view)
                engine.writer.wrote(len(view))
        assert written == 2 * READ_AHEAD
        assert not engine.spacious
        await engine.wait_closed()

    run(check)


def test_a_producer_is_told_to_stop_when_nothing_that_it_writes_can_be_sent() -> None:
    async def check() -> None:
        for how in ("finish", "abort"):
            async with waiting(Nowhere()) as engine:
                assert not engine.refusing
                if how == "finish":
                    engine.finish()
                else:
                    engine.abort(Reason.LOCAL_ERROR, "disk full")
                assert engine.refusing

    run(check)


def test_a_session_does_not_end_before_its_producer() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            caller.engine.begin()
            listener.stop()
            listener.finish()
            assert await read_all(caller) == b""
            await until(lambda: caller.status().finished)  # cut, at what was begun
            await asyncio.sleep(0)
            assert not caller.engine.session.over
            caller.finish(more=True)
            await asyncio.gather(caller.wait_closed(), listener.wait_closed())
            assert isinstance(caller.failure, PipeClosed)
            assert listener.failure is None

    run(check)


# --- time ---


async def made(clock: Callable[[], float]) -> tuple[bpipe.BackedPipe, bpipe.BackedPipe]:
    """A caller and a listener whose clock this is."""
    listener = Listener(await bind(parse("127.0.0.1:0")), clock=clock)
    here, there = Session(1000, QUICK), Session(1000, QUICK)
    dialer = Dialer(here, connector(parse(listener.name)), Backoff(1.0), clock)
    return (
        bpipe.BackedPipe(here, dialer, clock),
        bpipe.BackedPipe(there, listener.source(there), clock),
    )


def test_a_pause_between_a_link_and_its_use() -> None:
    asleep = 0.0

    def pause_once(_: str, text: str) -> None:
        nonlocal asleep
        asleep = 60.0 if text.startswith("attached") else asleep

    async def check() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        caller, listener = await made(lambda: system_clock() + asleep)
        listener.engine.session.trace_to(pause_once)
        await connect_both(caller, listener)
        await caller.write(b"hello")
        assert await listener.read() == b"hello"
        assert asleep
        await asyncio.gather(caller.close(), listener.close())
        assert not errors

    run(check)


def test_a_silent_link_is_lost_by_its_clock_alone() -> None:
    asleep = 0.0

    async def check() -> None:
        nonlocal asleep
        caller, listener = await made(lambda: system_clock() + asleep)
        await connect_both(caller, listener)
        asleep = 3 * QUICK.heartbeat
        await until(lambda: caller.status().links > 1)
        causes = [end.status().cause for end in (caller, listener)]  # one was the first to see it
        assert any(cause.startswith("nothing was heard for") for cause in causes)
        await asyncio.gather(caller.close(), listener.close())

    run(check)
