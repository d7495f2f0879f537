"""Whether speed and memory stay the same, however long the stream is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.bench.rounds import Options, choose, interleave, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_rate, show_size
from tests.bench.throughput import measure

SIZES: Final = (1 << 30, 10 << 30)
ROUNDS: Final = 3

COLUMNS: Final = [
    Column("rate", "median", show_rate),
    Column("send_memory", "RSS sender", show_size, max),
    Column("receive_memory", "RSS receiver", show_size, max),
]


def run(options: Options) -> Iterator[Table]:
    """One table for each size."""
    tools, missing = choose(options)
    with scratch(options) as folder:
        for size in options.sizes or SIZES:
            table = table_for(
                tools, missing, f"Memory, {show_size(size)} over loopback TCP", COLUMNS
            )
            runs: dict[str, Callable[[], Sample]] = {
                tool.name: partial(measure, tool, folder, size) for tool in tools
            }
            interleave(table, options.rounds or ROUNDS, runs)
            yield table
