"""``--rate``: how evenly bytes leave, beside ``pv -L`` and ``mbuffer``, and what that costs.

What leaves is noted where it arrives, by a process that does nothing else (``gauge.py``). The
producer always has something, then nothing for a while, and then again too much; bpipe also has an
outage in the midst of that. Of what has come in the worst second, and in the worst tenth of one,
the table says how many times the rate that is: wherever that second begins.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bpipe.report.format import format_size
from tests.bench import gauge
from tests.bench.peers import LOOPBACK, bpipe, free_port
from tests.bench.processes import Child, Children, wait_listening
from tests.bench.road import FAR, Road, missing
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import Column, Sample, Table

RATES: Final = (64 << 10, 1 << 20, 50 << 20)  # bytes a second
ROAD: Final = 100_000_000  # bits a second
ROUNDS: Final = 3
FIRST: Final = 6.0  # seconds that a producer always has something
PAUSE: Final = 3.0  # seconds that it has nothing
THEN: Final = 4.0  # seconds that it has something again, and the same with an outage
OUTAGE: Final = 3.0  # seconds
SETTLED: Final = 0.5  # seconds after the first byte; what the connection itself costs is over

Seen = list[tuple[float, int]]  # when something came, and how many bytes


def show_times(value: float) -> str:
    """So many times the rate."""
    return f"{value:.3f}"


def show_cpu(value: float) -> str:
    """Of one processor."""
    return f"{100 * value:.1f} %"


COLUMNS: Final = [
    Column("second", "worst 1 s", show_times, max),
    Column("tenth", "worst 0.1 s", show_times, max),
    Column("average", "average", show_times, min),
    Column("second after a pause", "after a pause: 1 s", show_times, max),
    Column("tenth after a pause", "0.1 s", show_times, max),
    Column("second after an outage", "after an outage: 1 s", show_times, max),
    Column("tenth after an outage", "0.1 s", show_times, max),
    Column("cpu", "CPU", show_cpu),
]


class Limiter(NamedTuple):
    """A command that sends its stdin to a host and port, and one that receives what bpipe sends."""

    name: str
    send: str
    receive: str = ""  # nothing: all is discarded
    needs: str = ""


LIMITERS: Final = (
    Limiter(
        "bpipe --rate",
        "exec {bpipe} connect --insecure --send-only --rate {rate} {host}:{port}",
        "{bpipe} listen --insecure --recv-only 127.0.0.1:{spare}",
    ),
    Limiter(
        "bpipe sealed",
        "exec {bpipe} connect --secret {key} --send-only --rate {rate} {host}:{port}",
        "{bpipe} listen --secret {key} --recv-only 127.0.0.1:{spare}",
    ),
    Limiter("pv -L", "pv -q -L {rate} | nc -N {host} {port}", needs="pv"),
    Limiter("mbuffer -R", "exec mbuffer -q -R {rate} -O {host}:{port}", needs="mbuffer"),
    Limiter("mbuffer -r", "exec mbuffer -q -r {rate} -O {host}:{port}", needs="mbuffer"),
)


def run(options: Options) -> Iterator[Table]:
    """A table for each rate over loopback, and over a road that is not much faster."""
    why_not = missing()
    with scratch(replace(options, sealed=True)) as folder:
        for rate in options.sizes or RATES:
            yield _table(options, rate, folder, None, [])
            if rate * 10 < ROAD:
                notes = [f"not measured: {why_not}"] if why_not else []
                yield _table(options, rate, folder, ROAD, notes)


def _table(options: Options, rate: int, folder: Path, road: int | None, notes: list[str]) -> Table:
    over = "loopback" if road is None else f"{road // 1_000_000} Mbit/s"
    table = Table(f"{format_size(rate)}/s over {over}", COLUMNS, [], notes=notes)
    if notes:
        return table
    runs: dict[str, Callable[[], Sample]] = {}
    for each in LIMITERS:
        if options.only and each.name not in options.only:
            continue
        if each.needs and not _have(each.needs):
            table.notes.append(f"without {each.name}: {each.needs} is not installed")
        else:
            runs[each.name] = partial(_measure, each, rate, folder, road)
    interleave(table, options.rounds or ROUNDS, runs)
    return table


def _have(program: str) -> bool:
    return subprocess.run(["which", program], capture_output=True).returncode == 0


def _measure(limiter: Limiter, rate: int, folder: Path, speed: int | None) -> Sample:
    with contextlib.ExitStack() as stack:
        road = None if speed is None else stack.enter_context(Road(speed))
        near, far = ((), ()) if road is None else (road.near, road.far)
        children = stack.enter_context(Children())
        port, spare = free_port(), free_port()
        fill = partial(
            str.format, bpipe=" ".join(bpipe()), rate=rate, key=folder / "key",
            host=LOOPBACK if road is None else FAR, port=port, spare=spare,
        )  # fmt: skip
        onward = [str(spare)] if limiter.receive else []
        if limiter.receive:
            wait_listening(children.start([*far, *fill(limiter.receive).split()]), port=spare)
        command = [sys.executable, "-m", gauge.__name__, str(port), str(OUTAGE), *onward]
        noted = children.start([*far, *command], stdout=subprocess.PIPE)
        wait_listening(noted, port=port)
        shell = ["sh", "-c", fill(limiter.send)]
        sender = children.start([*near, *shell], stdin=subprocess.PIPE)
        marks = _produce(sender, noted, rate, outage=bool(limiter.receive))
        cpu = _cpu(sender)
        noted.signal(signal.SIGTERM)
        with os.fdopen(os.dup(noted.stdout.fileno())) as lines:
            seen = [(float(at), int(count)) for at, count in map(str.split, lines)]
        return _judge(seen, rate, marks) | {"cpu": cpu / (time.monotonic() - marks[0])}


def _produce(sender: Child, noted: Child, rate: int, *, outage: bool) -> list[float]:
    """Write what there is at each time; returns when its parts have begun."""
    began = [time.monotonic()]
    _write(sender, int(FIRST * rate))
    time.sleep(max(0.0, began[0] + 1.05 * FIRST + PAUSE - time.monotonic()))
    began.append(time.monotonic())
    _write(sender, int(THEN * rate))
    time.sleep(max(0.0, began[1] + 1.05 * THEN - time.monotonic()))
    if outage:
        writing = threading.Thread(target=_write, args=(sender, int(THEN * rate)), daemon=True)
        writing.start()
        time.sleep(THEN / 4)
        began.append(time.monotonic() + OUTAGE)
        noted.signal(signal.SIGUSR1)
        time.sleep(OUTAGE + THEN)
        writing.join()
    return began


def _write(sender: Child, count: int) -> None:
    piece = bytes(1 << 16)
    while count:
        count -= os.write(sender.stdin.fileno(), piece[:count])


def _cpu(sender: Child) -> float:
    """CPU seconds of a command, and of what it has started."""
    children = Path(f"/proc/{sender.pid}/task/{sender.pid}/children").read_text().split()
    total = sender.cpu
    for pid in map(int, children):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | 2)
    return total


def _judge(seen: Seen, rate: int, marks: list[float]) -> Sample:
    """How many times the rate there was; ``marks``: when the parts have begun."""
    parts = [
        [each for each in seen if since <= each[0] < until]
        for since, until in zip(marks, [*marks[1:], float("inf")], strict=True)
    ]
    names = ["", " after a pause", " after an outage"]
    sample: Sample = {}
    for name, part in zip(names, parts, strict=False):
        if part:
            sample[f"second{name}"] = worst(part, 1.0) / rate
            sample[f"tenth{name}"] = worst(part, 0.1) / rate / 0.1
    if (average := _average(parts[0], int(0.9 * FIRST * rate))) is not None:
        sample["average"] = average / rate
    return sample


def _average(seen: Seen, enough: int) -> float | None:
    """Bytes a second, from a while after the first one until so many had come; None: too soon."""
    began, total, count = math.inf, 0, 0
    for at, size in seen:
        if began < math.inf:
            count += size
        elif at >= seen[0][0] + SETTLED:
            began = at
        total += size
        if total >= enough and at > began:
            return count / (at - began)
    return None


def worst(seen: Seen, seconds: float) -> int:
    """The most bytes that came in so many seconds, wherever they begin."""
    times = [at for at, _ in seen]
    sums = [0]
    for _, count in seen:
        sums.append(sums[-1] + count)
    return max(
        sums[bisect_left(times, at + seconds)] - sums[first] for first, at in enumerate(times)
    )
