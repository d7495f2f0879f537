"""What many sessions cost the listener that has them: memory, threads and descriptors, each.

Some are idle: each has had one answer. Others are stalled: both ends push, and nobody takes, so all
buffers are full. The callers share the process of the harness.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.bench.peers import LOOPBACK, bpipe, free_port
from tests.bench.processes import Child, Children, wait_listening
from tests.bench.rounds import Options, interleave
from tests.bench.table import Column, Sample, Table, show_count, show_size
from tests.end_to_end.callers import Echo, calling, stall

COUNT: Final = 200  # sessions
ROUNDS: Final = 1
BUFFER: Final = 1 << 18

COLUMNS: Final = [
    Column("each", "of each", show_size),
    Column("total", "listener", show_size),
    Column("bound", "bound", show_size),
    Column("threads", "threads more", show_count),
    Column("descriptors", "descriptors of each", "{:.1f}".format),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    count = options.count or COUNT
    table = Table(f"{count} sessions of one listener, buffers of {show_size(BUFFER)}", COLUMNS, [])
    runs: dict[str, Callable[[], Sample]] = {
        f"{ends}, {'stalled' if stalled else 'idle'}": partial(_measure, ends, count, stalled)
        for stalled in (False, True)
        for ends in ("-- cat", "--to")
    }
    interleave(table, options.rounds or ROUNDS, runs)
    yield table


def _measure(ends: str, count: int, stalled: bool) -> Sample:
    with Children() as children, contextlib.ExitStack() as stack:
        if ends == "--to":
            ends += " " + stack.enter_context(Echo()).address
        listener, address = serve(children, ends, count)
        return asyncio.run(_cost(listener, address, count, stalled))


def serve(children: Children, ends: str, count: int, *more: str) -> tuple[Child, str]:
    """A listener for so many, and its address."""
    address = f"{LOOPBACK}:{free_port()}"
    options = ("-k", "--insecure", "--max-sessions", str(count), "--buffer", str(BUFFER), *more)
    listener = children.start([*bpipe(), "listen", address, *options, *ends.split()])
    wait_listening(listener, port=int(address.rpartition(":")[2]))
    return listener, address


async def _cost(listener: Child, address: str, count: int, stalled: bool) -> Sample:
    call = partial(calling, address, buffer_size=BUFFER)
    async with call(1):
        pass
    before = listener.memory("Pss"), _threads(listener), listener.descriptors
    async with call(count) as pipes:
        if stalled:
            await stall(pipes)
        total = listener.memory("Pss")
        buffers = 2 * BUFFER if stalled else 0
        return {
            "each": (total - before[0]) / count,
            "total": total,
            "bound": count * (buffers + 0.3 * (1 << 20)) + (60 << 20),
            "threads": _threads(listener) - before[1],
            "descriptors": (listener.descriptors - before[2]) / count,
        }


def _threads(child: Child) -> int:
    return len(os.listdir(f"/proc/{child.pid}/task"))
