"""The threads of ends: how they begin and end, and what a terminal does that hangs up."""

from __future__ import annotations

import os
import pty
import select
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from bpipe.ends.gate import Gate
from bpipe.ends.local import End
from bpipe.ends.pumps import Pump, report_hang_up
from tests.support.pairs import Files, both, files, run, until

__all__ = ["files"]


def test_it_works_in_a_thread_of_its_own_that_takes_no_signals(files: Files) -> None:
    async def check() -> None:
        reader, _ = files.pipe()
        async with both() as (caller, _):
            seen: list[Any] = []

            def work() -> None:
                seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
                seen.append(threading.current_thread())

            end = End(caller.engine, "the program")
            pump = Pump(end, Gate(reader, select.POLLIN, lambda: False), work)
            await until(lambda: not pump.is_alive())
            blocked, thread = seen
            assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= blocked
            assert thread is pump
            assert pump.end is end
            assert pump.daemon

    run(check)


def test_what_happens_to_the_pipe_opens_its_gate(files: Files) -> None:
    async def check() -> None:
        reader, _ = files.pipe()
        async with both() as (caller, listener):
            gate = Gate(reader, 0, lambda: caller.reader.buffered > 0)
            pump = Pump(End(caller.engine, "it"), gate, partial(waits, gate))
            await until(gate.idle)
            await listener.write(b"x")
            await until(lambda: not pump.is_alive())

    run(check)


def waits(gate: Gate) -> None:
    gate.wait(beside=False)


@pytest.mark.parametrize("fails", [False, True])
def test_its_gate_is_closed_however_it_ends(
    files: Files, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)

    def work() -> None:
        if fails:
            raise MemoryError

    async def check() -> None:
        reader, _ = files.pipe()
        async with both() as (caller, _):
            before = descriptors()
            pump = Pump(End(caller.engine, "it"), Gate(reader, 0, lambda: False), work)
            await until(lambda: not pump.is_alive() and descriptors() == before)

    run(check)
    assert [type(each.exc_value) for each in failed] == [MemoryError] * fails


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The hang-ups that this process was told of."""
    told: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: told.append(number))
    yield told
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_is_a_hang_up(signals: list[int]) -> None:
    async def check() -> None:
        master, slave = pty.openpty()
        async with both() as (caller, listener):
            end = End(caller.engine, "stdin")
            assert not report_hang_up(end, slave)
            os.close(master)
            assert report_hang_up(end, slave)
            await caller.wait_closed()
            assert str(caller.failure) == "its terminal has hung up"
            await listener.wait_closed()
            assert "its terminal has hung up" in str(listener.failure)
        os.close(slave)

    run(check)
    assert signals == [signal.SIGHUP]


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_else_hangs_up(files: Files, signals: list[int], closed: bool) -> None:
    async def check() -> None:
        reader, writer = files.pipe()
        os.close(writer)
        if closed:
            os.close(reader)
        async with both() as (caller, _):
            assert not report_hang_up(End(caller.engine, "stdin"), reader)
            assert caller.connected
            assert caller.failure is None

    run(check)
    assert signals == []
