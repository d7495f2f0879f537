"""How soon a listener that has many answers an honest caller, whatever others do to it.

First, how long a new caller waits, from its call to the first byte of an answer, beside thousands
of connections that say nothing, or only half a greeting, and come again when they are dropped.
Then, how long a small question takes in a session that is up, beside one caller without manners.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import bpipe
from tests.bench.hostile import KINDS
from tests.bench.many import serve
from tests.bench.processes import Child, Children
from tests.bench.rounds import Options, interleave
from tests.bench.table import Column, Sample, Table, show_milliseconds
from tests.end_to_end.callers import Echo, ask, calling
from tests.end_to_end.storm import FULL

CALLERS: Final = 200
QUESTIONS: Final = 1000
QUESTION: Final = bytes(100)
ROUNDS: Final = 3
AT_WORK: Final = 1.0  # seconds that the others have to begin

COLUMNS: Final = [
    Column("p95", "p95", show_milliseconds),
    Column("p50", "p50", show_milliseconds),
    Column("p99", "p99", show_milliseconds),
    Column("worst", "worst", show_milliseconds, max),
]
_ALONE: Final = "nobody else"


def run(options: Options) -> Iterator[Table]:
    """Both tables of this benchmark; the ratios are to the first row of each."""
    yield _table(
        "A new caller, to its first answer",
        partial(_call, count=options.count or CALLERS),
        {
            f"{FULL.silent} silent, {FULL.slow} slow": (
                *("tests.end_to_end.attacker", "127.0.0.1", "{port}"),
                *(f"--silent={FULL.silent}", f"--slow={FULL.slow}", f"--rate={FULL.rate}"),
            )
        },
        options,
    )
    yield _table(
        "A question of 100 bytes in a session that is up",
        partial(_ask, count=options.count or QUESTIONS),
        {kind: ("tests.bench.hostile", kind, "{port}") for kind in KINDS},
        options,
    )


Measure = Callable[[str], Sample]


def _table(
    title: str, measure: Measure, others: dict[str, tuple[str, ...]], options: Options
) -> Table:
    table = Table(title, COLUMNS, list(others))
    runs: dict[str, Callable[[], Sample]] = {_ALONE: partial(_beside, measure, ())}
    runs |= {name: partial(_beside, measure, module) for name, module in others.items()}
    interleave(table, options.rounds or ROUNDS, runs)
    return table


def _beside(measure: Measure, module: tuple[str, ...]) -> Sample:
    """Measure while this module runs."""
    with Echo() as echo, Children() as children:
        _, address = serve(children, f"--to {echo.address}", 64)
        measure(address)
        if not module:
            return measure(address)
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", *(word.format(port=port) for word in module)]
        other: Child = children.start(command, stdin=subprocess.PIPE)
        other.ended(AT_WORK)
        sample = measure(address)
        if other.ended(0):
            raise AssertionError(other.said)
        return sample


def _call(address: str, count: int) -> Sample:
    async def call() -> float:
        began = time.perf_counter()
        async with await bpipe.connect(address, insecure=True) as pipe:
            await ask(pipe)
            return time.perf_counter() - began

    async def all_of_them() -> list[float]:
        return [await call() for _ in range(count)]

    return _figures(asyncio.run(all_of_them()))


def _ask(address: str, count: int) -> Sample:
    async def question(pipe: bpipe.BackedPipe) -> float:
        began = time.perf_counter()
        await ask(pipe, QUESTION)
        return time.perf_counter() - began

    async def all_of_them() -> list[float]:
        async with calling(address, 1, insecure=True) as [pipe]:
            return [await question(pipe) for _ in range(count)]

    return _figures(asyncio.run(all_of_them()))


def _figures(times: list[float]) -> Sample:
    marks = statistics.quantiles(times, n=100)
    return {"p50": marks[49], "p95": marks[94], "p99": marks[98], "worst": max(times)}
