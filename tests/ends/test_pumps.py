"""The pumps, at the corners that processes reach only by chance."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

import bpipe
from bpipe.ends.pumps import Gate, StdinPump, StdoutPump
from bpipe.errors import LocalAbort, PeerAborted, PipeClosed

LOOP, PUMP = "MainThread", "StdoutPump"
QUICK = bpipe.Limits(heartbeat=0.2, connect_timeout=5.0, give_up_after=5.0, linger=0.5)


class Files:
    """Pipes, and who closes them."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.stack.callback(self.close, end)
        return ends

    def close(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    with files.stack:
        yield files


@contextlib.asynccontextmanager
async def both(
    secret: bpipe.Secret | None = None,
) -> AsyncIterator[tuple[bpipe.BackedPipe, bpipe.BackedPipe]]:
    listener = await bpipe.listen("127.0.0.1:0", limits=QUICK, buffer_size=1 << 20, secret=secret)
    where = listener.status().peer
    caller = await bpipe.connect(where, limits=QUICK, buffer_size=1 << 20, secret=secret)
    try:
        await asyncio.gather(caller.connect(), listener.connect())
        yield caller, listener
    finally:
        for pipe in (caller, listener):
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
            await pipe.wait_closed()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())
    for thread in threading.enumerate():
        if thread.name in ("StdinPump", "StdoutPump"):
            thread.join(5)
            assert not thread.is_alive(), "a pump was left behind"


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


# --- the gate ---


def test_a_gate_that_is_opened_first_does_not_block(files: Files) -> None:
    reader, _ = files.pipe()
    gate = Gate(reader, 1)
    for _ in range(100_000):  # more than it can remember
        gate.open()
    assert gate.wait(beside=True) == 0


def test_a_gate_tells_what_happened_beside_it(files: Files) -> None:
    reader, writer = files.pipe()
    gate = Gate(reader, 1)
    os.write(writer, b"x")
    assert gate.wait(beside=True) == 1
    gate.open()
    assert gate.wait(beside=False) == 0


# --- stdin ---


def test_stdin_is_copied_to_its_end_and_closed(files: Files) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, listener):
            pump = StdinPump(caller.engine, stdin)
            os.write(feed, b"first")
            assert await listener.read() == b"first"
            assert not pump.ended
            os.close(feed)
            assert await listener.read() == b""
            await until(lambda: pump.ended)
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(stdin)

    run(check)


@pytest.mark.parametrize("full", [False, True], ids=["idle", "full"])
def test_the_producer_is_released_when_nobody_wants_more(files: Files, full: bool) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        async with both() as (caller, _):
            pump = StdinPump(caller.engine, stdin)
            os.set_blocking(feed, False)
            while full and caller.writer.room:
                with contextlib.suppress(BlockingIOError):
                    os.write(feed, bytes(1 << 16))
                await asyncio.sleep(0)
            assert not pump.ended
            caller.abort(bpipe.Reason.LOCAL_ERROR, "enough")
            await until(lambda: pump.ended)
            with pytest.raises(BrokenPipeError):
                os.write(feed, b"x")

    run(check)


def test_a_stdin_that_cannot_be_read_is_told_to_both() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            StdinPump(caller.engine, os.open("/", os.O_RDONLY))
            with pytest.raises(PeerAborted, match="cannot read stdin: is a directory"):
                await listener.read()
            await caller.wait_closed()
            assert isinstance(caller.failure, LocalAbort)

    run(check)


# --- stdout ---


