"""A slow, bad path: 1 Mbit/s, 150 ms each way, and every hundredth packet lost.

Every tool has such a path of its own, and all of them move the same number of bytes at the
same time. bpipe is also run with a connection that is cut again and again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from bpipe.report.format import format_duration
from tests.bench.peers import BPIPE, SEALED, Session, Tool
from tests.bench.processes import Children
from tests.bench.relay import Weather
from tests.bench.rounds import Options, attempt, choose, progress, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_count, show_size, show_slow_rate
from tests.bench.throughput import transfer
from tests.bench.wire import FAR, Wire, missing

SIZE: Final = 8 << 20  # bytes
CUT: Final = 30.0  # seconds between two cuts
ROUNDS: Final = 5
PATH: Final = Weather(rate=1e6 / 8, delay=0.15, loss=0.01)

COLUMNS: Final = [
    Column("rate", "median", show_slow_rate),
    Column("rate", "worst", show_slow_rate, min),
    Column("reconnects", "reconnects", show_count, max),
    Column("again", "sent again", show_size, max),
    Column("lost", "lost", show_size, max),
]


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    tools, without = choose(options, lambda tool: tool.two_way)  # mbuffer waits for whole blocks
    amount = (options.sizes or (SIZE,))[0]
    every = (options.seconds or (CUT,))[0]
    table = table_for(tools, without, f"Slow path, {show_size(amount)}", COLUMNS)
    if why_not := missing():
        table.notes.append(f"not measured: {why_not}")
        yield table
        return
    with scratch(options) as folder:
        runs = {tool.name: partial(_measure, tool, folder, amount, None) for tool in tools}
        for tool in tools:
            if tool in (BPIPE, SEALED):
                name = f"{tool.name}, cut every {format_duration(every)}"
                runs[name] = partial(_measure, tool, folder, amount, every)
        table.samples = {name: [] for name in runs}
        for number in range(1, (options.rounds or ROUNDS) + 1):
            progress(f"{table.title}: round {number}")
            with ThreadPoolExecutor(len(runs)) as pool:
                for done in [
                    pool.submit(attempt, table, name, partial(run, number))
                    for name, run in runs.items()
                ]:
                    done.result()
        progress("")
        yield table


def _measure(tool: Tool, folder: Path, amount: int, every: float | None, seed: int) -> Sample:
    """One transfer; ``every`` so many seconds the caller drops its connection."""
    with Wire(PATH, seed=seed) as wire, Children() as children:
        session = Session(children, tool, folder, host=FAR, near=wire.near, far=wire.far)
        over = threading.Event()
        cutter = threading.Thread(target=_cut, args=(session, every, over))
        cutter.start()
        try:
            sample = transfer(session, amount)
        finally:
            over.set()
            cutter.join()
        if tool in (BPIPE, SEALED) and session.caller is not None:
            sample["reconnects"] = len(session.caller.said("^bpipe: connected again "))
            sample["again"] = session.caller.sent_again()
        return sample


def _cut(session: Session, every: float | None, over: threading.Event) -> None:
    while not over.wait(every):
        if session.caller is not None and session.caller.said("^bpipe: connected to "):
            session.caller.main.signal(signal.SIGUSR2)
