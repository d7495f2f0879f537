"""How long one byte takes through a live session, there and back.

The harness writes it, reads it at the far end, writes it there, and reads it at the near end;
so every figure contains four system calls of its own. Two ``cat`` show what that costs.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Final

from tests.bench.peers import Session, Tool, Way
from tests.bench.processes import Child, Children, read_byte
from tests.bench.rounds import Options, choose, interleave, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_microseconds

COUNT: Final = 2000  # exchanges in a round
ROUNDS: Final = 5
FLOOR: Final = "two cat"

COLUMNS: Final = [
    Column("p50", "p50", show_microseconds),
    Column("p99", "p99", show_microseconds),
    Column("worst", "worst", show_microseconds, max),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    tools, missing = choose(options, lambda tool: tool.two_way)
    count = options.count or COUNT
    with scratch(options) as folder:
        table = table_for(tools, missing, "Latency, one byte there and back, loopback TCP", COLUMNS)
        runs: dict[str, Callable[[], Sample]] = {FLOOR: partial(_floor, count)}
        runs |= {tool.name: partial(_measure, tool, folder, count) for tool in tools}
        interleave(table, options.rounds or ROUNDS, runs)
        yield table


def _measure(tool: Tool, folder: Path, count: int) -> Sample:
    with Children() as children:
        session = Session(children, tool, folder, way=Way.BOTH)
        far = session.listen(stdin=PIPE)
        near = session.connect(stdin=PIPE, stdout=PIPE)
        return _exchange(count, (near.main, far.main), (far.main, near.main))


def _floor(count: int) -> Sample:
    with Children() as children:
        there, back = (children.start(["cat"], stdin=PIPE, stdout=PIPE) for _ in range(2))
        return _exchange(count, (there, there), (back, back))


def _exchange(count: int, there: tuple[Child, Child], back: tuple[Child, Child]) -> Sample:
    """Each way: where to write, and where to read."""
    times = []
    for number in range(-count // 10, count):  # the first do not count
        began = time.perf_counter()
        for entry, exit in (there, back):
            os.write(entry.stdin.fileno(), b"x")
            read_byte(exit)
        if number >= 0:
            times.append(time.perf_counter() - began)
    return {
        "p50": statistics.median(times),
        "p99": statistics.quantiles(times, n=100)[98],
        "worst": max(times),
    }
