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
from bpipe.net.outlet import Outlet
from tests.end_to_end.data import until
from tests.support.pairs import Files, files

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
