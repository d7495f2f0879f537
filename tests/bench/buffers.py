"""How fast bytes go between two ends that have buffers of different sizes: loopback TCP, plain.

The rows are ``--buffer`` of the sender and of the receiver; they are compared with the rows of
equal buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.peers import BPIPE, Ends
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import Column, Sample, Table, show_middle_rate, show_size
from tests.bench.throughput import measure

SIZE: Final = 128 << 20  # bytes
ROUNDS: Final = 3

PAIRS: Final = (
    *(("64K", "64K"), ("64K", "64M"), ("64M", "64K")),
    *(("1M", "1M"), ("1M", "64M"), ("4M", "64M"), ("64M", "64M")),
)

COLUMNS: Final = [
    Column("rate", "median", show_middle_rate),
    Column("rate", "worst", show_middle_rate, min),
    Column("rate", "best", show_middle_rate, max),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    size = (options.sizes or (SIZE,))[0]
    equal = [_name(sender, receiver) for sender, receiver in PAIRS if sender == receiver]
    with scratch(options) as folder:
        table = Table(f"Buffers of two ends, {show_size(size)}", COLUMNS, equal)
        runs: dict[str, Callable[[], Sample]] = {
            _name(*pair): partial(_move, *pair, folder, size) for pair in PAIRS
        }
        interleave(table, options.rounds or ROUNDS, runs)
        yield table


def _name(sender: str, receiver: str) -> str:
    return f"{sender} to {receiver}"


def _move(sender: str, receiver: str, folder: Path, size: int) -> Sample:
    listen, connect = BPIPE.tcp
    ends = Ends(f"{listen} --buffer {receiver}", f"{connect} --buffer {sender}")
    return measure(replace(BPIPE, tcp=ends), folder, size)
