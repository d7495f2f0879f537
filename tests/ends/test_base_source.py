"""What a receiver says of its base."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from tests.support.pairs import run, until
from tests.support.targets import FailingDisk, Sender, receiving

MIB = 1 << 20
BLOCK = MIB // 4
STREAM = random.Random(1).randbytes(8 * MIB)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(STREAM)
    return path


def session(
    path: Path,
    test: Callable[[Sender, bpipe.BackedPipe], Awaitable[None]],
    disk: Disk | None = None,
    *,
    whole: bool = False,
) -> None:
    async def check() -> None:
        target = Target.open(str(path), disk)
        async with receiving(target, sends_whole=whole) as (sender, _, listener):
            await test(sender, listener)
        target.close()

    run(check)


def test_it_is_not_read_far_ahead_of_the_stream(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.ends.base_source.AHEAD", 2 * BLOCK)
    disk = FailingDisk()

    async def look(sender: Sender, listener: bpipe.BackedPipe) -> None:
        for number, at in enumerate(range(0, len(STREAM), BLOCK)):
            await until(lambda: disk.called.count("read") >= min(number + 3, 32))  # noqa: B023
            assert disk.called.count("read") == min(number + 3, 32)
            await sender.send(b"?" + STREAM[at + 1 : at + BLOCK])
            await sender.decide()
        await sender.end()
        await listener.wait_closed()
        assert sender.writer.tally[:3] == (len(STREAM), 0, len(STREAM))

    session(path, look, disk)


def test_what_is_known_is_told_before_more_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.ends.base_source.PORTION", 2 * BLOCK)
    go_on = threading.Event()

    class Slow(FailingDisk):
        def read(self, descriptor: int, into: memoryview, at: int) -> int:
            if self.called.count("read") == 2:
                go_on.wait(20)
            return super().read(descriptor, into, at)

    async def send(sender: Sender, listener: bpipe.BackedPipe) -> None:
        for at in (0, BLOCK):
            await sender.send(STREAM[at : at + BLOCK])
            await sender.decide()
        assert sender.writer.tally.compared == 2 * BLOCK
        go_on.set()
        await sender.send(STREAM[2 * BLOCK :])
        await sender.end()
        await listener.wait_closed()

    session(path, send, Slow())


def test_it_ends_where_the_stream_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpipe.ends.base_source.AHEAD", BLOCK)
    disk = FailingDisk()

    async def end(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(STREAM[: MIB + 5])
        await sender.end()
        await listener.wait_closed()
        assert listener.failure is None

    session(path, end, disk)
    assert path.read_bytes() == STREAM[: MIB + 5]
    assert disk.called.count("read") <= 6


def test_it_ends_where_the_stream_of_one_who_compares_nothing_has_passed_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.ends.base_source.AHEAD", BLOCK)
    data = STREAM[::-1]

    async def send(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await sender.send(data)
        await until(lambda: listener.writer.mark is not None)
        await sender.end()
        await listener.wait_closed()
        assert listener.failure is None

    session(path, send, whole=True)
    assert path.read_bytes() == data


def test_a_sender_that_does_not_listen_holds_it_up(path: Path) -> None:
    """What it says has its place in memory, and no more."""
    blocks = 40_000
    with path.open("r+b") as file:
        file.truncate(blocks * BLOCK)

    async def wait(sender: Sender, listener: bpipe.BackedPipe) -> None:
        await until(lambda: listener.writer.room < 100)
        assert listener.writer.written <= MIB
        await sender.send(STREAM)
        await sender.end()
        await listener.wait_closed()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bpipe.ends.base_source.AHEAD", 1 << 50)
        session(path, wait)
    assert path.read_bytes() == STREAM
