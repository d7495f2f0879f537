"""Many connections at once, carried over links that break: all comes back as it was sent."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.callers import Echo
from tests.end_to_end.data import pattern
from tests.end_to_end.helpers import Start
from tests.end_to_end.remains import has, wait_nothing_left

pytestmark = pytest.mark.slow

COUNT = 100  # connections
RESETS = 20
LARGEST = 300_000  # bytes of one
AWAY = 2.0  # seconds for which nothing gets through


async def talk(where: tuple[str, int], size: int) -> None:
    """Send so much, end that, and compare what comes back until the end."""
    reader, writer = await asyncio.open_connection(*where)
    writer.write(pattern(0, size))
    writer.write_eof()
    found = bytearray()
    while data := await reader.read(1 << 16):
        found += data
    assert found == pattern(0, size)
    writer.close()
    await writer.wait_closed()


async def talk_all(where: tuple[str, int], away: Callable[[], None]) -> None:
    """All at once; when some have begun, the path is away for a while."""
    sizes = [random.randrange(LARGEST) for _ in range(COUNT)]
    talks = [asyncio.create_task(talk(where, size)) for size in sizes]
    await asyncio.wait(talks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(away)
    await asyncio.gather(*talks)


def test_a_hundred_connections_through_resets_and_a_black_hole(start: Start) -> None:
    quick = "--heartbeat", "0.5", "--max-sessions", str(COUNT)
    patient = "--connect-timeout", "5m"  # some may not be up yet when the path goes away
    cuts = [
        Cut(Fault.RESET, random.random() < 0.5, random.randrange(LARGEST // 3))
        for _ in range(RESETS)
    ]
    with Echo() as echo:
        listener = start.bpipe("listen", "127.0.0.1:0", "-k", *quick, "--to", echo.address)
        proxy = start.proxy(listener.address, cuts)
        caller = start.bpipe("connect", proxy.address, *quick, *patient, "--from", "127.0.0.1:0")
        port = re.split(r"\D+", caller.wait_line("127.0.0.1:").partition("127.0.0.1:")[2])[0]
        where = "127.0.0.1", int(port)
        before = has(listener.pid), has(caller.pid)

        def away() -> None:
            proxy.freeze()
            time.sleep(AWAY)  # this is what is to be survived
            proxy.thaw()

        asyncio.run(talk_all(where, away))
        assert len(proxy.faults.made) >= RESETS // 2  # some connections end before they come so far
        for process, had in zip((listener, caller), before, strict=True):
            wait_nothing_left(process.pid, had)
