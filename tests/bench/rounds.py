"""What every benchmark does: choose the tools, and run each of them in each round."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import BPIPE, PEERS, SEALED, Tool, make_key
from tests.bench.processes import Stuck
from tests.bench.table import Column, Sample, Table


@dataclass(frozen=True)
class Options:
    """What the command line says. None: the benchmark's own default."""

    rounds: int | None = None
    sizes: tuple[int, ...] | None = None  # bytes
    count: int | None = None  # exchanges, sessions, or lost connections
    seconds: tuple[float, ...] | None = None  # of the outages, or of idleness
    sealed: bool = False
    only: tuple[str, ...] = ()  # names of tools; none: all
    over: tuple[str, ...] = ()  # tcp, unix, file, or a kind of path; none: all
    congestion: str = ""  # of TCP (path); empty: its own default


def choose(
    options: Options, fits: Callable[[Tool], bool] = lambda tool: True
) -> tuple[list[Tool], list[str]]:
    """The tools that are wanted, fit and are here, bpipe first; and why others are missing."""
    wanted = [BPIPE, *([SEALED] if options.sealed else []), *PEERS]
    wanted = [tool for tool in wanted if fits(tool)]
    wanted = [tool for tool in wanted if not options.only or tool.name in options.only]
    here = [tool for tool in wanted if not tool.missing()]
    return here, [f"without {tool.name}: {tool.missing()}" for tool in wanted if tool.missing()]


def table_for(tools: list[Tool], missing: list[str], title: str, columns: list[Column]) -> Table:
    """An empty table, in which these are compared with bpipe."""
    subjects = [tool.name for tool in tools if tool in (BPIPE, SEALED)]
    return Table(title, columns, subjects, notes=list(missing))


def interleave(table: Table, rounds: int, runs: dict[str, Callable[[], Sample]]) -> None:
    """Run all of them, one after the other, so many times. One that fails has a note instead."""
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            progress(f"{table.title}: round {number} of {rounds}, {name}")
            attempt(table, name, run)
    progress("")


def attempt(table: Table, name: str, run: Callable[[], Sample]) -> None:
    """One round of one row."""
    try:
        table.add(name, run())
    except (Stuck, subprocess.SubprocessError) as error:
        table.notes.append(f"{name} failed: {error}")


def progress(text: str) -> None:
    """One line on the terminal, in place of the last one."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


@contextmanager
def scratch(options: Options) -> Iterator[Path]:
    """A folder for sockets, and for the key of those that encrypt."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        make_key(folder, sealed=options.sealed)
        yield folder
