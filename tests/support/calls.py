"""How many Python calls it takes to carry one byte there, and its acknowledgement back.

Both ends are in this process and in one event loop. One has a producer, the other a consumer: real
pumps on real pipes. Between them is a TCP connection over loopback, without a secret, and nobody
watches.

A call is what the interpreter's profiler reports as one, of code that lies in ``bpipe/``, in any
thread, from the write of the byte until it is acknowledged and nothing more happens. A property is
a call; so is a coroutine that goes on, and, up to Python 3.11, a comprehension.

It is a program of its own, with ``PYTHONPATH`` naming the checkout, and prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final

import bpipe
from bpipe.ends.sink_pump import SinkPump
from bpipe.ends.source_pump import SourcePump

WARM_UP: Final = 20  # bytes that are not counted: the pumps get used to small reads
ROUNDS: Final = 21
QUIET: Final = 0.02  # seconds after the acknowledgement in which nothing more happens
LIMITS: Final = bpipe.Limits(heartbeat=60.0)

PACKAGE: Final = Path(bpipe.__file__).parent


class Count:
    """Counts the calls in all threads that start from now on, while it is told to."""

    def __init__(self) -> None:
        self.calls: Counter[str] | None = None
        self._names: dict[object, str | None] = {}
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        calls = self.calls
        if calls is None or event != "call":
            return
        code = frame.f_code
        if code not in self._names:
            path = Path(code.co_filename)
            inside = path.is_relative_to(PACKAGE)
            where = path.relative_to(PACKAGE).with_suffix("") if inside else None
            self._names[code] = f"{where}:{code.co_qualname}" if inside else None
        if (name := self._names[code]) is not None:
            calls[name] += 1


async def one_byte(count: Count, writer: bpipe.BackedWriter, feed: int, drain: int) -> Counter[str]:
    """The calls for one byte that goes in at ``feed`` and comes out at ``drain``."""
    calls = count.calls = Counter()
    before = writer.acked
    os.write(feed, b"x")
    while writer.acked == before:
        await asyncio.sleep(0.001)
    await asyncio.sleep(QUIET)
    count.calls = None
    assert os.read(drain, 2) == b"x"
    return calls


async def measure() -> list[Counter[str]]:
    """The calls of every round."""
    count = Count()
    listener = await bpipe.listen("127.0.0.1:0", limits=LIMITS)
    caller = await bpipe.connect(listener.status().peer, limits=LIMITS)
    await asyncio.gather(caller.connect(), listener.connect())
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    SourcePump(caller.engine, stdin, "stdin")
    SinkPump(listener.engine, stdout, "stdout")
    rounds = [await one_byte(count, caller.writer, feed, drain) for _ in range(WARM_UP + ROUNDS)]
    sys.setprofile(None)
    for pipe in (caller, listener):
        pipe.abort(bpipe.Reason.INTERRUPTED, "all is counted")
        await pipe.wait_closed()
    return rounds[WARM_UP:]


def main() -> None:
    """Print the median, and the calls of a round that has as many."""
    rounds = asyncio.run(measure())
    totals = [each.total() for each in rounds]
    median = int(statistics.median_low(totals))
    calls = dict(rounds[totals.index(median)].most_common())
    report = {"median": median, "least": min(totals), "most": max(totals), "calls": calls}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
