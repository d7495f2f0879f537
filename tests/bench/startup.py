"""How long it takes from the start of a process until its first byte has come through.

A listener is there already. The floor is a typer app that does nothing but print a byte.
"""

from __future__ import annotations

import compileall
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import bpipe
from tests.bench.peers import Session, Tool
from tests.bench.processes import Children, read_byte
from tests.bench.rounds import Options, choose, interleave, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_milliseconds

ROUNDS: Final = 20
FLOOR: Final = "empty typer app"
PYTHON: Final = "python alone"

EMPTY_APP: Final = """\
import typer

app = typer.Typer()


@app.command()
def main() -> None:
    print("x", end="", flush=True)


app()
"""

COLUMNS: Final = [
    Column("seconds", "median", show_milliseconds),
    Column("seconds", "best", show_milliseconds, min),
    Column("cpu", "CPU", show_milliseconds),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    tools, missing = choose(options, lambda tool: tool.two_way)  # mbuffer waits for a whole block
    with scratch(options) as folder:
        table = table_for(tools, missing, "Start-up, to the first byte at the far end", COLUMNS)
        compileall.compile_dir(Path(bpipe.__file__).parent, quiet=2)  # as an installation is
        app = folder / "app.py"
        app.write_text(EMPTY_APP)
        runs: dict[str, Callable[[], Sample]] = {
            PYTHON: partial(_program, [sys.executable, "-c", "print(end='x', flush=True)"]),
            FLOOR: partial(_program, [sys.executable, str(app)]),
        }
        runs |= {tool.name: partial(_session, tool, folder) for tool in tools}
        interleave(table, options.rounds or ROUNDS, runs)
        yield table


def _program(command: list[str]) -> Sample:
    with Children() as children:
        began = time.monotonic()
        child = children.start(command, stdout=subprocess.PIPE)
        read_byte(child)
        seconds = time.monotonic() - began
        return {"seconds": seconds, "cpu": child.reap()}


def _session(tool: Tool, folder: Path) -> Sample:
    with Children() as children:
        session = Session(children, tool, folder)
        far = session.listen()
        byte = children.start(["printf", "x"], stdout=subprocess.PIPE)
        began = time.monotonic()
        near = session.connect(stdin=byte)
        read_byte(far.main)
        seconds = time.monotonic() - began
        return {"seconds": seconds, "cpu": near.reap()}
