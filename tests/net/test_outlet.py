"""The outlet, at a pipe that does not keep its promise not to wait."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bpipe.net import outlet
from bpipe.net.outlet import LITTLE, Outlet, waiting
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import fill as into
from tests.end_to_end.data import until
from tests.support.pairs import Files, files, needs_nowait

__all__ = ["files"]

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")


def give(outlet: Outlet) -> None:
    assert outlet.give([memoryview(b"more")]) in (0, 4)  # 0: nobody reads any more


def take(outlet: Outlet) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"more")
        assert outlet.take(near, 4) in (None, 4)


@pytest.mark.parametrize("use", [give, take])
def test_an_outlet_that_has_kept_somebody_waiting_is_not_used_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, use: Callable[[Outlet], None]
) -> None:
    monkeypatch.setattr(outlet, "HELD_UP", 0.2)
    out, stdout = files.pipe()
    blocked, unread = socket.socketpair()
    with blocked, unread:
        blocked.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                blocked.send(bytes(1 << 16))
        blocked.setblocking(True)
        os.write(stdout, b"held")
        command = [sys.executable, "-c", "import os; os.splice(0, 1, 1 << 20)"]
        consumer = subprocess.Popen(command, stdin=out, stdout=blocked.fileno())
        try:
            # It waits for the socket now, and holds the pipe.
            until(
                lambda: Path(f"/proc/{consumer.pid}/wchan").read_text().startswith("sock"),
                "the consumer to be blocked",
            )
            way = Outlet(stdout, lambda: True)
            assert way.idle()
            release = threading.Timer(0.5, consumer.kill)  # how long it holds the pipe
            release.start()
            began = time.monotonic()
            use(way)
            assert time.monotonic() - began > 0.2
            assert not way.idle()
            release.join()
        finally:
            consumer.kill()
            consumer.wait()


@pytest.mark.parametrize("use", [give, take])
def test_an_outlet_that_does_not_wait_is_used_again(
    files: Files, use: Callable[[Outlet], None]
) -> None:
    out, stdout = files.pipe()
    way = Outlet(stdout, lambda: True)
    for _ in range(3):
        use(way)
        assert os.read(out, 100) == b"more"
        assert way.idle()


# --- what a link asks of it ---


def fill(descriptor: int) -> int:
    """Write until a pipe is full; returns the number of bytes."""
    os.set_blocking(descriptor, False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(descriptor, bytes(1 << 12))
    os.set_blocking(descriptor, True)
    return written


def test_what_there_is_in_a_socket_is_moved_into_the_pipe_and_no_more(files: Files) -> None:
    out, stdout = files.pipe()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        way = Outlet(stdout, lambda: True)
        assert way.fileno() == stdout
        with pytest.raises(BlockingIOError):
            way.take(near, 100)  # nothing there
        far.sendall(b"payload")
        assert way.take(near, 3) == 3
        assert way.take(near, 100) == 4
        assert os.read(out, 100) == b"payload"
        far.close()
        assert way.take(near, 100) == 0


def test_a_pipe_that_is_full_takes_nothing_and_one_without_a_reader_neither(files: Files) -> None:
    out, stdout = files.pipe()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.sendall(b"payload")
        way = Outlet(stdout, lambda: True)
        held = fill(stdout)
        assert way.take(near, 100) is None
        assert len(os.read(out, held)) == held
        assert way.take(near, 3) == 3
        os.close(out)
        assert way.take(near, 100) is None
        assert near.recv(100) == b"load"


def holding(data: bytes, capacity: int = 1 << 20) -> BackedReader:
    """A reader in which this waits for the consumer."""
    reader = BackedReader(capacity)
    reader.receive(into(reader.lend(len(data)), data))
    return reader


@needs_nowait
@pytest.mark.parametrize("length", [0, 1, 1000, LITTLE, LITTLE + 1])
def test_a_little_that_lies_in_memory_is_written_at_once(files: Files, length: int) -> None:
    out, stdout = files.pipe()
    reader = holding(bytes(length))
    Outlet(stdout, lambda: True).deliver(reader)
    assert (reader.delivered > 0) is (0 < length <= LITTLE)
    assert waiting(out) == reader.delivered


@needs_nowait
def test_nothing_is_delivered_past_a_thread_that_is_at_work_or_into_a_full_pipe(
    files: Files,
) -> None:
    out, stdout = files.pipe()
    reader = holding(b"payload")
    Outlet(stdout, lambda: False).deliver(reader)
    assert reader.delivered == 0
    held = fill(stdout)
    way = Outlet(stdout, lambda: True)
    way.deliver(reader)
    assert reader.delivered == 0
    os.read(out, held)
    way.deliver(reader)
    assert reader.delivered == 7


def test_only_a_pipe_is_an_outlet(files: Files) -> None:
    assert Outlet.possible(files.pipe()[1])
    with open(os.devnull, "wb") as device:
        assert not Outlet.possible(device.fileno())


def test_the_bytes_that_wait_are_counted(files: Files) -> None:
    out, stdout = files.pipe()
    os.write(stdout, b"12345")
    assert waiting(out) == waiting(stdout) == 5
    with open(os.devnull) as device:
        assert waiting(device.fileno()) == 0
