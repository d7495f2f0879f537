"""An interface goes in mid-stream, in the namespace of one of the ends: for how long nothing comes.

With two links, the device of one of the two paths goes. A thin stream goes over 10 and 40 ms; one
that always has something fills a path of 50 Mbit/s at 20 ms and one of 30 Mbit/s at 100 ms, whose
queues are as in ``path.py``. What was lost with a path comes behind what lies in the other one by
then. That is told, too: the last round trip over the path that is left, as the kernel of who sends
has it a moment before, and how long what waits there unsent takes at its rate. Nobody can overtake
the first. "Gap before" is the longest in the two seconds before that, which nobody has unplugged:
that of the machine's noise, and of packets that a full queue drops, as they come a round trip late.
"Machine" is for how long a process that only wakes every 20 ms stood still meanwhile, if it did.

With one link, it is down for a while and up again: how soon bytes come from then on.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bpipe.report.format import format_duration
from tests.bench.arrivals import Arrivals, arriving, wait_first
from tests.bench.path import CONGESTION, ORDINALS, linked, path, sleep_until, source
from tests.bench.peers import BPIPE, Session, Tool, Way
from tests.bench.processes import Child, Children, File, Stuck
from tests.bench.recovery import PATH, PIECE, STEP, lasting
from tests.bench.relay import Weather
from tests.bench.rounds import Options, progress, scratch
from tests.bench.table import Column, Sample, Table, show_milliseconds
from tests.bench.wire import FAR, Wire, ends, missing
from tests.support.pulse import Pulses

ROUNDS: Final = 5
OUTAGES: Final = (0.5, 2.5, 10.0)  # seconds, with one link
THIN: Final = Weather(delay=0.005), Weather(delay=0.02)
FULL: Final = path(50, 0.02), path(30, 0.1)
NAMES: Final = "thin", "thin-both", "full", "full-both", "again"  # of --over
SETTLED: Final = {"thin": 2.0, "full": 6.0}  # seconds after the first byte
AROUND: Final = 2.0  # seconds before and after it goes that are looked at
MARGIN: Final = 0.1  # of these: before it goes, that belong to what comes then
PATIENCE: Final = 5.0  # seconds in which bytes have to come again
WANTED: Final = {True: 0.1, False: 0.5}  # seconds: of what is sent by who has lost it; to him

_ROUND_TRIP: Final = re.compile(r"\brtt:([\d.]+)/")  # milliseconds
_UNSENT: Final = re.compile(r"\bnotsent:(\d+)")

THIN_COLUMNS: Final = [
    Column("gap", "longest gap", show_milliseconds),
    Column("gap", "worst", show_milliseconds, max),
    Column("wanted", "wanted", show_milliseconds),
    Column("before", "gap before", show_milliseconds, max),
    Column("machine", "machine", show_milliseconds, max),
]
FULL_COLUMNS: Final = [
    *THIN_COLUMNS,
    Column("trip", "round trip left", show_milliseconds),
    Column("trip", "worst", show_milliseconds, max),
    Column("unsent", "unsent there", show_milliseconds),
]
AGAIN_COLUMNS: Final = [
    Column("back", "back after", show_milliseconds),
    Column("back", "worst", show_milliseconds, max),
    Column("wanted", "wanted", show_milliseconds),
]


class Case(NamedTuple):
    """Who loses which path, and where bytes go meanwhile."""

    far: bool  # the listener
    path: int
    ways: tuple[bool, ...]  # from the caller to the listener, and back

    @property
    def loser(self) -> str:
        """Who."""
        return "listener" if self.far else "caller"

    def row(self, upward: bool) -> str:
        """What is measured of it, for people."""
        ordinal = ORDINALS[self.path]
        return f"the {self.loser} loses the {ordinal}, sent {'by' if self.by(upward) else 'to'} it"

    def by(self, upward: bool) -> bool:
        """Whether these bytes are sent by who loses it."""
        return upward is not self.far


def run(options: Options) -> Iterator[Table]:
    """A table for each kind of stream, and for each outage of the only link."""
    why_not = missing(options.congestion or CONGESTION)
    for name in options.over or NAMES:
        outages = (options.seconds or OUTAGES) if name == "again" else (0.0,)
        for outage in outages:
            table = _again(outage) if name == "again" else _table(name)
            if why_not:
                table.notes.append(f"not measured: {why_not}")
            else:
                with scratch(options) as folder:
                    _measure_all(table, name, outage, options, folder)
            yield table


def _table(name: str) -> Table:
    kind, _, both = name.partition("-")
    what = "a thin stream" if kind == "thin" else "a stream that fills both"
    title = f"One of two paths is unplugged, {what}{', both ways at once' if both else ''}"
    return Table(title, THIN_COLUMNS if kind == "thin" else FULL_COLUMNS, [])


def _again(outage: float) -> Table:
    title = f"The only link is down for {format_duration(outage)} and up again"
    return Table(title, AGAIN_COLUMNS, [])


def _cases(name: str) -> list[Case]:
    alone = [(True,), (False,)] if name in ("thin", "full") else [(True, False)]
    paths = [0] if name == "again" else [0, 1]
    return [Case(far, each, ways) for far in (False, True) for each in paths for ways in alone]


def _measure_all(table: Table, name: str, outage: float, options: Options, folder: Path) -> None:
    rounds = options.rounds or ROUNDS
    for number in range(1, rounds + 1):
        for case in _cases(name):
            progress(f"{table.title}: round {number} of {rounds}, {case.row(case.ways[0])}")
            try:
                if name == "again":
                    found = _measure_one(case, outage, folder)
                else:
                    found = _measure_two(case, name, number, options, folder)
            except (Stuck, subprocess.SubprocessError) as error:
                table.notes.append(f"{case.row(case.ways[0])}: failed: {error}")
                continue
            for row, sample in found.items():
                table.add(row, sample)
    progress("")


def _measure_two(
    case: Case, name: str, seed: int, options: Options, folder: Path
) -> dict[str, Sample]:
    """One of two links is unplugged, and stays so."""
    kind = name.partition("-")[0]
    paths = THIN if kind == "thin" else FULL
    congestion = options.congestion or CONGESTION
    with contextlib.ExitStack() as stack:
        pulses = stack.enter_context(Pulses())
        wire = stack.enter_context(Wire(*paths, seed=seed, congestion=congestion))
        flows = _flow(stack, wire, linked(2, 0, 1), folder, case.ways, full=kind == "full")
        sleep_until(max(map(wait_first, flows.values())) + SETTLED[kind])
        left = {upward: _left(wire, 1 - case.path, upward) for upward in flows}
        cut_at = time.monotonic()
        wire.unplug(case.path, far=case.far)
        sleep_until(cut_at + AROUND)
    return {
        case.row(upward): left[upward]
        | {
            "gap": arrivals.gap(cut_at - MARGIN, cut_at + AROUND),
            "before": arrivals.gap(cut_at - AROUND, cut_at),
            "wanted": WANTED[case.by(upward)],
            "machine": pulses.machine.longest(cut_at - MARGIN, cut_at + AROUND),
        }
        for upward, arrivals in flows.items()
    }


def _measure_one(case: Case, outage: float, folder: Path) -> dict[str, Sample]:
    """The only link is unplugged for a while."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(PATH))
        flows = _flow(stack, wire, BPIPE, folder, case.ways, full=False)
        sleep_until(max(map(wait_first, flows.values())) + SETTLED["thin"])
        wire.unplug(far=case.far)
        time.sleep(lasting(outage))  # this is what is measured
        wire.plug(far=case.far)
        back_at = time.monotonic()
        sleep_until(back_at + PATIENCE)
    return {
        f"at the {case.loser}'s end, sent {'by' if case.by(upward) else 'to'} it": {
            "back": arrivals.after(back_at),
            "wanted": WANTED[True],
        }
        for upward, arrivals in flows.items()
    }


