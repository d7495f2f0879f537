"""``bpipe ssh`` beside the ssh that it uses: throughput, start-up, and how soon it is back.

The server is an sshd of its own on the loopback. After a kill of the ssh process the path works;
in a black hole a proxy forwards nothing, and the clock runs from its end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

from bpipe.report.format import format_duration
from tests.bench.processes import PATIENCE, Stuck
from tests.bench.recovery import wait
from tests.bench.rounds import Options, interleave
from tests.bench.table import (
    Column,
    Sample,
    Table,
    show_middle_rate,
    show_milliseconds,
    show_seconds,
)
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Program, Start
from tests.end_to_end.recipes import Shell
from tests.end_to_end.sshd import Near, Sshd, missing

ROUNDS: Final = 5
SIZE: Final = 512 * MIB
OUTAGES: Final = (5.0, 20.0)  # seconds
TOOLS: Final = "bpipe ssh", "ssh"

RATES: Final = [
    Column("rate", "throughput", show_middle_rate),
    Column("rate", "best", show_middle_rate, max),
]
TIMES: Final = [
    Column("seconds", "median", show_milliseconds),
    Column("seconds", "best", show_milliseconds, min),
]
BACKS: Final = [
    Column("back", "back after", show_seconds),
    Column("back", "best", show_seconds, min),
    Column("back", "worst", show_seconds, max),
]


class Place:
    """A server, and who calls it."""

    def __init__(self, folder: Path, sshd: Sshd, start: Start) -> None:
        self.near = Near(Shell(start, folder), sshd)
        self.start = start
        self._far = sshd.far()

    def call(self, tool: str, command: str, *, stdin: int = DEVNULL) -> Program:
        """Run this there."""
        words = *tool.split(), str(self._far), command
        return self.near.shell.run(*words, stdin=stdin, stdout=PIPE)


def run(options: Options) -> Iterator[Table]:
    """The tables of this benchmark."""
    if why := missing():
        yield Table("bpipe ssh", TIMES, [], notes=[f"not measured: {why}"])
        return
    with contextlib.ExitStack() as stack:
        sshd = Sshd()
        stack.callback(sshd.end)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bp-")))
        place = Place(folder, sshd, stack.enter_context(Start()))
        stack.callback(place.near.shell.end)
        rounds = options.rounds or ROUNDS
        yield _table("Start-up, to the end of `true` there", TIMES, rounds, _start_up, place)
        for size in options.sizes or (SIZE,):
            for way in (_up, _down):
                title = f"{size // MIB} MiB {'up' if way is _up else 'down'}"
                yield _table(title, RATES, rounds, way, place, size)
        yield _back(place, rounds, options.seconds or OUTAGES)


def _table(
    title: str, columns: list[Column], rounds: int, sample: Callable[..., Sample], *rest: object
) -> Table:
    table = Table(title, columns, [TOOLS[0]])
    interleave(table, rounds, {tool: partial(sample, tool, *rest) for tool in TOOLS})
    return table


def _start_up(tool: str, place: Place) -> Sample:
    began = time.monotonic()
    _end(place.call(tool, "true"))
    return {"seconds": time.monotonic() - began}


def _up(tool: str, place: Place, size: int) -> Sample:
    program = place.call(tool, "echo begun; cat > /dev/null", stdin=PIPE)
    os.read(program.stdout.fileno(), 6)
    began = time.monotonic()
    subprocess.run(["head", "-c", str(size), "/dev/zero"], stdout=program.stdin, check=True)
    program.stdin.close()
    _end(program)
    return {"rate": size / (time.monotonic() - began)}


def _down(tool: str, place: Place, size: int) -> Sample:
    program = place.call(tool, f"head -c {size} /dev/zero")
    count = len(os.read(program.stdout.fileno(), 1 << 18))
    began = time.monotonic()
    while data := os.read(program.stdout.fileno(), 1 << 18):
        count += len(data)
    seconds = time.monotonic() - began
    _end(program)
    if count != size:
        raise Stuck(f"{count} bytes came")
    return {"rate": size / seconds}


def _end(program: Program) -> None:
    status = program.wait(PATIENCE)
    program.stdout.close()
    if status:
        raise Stuck(f"status {status}: {program.lines}")


def _back(place: Place, rounds: int, outages: tuple[float, ...]) -> Table:
    runs: dict[str, Callable[[], Sample]] = {"after a kill": partial(_suffer, place, 0.0)}
    for outage in outages:
        runs[f"after {format_duration(outage)} of a black hole"] = partial(_suffer, place, outage)
    table = Table("Back, with bytes from there", BACKS, [])
    interleave(table, rounds, runs)
    return table


def _suffer(place: Place, outage: float) -> Sample:
    """Bytes come from there all the time, but for a kill or an outage."""
    proxy = place.near.through(place.start)
    program = place.call(TOOLS[0], "while :; do echo here; sleep 0.05; done")
    os.read(program.stdout.fileno(), 5)
    if not outage:
        place.near.kill()
    else:
        proxy.freeze()
        time.sleep(outage)  # that is what is measured
        proxy.thaw()
    os.set_blocking(program.stdout.fileno(), False)
    _drain(program)
    began = time.monotonic()
    wait(lambda: _drain(program) > 0 or not program.running, PATIENCE)
    back = time.monotonic() - began
    running = program.running
    program.popen.terminate()
    program.wait_whatever()
    program.stdout.close()
    if not running:
        raise Stuck(f"it ended: {program.lines}")
    return {"back": back}


def _drain(program: Program) -> int:
    """Read what is there; returns how many bytes."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while data := os.read(program.stdout.fileno(), 1 << 16):
            count += len(data)
    return count
