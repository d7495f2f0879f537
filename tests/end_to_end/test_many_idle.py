"""What sessions cost a listener that has many: idle ones, and ones in which nothing moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.end_to_end.callers import Echo, calling, stall
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Bpipe, Start
from tests.end_to_end.remains import has, resident

pytestmark = pytest.mark.slow

COUNT = 30
IDLE = 0.3 * MIB  # bytes that one may cost
REST = 60 * MIB  # and all together, beside their buffers
BUFFER = 1 << 18


@pytest.fixture(params=["--", "--to"])
def listener(start: Start, request: pytest.FixtureRequest) -> Iterator[Bpipe]:
    """One that answers each caller the same, and has done so once."""
    with Echo() if request.param == "--to" else contextlib.nullcontext() as echo:
        ends = ("--", "cat") if echo is None else ("--to", echo.address)
        yield start.bpipe("listen", "127.0.0.1:0", "-k", "--buffer", str(BUFFER), *ends)


def test_an_idle_session_costs_little_and_no_thread(listener: Bpipe) -> None:
    async def check() -> None:
        async with calling(listener.address, 5):
            pass
        before = has(listener.pid), resident(listener.pid)
        async with calling(listener.address, COUNT):
            grown = resident(listener.pid) - before[1]
            assert grown <= COUNT * IDLE
            assert has(listener.pid).threads == before[0].threads

    asyncio.run(check())


def test_sessions_that_are_stalled_stay_within_the_bound(listener: Bpipe) -> None:
    async def check() -> None:
        async with calling(listener.address, COUNT, buffer_size=BUFFER) as pipes:
            await stall(pipes)
            most = COUNT * (2 * BUFFER + IDLE) + REST
            assert COUNT * BUFFER < resident(listener.pid) < most

    asyncio.run(check())