def _flow(
    stack: contextlib.ExitStack,
    wire: Wire,
    tool: Tool,
    folder: Path,
    ways: Sequence[bool],
    *,
    full: bool,
) -> dict[bool, Arrivals]:
    """A session through which bytes go these ways; what comes out, for each."""
    children = stack.enter_context(Children())

    def entry(upward: bool) -> File | Child:
        if upward not in ways:
            return subprocess.DEVNULL
        return source(children) if full else subprocess.PIPE

    session = Session(children, tool, folder, way=Way.BOTH, host=FAR, near=wire.near, far=wire.far)
    far = session.listen(stdin=entry(False)).main
    near = session.connect(stdin=entry(True), stdout=subprocess.PIPE).main
    sides = {True: (near, far), False: (far, near)}
    if not full:
        entries = [sides[upward][0].stdin.fileno() for upward in ways]
        stack.enter_context(_feeding(entries))
    return {
        upward: stack.enter_context(arriving([sides[upward][1].stdout.fileno()])) for upward in ways
    }


@contextlib.contextmanager
def _feeding(entries: Sequence[int]) -> Iterator[None]:
    """A thin stream for each of these; what they do not take at once is not written."""
    over = threading.Event()

    def feed() -> None:
        with contextlib.suppress(OSError):  # as who reads what comes out
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while not over.wait(STEP):
            for entry in entries:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    os.write(entry, PIECE)

    for entry in entries:
        os.set_blocking(entry, False)
    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _left(wire: Wire, path: int, upward: bool) -> Sample:
    """What is under way to whom over the path that will be left, as who sends this way has it."""
    command = [*(wire.near if upward else wire.far), "ss", "-tinHO", "state", "established"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = told.splitlines()
    found = [line for line in lines if f" {ends(path)[0]}:" in line]
    if len(lines) != 2 or len(found) != 1:
        raise Stuck(f"there are not two connections, but {len(lines)}")
    [line] = found
    trip, unsent = _ROUND_TRIP.search(line), _UNSENT.search(line)
    return {
        "trip": float(trip[1]) / 1e3 if trip else 0.0,
        "unsent": int(unsent[1]) / wire.paths[path].rate if unsent else 0.0,
    }
