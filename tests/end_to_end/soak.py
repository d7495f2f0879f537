"""``python -m tests.end_to_end.soak --cuts N``: two processes, and a network that keeps breaking.

Several pairs of bpipe run side by side. Through each, verified bytes go both ways without an end,
through a proxy that breaks every connection at a random byte, until so many cuts have been
survived. Then the producers end, and both ends have to report that everything was delivered.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bpipe.cli.keys import write_key
from bpipe.cli.values import size
from bpipe.demo.faults import Fault, random_cuts
from bpipe.report.format import format_size
from tests.end_to_end.data import MIB, Consumer, Producer
from tests.end_to_end.helpers import Bpipe, Start

HEARTBEAT = "0.1"  # seconds, so that a silent link is soon given up
BUFFER = "8M"  # so that the end does not take long
REACH = 4 * MIB  # bytes into a connection: the furthest cut
KEY = "key"  # in the folder
STUCK = 60.0  # seconds without a cut anywhere after which something is wrong


class Pair:
    """Two ends, and the proxy between them."""

    def __init__(self, start: Start, number: int, seed: int, folder: Path) -> None:
        unix, sealed = number % 2 == 1, number // 2 % 2 == 1
        self._options = ["--heartbeat", HEARTBEAT, "--buffer", BUFFER]
        if sealed:
            self._options += ["--secret", str(folder / KEY)]
        where = f"unix:{folder / f'{number}.listener'}" if unix else "127.0.0.1:0"
        self.listener = self._start(start, "listen", where)
        cuts = random_cuts(random.Random(seed), 10**9, REACH)
        path = folder / f"{number}.proxy" if unix else None
        self.proxy = start.proxy(self.listener.address, cuts, path)
        self.caller = self._start(start, "connect", self.proxy.address)
        self.number = number
        self.producers = [
            Producer(each.stdin, None, offset)
            for offset, each in enumerate((self.listener, self.caller))
        ]
        self.consumers = [
            Consumer(each.stdout, offset)
            for offset, each in enumerate((self.caller, self.listener))
        ]

    def _start(self, start: Start, command: str, address: str) -> Bpipe:
        pipe = subprocess.PIPE
        return start.bpipe(command, address, *self._options, stdin=pipe, stdout=pipe)

    @property
    def ends(self) -> tuple[Bpipe, Bpipe]:
        """The two processes."""
        return self.listener, self.caller

    @property
    def made(self) -> int:
        """The cuts so far."""
        return len(self.proxy.faults.made)

    def finish(self) -> list[str]:
        """End the streams; returns what was wrong."""
        wrong = []
        for producer in self.producers:
            producer.finish()
        for consumer in self.consumers:
            consumer.thread.join(STUCK)
        for end in self.ends:
            if (status := end.wait(STUCK)) != 0:
                wrong.append(f"pair {self.number}: exit status {status}: {end.lines[-3:]}")
        for producer, consumer in zip(self.producers, self.consumers, strict=True):
            if consumer.wrong is not None:
                wrong.append(f"pair {self.number}: a wrong byte near {consumer.wrong}")
            if consumer.count != producer.written:
                wrong.append(f"pair {self.number}: {consumer.count} of {producer.written} bytes")
        return wrong

    @property
    def replayed(self) -> int:
        """The bytes that were sent again, as the ends say."""
        said = [
            re.search(r", ([\d.]+ \w+) sent again", line) for e in self.ends for line in e.lines
        ]
        return sum(size(found[1].replace(" ", "")) for found in said if found)


class Outcome(NamedTuple):
    """What a soak came to."""

    cuts: Counter[Fault]
    moved: int  # bytes, both ways
    replayed: int
    longest_stall: float  # seconds without a byte in one direction
    wrong: list[str]


def soak(cuts: int, pairs: int, seed: int, folder: Path) -> Outcome:
    """Survive so many cuts, in so many pairs: plain over TCP and a Unix socket, then sealed."""
    write_key(folder / KEY)
    stall = 0.0
    with Start() as start:
        group = [Pair(start, number, seed + number, folder) for number in range(pairs)]
        streams = {each: (0, time.monotonic()) for pair in group for each in pair.consumers}
        made, since = 0, time.monotonic()
        shown = since
        while (now_made := sum(pair.made for pair in group)) < cuts:
            now = time.monotonic()
            if now_made > made:
                made, since = now_made, now
            if now - since > STUCK:
                break
            for each, (count, at) in streams.items():
                if each.count > count:
                    stall = max(stall, now - at)
                    streams[each] = each.count, now
            if now - shown > 10:
                shown = now
                print(f"{now_made} of {cuts} cuts", flush=True)
            time.sleep(0.02)
        wrong = [] if now_made >= cuts else [f"stuck after {now_made} cuts"]
        for pair in group:
            wrong += pair.finish()
        kinds = Counter(cut.fault for pair in group for cut in pair.proxy.faults.made)
        moved = sum(each.count for each in streams)
        return Outcome(kinds, moved, sum(pair.replayed for pair in group), stall, wrong)


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.soak", description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bpipe-soak-") as folder:
        outcome = soak(options.cuts, options.pairs, options.seed, Path(folder))
    kinds = ", ".join(f"{count} {fault}" for fault, count in outcome.cuts.most_common())
    print(f"seed           {options.seed}, {options.pairs} pairs")
    print(f"cuts           {outcome.cuts.total()} ({kinds})")
    print(f"bytes          {format_size(outcome.moved)}, all of them compared")
    print(f"sent again     {format_size(outcome.replayed)}")
    print(f"longest stall  {outcome.longest_stall:.1f} s")
    print(f"time           {time.monotonic() - began:.0f} s")
    for each in outcome.wrong:
        print(f"WRONG          {each}")
    print("verdict        " + ("failed" if outcome.wrong else "not one byte lost or doubled"))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
