"""How fast bytes go from a pipe (or a file) through two processes to a pipe, and for how much CPU.

Everybody moves the same ``head -c SIZE /dev/zero`` to ``wc -c``. The clock runs from the first
byte that has come out, so from an established connection, until ``wc`` has seen the end. The
floor is that pipe without a network: ``head | wc``, or ``cat FILE | wc``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.peers import Session, Side, Tool
from tests.bench.processes import Child, Children, read_byte
from tests.bench.rounds import Options, choose, interleave, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_rate, show_seconds, show_size

SIZE: Final = 4 << 30  # bytes
ROUNDS: Final = 5

FLOOR: Final = "a pipe alone"
TITLES: Final = {"tcp": "loopback TCP", "unix": "Unix socket", "file": "TCP, stdin a file"}

COLUMNS: Final = [
    Column("rate", "median", show_rate),
    Column("rate", "worst", show_rate, min),
    Column("send", "CPU/GiB sender", show_seconds),
    Column("receive", "CPU/GiB receiver", show_seconds),
    Column("lost", "lost", show_size, max),
]
_LOOK: Final = 0.1  # seconds between two looks at the memory of the processes


def run(options: Options) -> Iterator[Table]:
    """Every table of this benchmark."""
    size = (options.sizes or (SIZE,))[0]
    with scratch(options) as folder:
        for over in options.over or tuple(TITLES):
            tools, missing = choose(options, lambda tool: over != "unix" or tool.unix is not None)  # noqa: B023
            title = f"Throughput, {TITLES[over]}, {show_size(size)}"
            table = table_for(tools, missing, title, COLUMNS)
            with file_of(size, folder) if over == "file" else contextlib.nullcontext() as file:
                runs: dict[str, Callable[[], Sample]] = {FLOOR: partial(floor, size, file)}
                for tool in tools:
                    run = partial(measure, tool, folder, size, file, unix=over == "unix")
                    runs[tool.name] = run
                interleave(table, options.rounds or ROUNDS, runs)
            yield table


@contextlib.contextmanager
def file_of(size: int, folder: Path) -> Iterator[Path]:
    """A file of zeros that costs no disk: its pages are read as a hole."""
    file = folder / "file"
    with file.open("wb") as opened:
        opened.truncate(size)
    yield file
    file.unlink()


def measure(
    tool: Tool, folder: Path, size: int, file: Path | None = None, *, unix: bool = False
) -> Sample:
    """Move so many bytes through a session over loopback or a Unix socket."""
    with Children() as children:
        return transfer(Session(children, tool, folder, unix=unix), size, file)


def transfer(session: Session, size: int, file: Path | None = None) -> Sample:
    """Move so many bytes through a session that is not started yet."""
    receiver = session.listen()
    with _source(session.children, size, file) as source:
        sender = session.connect(stdin=source)
    sides = [sender, receiver]
    sample = _count(session.children, receiver.main, size, sides)
    cpu = [side.reap() / (size / (1 << 30)) for side in sides]
    return sample | {
        "send": cpu[0],
        "receive": cpu[1],
        "send_memory": sender.peak_memory,
        "receive_memory": receiver.peak_memory,
    }


def floor(size: int, file: Path | None = None) -> Sample:
    """The same without a network: the producer's pipe is the consumer's."""
    with Children() as children:
        command = ["head", "-c", str(size), "/dev/zero"] if file is None else ["cat", str(file)]
        producer = children.start(command, stdout=subprocess.PIPE)
        return _count(children, producer, size, [])


@contextlib.contextmanager
def _source(children: Children, size: int, file: Path | None) -> Iterator[Child | int]:
    """What is the sender's stdin."""
    if file is None:
        yield children.start(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
        return
    with file.open("rb") as opened:
        yield opened.fileno()


def _count(children: Children, last: Child, size: int, sides: list[Side]) -> Sample:
    """Count what comes out of its stdout, from the first byte to the end."""
    read_byte(last)
    began = time.monotonic()
    for side in sides:
        side.mark()
        side.look()
    counter = children.start(["wc", "-c"], stdin=last, stdout=subprocess.PIPE)
    while not counter.ended(_LOOK):
        for side in sides:
            side.look()
    seconds = time.monotonic() - began
    counted = 1 + int(os.read(counter.stdout.fileno(), 64))
    return {"rate": counted / seconds, "lost": size - counted}
