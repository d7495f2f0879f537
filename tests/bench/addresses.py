"""A name that has several addresses, of which only the last is alive: the first byte, and again.

The others refuse, or swallow every packet. The first row has no others: it is what the start of a
process costs. After the first byte the connection is dropped a few times, by SIGUSR2, and it is
measured how soon there is another one.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from tests.bench.peers import BPIPE, SEALED, Session, Tool
from tests.bench.processes import PATIENCE, Children, Stuck, read_byte
from tests.bench.recovery import wait
from tests.bench.rounds import Options, choose, interleave, scratch
from tests.bench.table import Column, Sample, Table, show_seconds
from tests.bench.wire import Wire, missing

ROUNDS: Final = 3
DROPS: Final = 3  # of the connection, in each round

# All in the wire's network. The C library puts those first that are nearer to 10.77.0.1.
ALIVE: Final = "10.77.0.200"
REFUSING: Final = [f"10.77.0.{number}" for number in range(32, 35)]
SILENT: Final = [f"10.77.0.{number}" for number in range(16, 30)]
BIND: Final = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'

AGAIN: Final = "^bpipe: connected again "

COLUMNS: Final = [
    Column("first", "first byte", show_seconds),
    Column("first", "worst", show_seconds, max),
    Column("again", "again after", show_seconds),
    Column("worst", "worst", show_seconds, max),
]


class Name(NamedTuple):
    """A host name, by what stands before its living address."""

    row: str
    dead: list[str]


NAMES: Final = [
    Name("alive", []),
    Name("3 that refuse", REFUSING),
    *(Name(f"{count} black hole{'s' * (count > 1)}", SILENT[:count]) for count in (1, 4, 8, 14)),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark; all names of a round are called side by side."""
    tools, without = choose(options, lambda tool: tool in (BPIPE, SEALED))
    table = Table("A name with several addresses, the last alive", COLUMNS, [], notes=without)
    if why_not := missing():
        table.notes.append(f"not measured: {why_not}")
        yield table
        return
    drops = options.count or DROPS
    with scratch(options) as folder, Wire() as wire:
        for address in (ALIVE, *REFUSING):
            _in(wire.far, "ip", "addr", "add", f"{address}/24", "dev", wire.far[-1])
        runs: dict[str, Callable[[], Sample]] = {
            f"{tool.name}, {name.row}": partial(_call, tool, name, folder, wire, drops)
            for tool in tools
            for name in NAMES
        }
        interleave(table, options.rounds or ROUNDS, runs)
    yield table


def _in(network: tuple[str, ...], *command: str) -> None:
    subprocess.run([*network, *command], check=True, capture_output=True)


def _call(tool: Tool, name: Name, folder: Path, wire: Wire, drops: int) -> Sample:
    """Call the listener by a name, and lose the connection so many times."""
    hosts = folder / f"hosts {tool.name} {name.row}"
    hosts.write_text("".join(f"{address} bench.test\n" for address in [*name.dead, ALIVE]))
    near = (*wire.near, "sh", "-c", BIND, "sh", str(hosts))
    with Children() as children:
        session = Session(children, tool, folder, host=ALIVE, near=near, far=wire.far)
        receiver = session.listen()
        began = time.monotonic()
        sender = session.connect(stdin=subprocess.PIPE, reach=("bench.test", session.place.port))
        sender.main.stdin.write(b"x")
        read_byte(receiver.main)
        sample = {"first": time.monotonic() - began}
        times = []
        for _ in range(drops):
            dropped = time.monotonic()
            sender.main.signal(signal.SIGUSR2)
            wait(lambda: bool(sender.said(AGAIN, dropped)), PATIENCE)  # noqa: B023
            if not (said := sender.said(AGAIN, dropped)):
                raise Stuck(f"no connection again; it said: {sender.main.said}")
            times.append(said[0][0] - dropped)
        return sample | {"again": median(times), "worst": max(times)}
