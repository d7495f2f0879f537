"""What idle sessions cost: memory, descriptors, and the CPU of their heartbeats."""

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
from tests.bench.table import Column, Sample, Table, show_count, show_milliseconds, show_size

COUNT: Final = 10  # sessions
IDLE: Final = 10.0  # seconds
ROUNDS: Final = 1

COLUMNS: Final = [
    Column("pss", "PSS", show_size),
    Column("rss", "RSS", show_size),
    Column("descriptors", "descriptors", show_count),
    Column("cpu", "CPU per minute", show_milliseconds),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark; all figures are those of one end."""
    tools, missing = choose(options, lambda tool: tool.two_way)
    count = options.count or COUNT
    idle = (options.seconds or (IDLE,))[0]
    with scratch(options) as folder:
        table = table_for(tools, missing, f"Idle sessions, {count} of them, one end", COLUMNS)
        runs: dict[str, Callable[[], Sample]] = {
            tool.name: partial(_measure, tool, folder, count, idle) for tool in tools
        }
        interleave(table, options.rounds or ROUNDS, runs)
        yield table


def _measure(tool: Tool, folder: Path, count: int, idle: float) -> Sample:
    with Children() as children:
        ends: list[list[Child]] = []
        for _ in range(count):
            session = Session(children, tool, folder, way=Way.BOTH)
            far = session.listen(stdin=PIPE)
            near = session.connect(stdin=PIPE, stdout=PIPE)
            os.write(near.main.stdin.fileno(), b"x")
            read_byte(far.main)
            ends += [far.children, near.children]
        began = [_total(end, lambda child: child.cpu) for end in ends]
        time.sleep(idle)  # this is what is measured
        spent = [_total(end, lambda child: child.cpu) for end in ends]
        return {
            "pss": _mean(ends, lambda child: child.memory("Pss")),
            "rss": _mean(ends, lambda child: child.memory("VmRSS")),
            "descriptors": _mean(ends, lambda child: child.descriptors),
            "cpu": statistics.fmean(b - a for a, b in zip(began, spent, strict=True)) * 60 / idle,
        }


def _total(end: list[Child], figure: Callable[[Child], float]) -> float:
    return sum(figure(child) for child in end)


def _mean(ends: list[list[Child]], figure: Callable[[Child], float]) -> float:
    return statistics.fmean(_total(end, figure) for end in ends)
