"""One pipe and its two ends, to its outcome; and two of them in one event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from functools import partial

import pytest

import bpipe
from bpipe.ends import scheduling
from bpipe.ends.file_sink import FileOutcome
from bpipe.ends.local import Sink, Source
from bpipe.ends.pumps import Pump
from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams
from bpipe.engine import Engine
from bpipe.errors import LocalAbort, NotConnected, PeerAborted, SessionEnded
from bpipe.run.join import Join, Outcome
from tests.support.pairs import QUICK, Files, files, pair, run, until
from tests.support.pipes import read_all, send
from tests.support.records import pair as pair_of_records
from tests.support.scheduling import CHOOSING

__all__ = ["files"]


class Nothing:
    """Ends of a pipe that end at once, or do not start at all, or say nothing."""

    def __init__(
        self,
        sends: bool = True,
        receives: bool = True,
        error: BaseException | None = None,
        *,
        silent: bool = False,
    ) -> None:
        self.sends = sends
        self.receives = receives
        self.started = 0
        self.outcome: FileOutcome | None = None
        self._error = error
        self._silent = silent

    result = None

    def hurry(self) -> bool:
        return False

    async def wait(self) -> None:
        """Nothing of it is left."""

    def start(self, engine: Engine) -> None:
        self.started += 1
        if self._error is not None:
            raise self._error
        if self._silent:
            return
        if self.sends:
            Source(engine, "nothing").ended()
        if self.receives:
            sink = Sink(engine, "nothing")
            engine.observe(lambda: sink.ended() if engine.reader.drained else None)


def test_both_ends_have_the_same_outcome() -> None:
    async def check() -> None:
        async with pair() as pipes:
            ends = [Nothing(), Nothing()]
            ends[0].outcome = FileOutcome(named=True)
            joins = [
                Join(pipe, each, LoopScheduling()) for pipe, each in zip(pipes, ends, strict=True)
            ]
            outcomes = await asyncio.gather(*(join.run() for join in joins))
            assert [each.file for each in outcomes] == [FileOutcome(named=True), None]
            for outcome in outcomes:
                assert outcome.failure is None
                assert outcome.status.state is bpipe.State.OVER
                assert outcome.status.peer_finished
            assert [each.started for each in ends] == [1, 1]

    run(check)


@pytest.mark.parametrize("sends", [False, True])
@pytest.mark.parametrize("receives", [False, True])
def test_what_is_not_used_is_said_with_the_first_link(sends: bool, receives: bool) -> None:
    async def check() -> None:
        async with pair() as (caller, listener):
            ends = Nothing(sends, receives, silent=True)
            join = asyncio.create_task(Join(caller, ends, LoopScheduling()).run())
            await until(lambda: caller.engine.connected or caller.status().attempts)
            assert not caller.status().finished  # what that means is not known yet
            await listener.connect()
            if not sends:
                assert await listener.read() == b""
            if not receives:
                await until(lambda: listener.writer.stopped == 0)
            await until(lambda: ends.started == 1)
            await until(lambda: ends.started == 1)
            assert caller.status().finished is not sends
            join.cancel()

    run(check)


def test_nobody_is_asked_to_stop_where_there_are_records(files: Files) -> None:
    async def check() -> None:
        (stdin, feed), (out, stdout) = files.pipe(), files.pipe()
        async with pair_of_records() as (caller, listener):
            joined = Join(
                caller,
                Stdio(Streams(stdin, stdout, False, False), Directions(send_only=True)),
                LoopScheduling(),
            )
            running = asyncio.create_task(joined.run())
            await listener.connect()
            await send(listener, bytes(3 << 20))  # more than both buffers hold
            os.write(feed, b"this way")
            os.close(feed)
            assert await read_all(listener) == b"this way"
            outcome = await running
            assert outcome.failure is None
            assert listener.writer.stopped is None
            assert outcome.status.delivered == 3 << 20
            os.write(stdout, b"words")  # it is left alone
            assert os.read(out, 100) == b"words"

    run(check)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many"), r"too many open files: .* \(ulimit -n\)"),
        (RuntimeError("can't start new thread"), "cannot start a thread"),
        (MemoryError(), "cannot allocate memory"),
    ],
)
def test_ends_for_which_there_is_nothing_left_end_both_sides(
    error: BaseException, said: str
) -> None:
    async def check() -> None:
        async with pair() as (caller, listener):
            lacking = Join(caller, Nothing(error=error), LoopScheduling())
            waiting = Join(listener, Nothing(), LoopScheduling())
            near, far = await asyncio.gather(lacking.run(), waiting.run())
            assert isinstance(near.failure, LocalAbort)
            assert isinstance(far.failure, PeerAborted)
            with pytest.raises(SessionEnded, match=said):
                raise near.failure
            with pytest.raises(SessionEnded, match=said):
                raise far.failure

    run(check)


def test_ends_are_not_started_where_nobody_answers() -> None:
    async def check() -> None:
        limits = QUICK._replace(connect_timeout=0.0)
        ends = Nothing()
        join = Join(await bpipe.connect("127.0.0.1:1", limits=limits), ends, LoopScheduling())
        outcome = await join.run()
        assert isinstance(outcome.failure, NotConnected)
        assert ends.started == 0

    run(check)


# --- two in one event loop ---


class Load:
    """Bulk into a pipe, and out of another one, for as long as it is wanted."""

    def __init__(self, feed: int, out: int) -> None:
        self.read = 0
        self.ended = False
        self._wanted = True
        self._threads = [
            threading.Thread(target=self._write, args=(feed,), daemon=True),
            threading.Thread(target=self._read, args=(out,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._wanted = False

    def _write(self, feed: int) -> None:
        while self._wanted:
            os.write(feed, bytes(1 << 18))
        os.close(feed)

    def _read(self, out: int) -> None:
        while data := os.read(out, 1 << 20):
            self.read += len(data)
        self.ended = True


def joined(
    pipe: bpipe.BackedPipe, streams: tuple[int, int], directions: Directions, shared: LoopScheduling
) -> Join:
    return Join(pipe, Stdio(Streams(*streams, False, False), directions), shared)


def is_batch(thread: threading.Thread) -> bool:
    return thread.native_id is not None and (
        os.sched_getscheduler(thread.native_id) == os.SCHED_BATCH
    )


@CHOOSING
def test_two_pipes_share_one_policy_and_leave_none_behind(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "BULK", 1 << 20)  # this machine may be busy
    main = threading.main_thread()

    async def check() -> None:
        shared = LoopScheduling()
        async with pair() as first, pair() as second:
            loads: list[Load] = []
            running: list[list[asyncio.Task[Outcome]]] = []
            for pipes in (first, second):
                (stdin, feed), (out, stdout) = files.pipe(), files.pipe()
                (nothing, _), (_, nowhere) = files.pipe(), files.pipe()
                sending = joined(pipes[0], (stdin, nowhere), Directions(send_only=True), shared)
                taking = joined(pipes[1], (nothing, stdout), Directions(recv_only=True), shared)
                if running:
                    assert is_batch(main)
                running.append([asyncio.create_task(each.run()) for each in (sending, taking)])
                loads.append(Load(feed, out))
                await until(lambda: loads[-1].read > 1 << 20)
                await until(partial(is_batch, main))
            for pump in threading.enumerate():
                if isinstance(pump, Pump) and isinstance(pump.end, Source):
                    await until(partial(is_batch, pump))  # it chooses for itself
            loads[0].end()
            ended = await asyncio.gather(*running[0])
            before = loads[1].read
            await until(lambda: loads[1].read > before + (8 << 20))
            await until(partial(is_batch, main))
            loads[1].end()
            ended += await asyncio.gather(*running[1])
            await until(lambda: all(load.ended for load in loads))
            assert [outcome.failure for outcome in ended] == [None] * 4
            assert os.sched_getscheduler(0) == os.SCHED_OTHER

    run(check)