def test_stdout_is_closed_before_the_end_counts_as_delivered(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        drain, stdout = files.pipe()
        closing, go_on = threading.Event(), threading.Event()
        close = os.close

        def slow(descriptor: int) -> None:
            if descriptor == stdout:
                closing.set()
                go_on.wait(10)
            close(descriptor)

        async with both() as (caller, listener):
            StdoutPump(listener.engine, stdout)
            monkeypatch.setattr(os, "close", slow)
            await caller.write(b"12345")
            caller.finish()
            await asyncio.to_thread(closing.wait, 10)
            assert os.read(drain, 100) == b"12345"
            await until(lambda: caller.status().confirmed == 5)
            assert not listener.reader.done
            assert not caller.writer.done
            go_on.set()
            await until(lambda: caller.writer.done)

    run(check)


def test_a_close_that_fails_is_told_to_both(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        _, stdout = files.pipe()
        close = os.close

        def fail(descriptor: int) -> None:
            close(descriptor)
            if descriptor == stdout:
                raise OSError(errno.EDQUOT, "")

        async with both() as (caller, listener):
            StdoutPump(listener.engine, stdout)
            monkeypatch.setattr(os, "close", fail)
            await caller.write(b"12345")
            with pytest.raises(PeerAborted, match="cannot write stdout: disk quota exceeded"):
                await caller.close()
            await listener.wait_closed()
            assert isinstance(listener.failure, LocalAbort)

    run(check)


def test_a_consumer_that_leaves_is_noticed_while_nothing_moves(files: Files) -> None:
    async def check() -> None:
        drain, stdout = files.pipe()
        async with both() as (caller, listener):
            StdoutPump(listener.engine, stdout)
            os.close(drain)
            with pytest.raises(PipeClosed, match="closed its pipe"):
                await caller.read()
            await listener.wait_closed()
            assert isinstance(listener.failure, PipeClosed)

    run(check)


def test_a_stdout_that_is_full_holds_up_only_itself(files: Files) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        async with both() as (caller, listener):
            StdoutPump(listener.engine, stdout)
            await caller.write(bytes(1 << 20))
            await until(lambda: listener.status().received == 1 << 20)
            assert listener.status().delivered < 1 << 20
            await listener.write(b"the other way")
            assert await caller.read() == b"the other way"
            caller.finish()
            await drain(out, 1 << 20)
            await until(lambda: caller.writer.done)

    run(check)


class Calls:
    """Which thread has moved how much by system calls, in order; one that fails is not noted."""

    def __init__(self) -> None:
        self.tries = 0  # of the event loop, which must not wait
        self.done: list[tuple[str, int]] = []

    def note(self, count: int) -> int:
        """This call has moved so much."""
        self.done.append((threading.current_thread().name, count))
        return count

    def by(self, thread: str) -> int:
        """The bytes that this one has moved."""
        return sum(count for name, count in self.done if name == thread)


class Writes(Calls):
    """Those to stdout; ``meanwhile`` is called before each of the event loop's."""

    def __init__(
        self, patch: pytest.MonkeyPatch, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        writev, pwritev = os.writev, os.pwritev

        def try_pwritev(descriptor: int, views: list[memoryview], offset: int, flags: int) -> int:
            self.tries += 1
            meanwhile()
            return self.note(pwritev(descriptor, views, offset, flags))

        patch.setattr(os, "writev", lambda descriptor, views: self.note(writev(descriptor, views)))
        patch.setattr(os, "pwritev", try_pwritev)


async def drain(descriptor: int, count: int) -> bytes:
    """So many bytes that come out of a pipe."""
    os.set_blocking(descriptor, False)
    data = b""
    while len(data) < count:
        with contextlib.suppress(BlockingIOError):
            data += os.read(descriptor, count - len(data))
        await asyncio.sleep(0.001)
    return data


needs_nowait = pytest.mark.skipif(
    not hasattr(os, "RWF_NOWAIT"), reason="this system cannot be asked not to wait in one write"
)
SECRET = bpipe.Secret(bytes(32))  # what is sealed cannot pass by the pump's memory


@needs_nowait
def test_a_little_is_written_without_the_pump(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        async with both(SECRET) as (caller, listener):
            StdoutPump(listener.engine, stdout)
            writes = Writes(monkeypatch)
            for number in range(1, 20):
                await asyncio.sleep(0)
                await caller.write(b"piece")
                assert await drain(out, 5) == b"piece"
                await until(lambda: caller.status().confirmed == 5 * number)  # noqa: B023
            assert writes.by(PUMP) == 0

    run(check)


@needs_nowait
def test_what_stdout_does_not_take_at_once_is_left_to_the_pump(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, 4096)
        async with both(SECRET) as (caller, listener):
            StdoutPump(listener.engine, stdout)
            writes = Writes(monkeypatch)
            data = random.Random(0).randbytes(10_000)
            await caller.write(data)
            await until(lambda: writes.done)
            assert writes.done[0] == (LOOP, 4096)
            assert await drain(out, len(data)) == data
            await until(lambda: caller.status().confirmed == len(data))

    run(check)


@needs_nowait
@pytest.mark.parametrize(("number", "tries"), [(errno.EOPNOTSUPP, 1), (errno.EAGAIN, 5)])
def test_a_stdout_that_cannot_be_asked_is_not_asked_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    def refuse() -> None:
        raise OSError(number, "")

    async def check() -> None:
        out, stdout = files.pipe()
        async with both(SECRET) as (caller, listener):
            pump = StdoutPump(listener.engine, stdout)
            writes = Writes(monkeypatch, refuse)
            for _ in range(5):
                await until(lambda: pump._idle)
                await caller.write(b"piece")
                assert await drain(out, 5) == b"piece"
            assert writes.by(LOOP) == 0
            assert writes.tries == tries

    run(check)


@needs_nowait
def test_a_pump_that_is_woken_for_nothing_does_not_write_what_the_loop_writes(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        out, stdout = files.pipe()
        async with both(SECRET) as (caller, listener):
            pump = StdoutPump(listener.engine, stdout)

            def wake() -> None:
                before = len(waits)
                pump._gate.open()
                until = time.monotonic() + 5
                while len(waits) == before and time.monotonic() < until:
                    time.sleep(0.001)

            waits: list[bool] = []
            wait = pump._gate.wait

            def note(*, beside: bool) -> int:
                waits.append(beside)
                return wait(beside=beside)

            monkeypatch.setattr(pump._gate, "wait", note)
            await until(lambda: pump._idle)
            writes = Writes(monkeypatch, wake)
            for _ in range(3):
                await caller.write(b"piece")
                assert await drain(out, 5) == b"piece"
            assert writes.done == [(LOOP, 5)] * 3

    run(check)
