"""``python -m tests.end_to_end.ssh_kills --kills 100 --size 100M --holes 5``: ssh that is killed.

One ``bpipe ssh`` whose far command sends back what it gets, and numbers its lines on stderr. Half
of the kills hit the ssh process, when a certain byte has come back; the other half are connections
that are reset or ended at a certain byte by a proxy between ssh and sshd. In a hole that proxy
forwards nothing. Then: bytes and lines are equal, the status is right, and nothing is left there.
``--statuses N`` tries so many ways of ending, each with one such cut.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from subprocess import PIPE
from typing import Final, NamedTuple

from bpipe.cli.values import duration, size
from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, Consumer, until
from tests.end_to_end.helpers import Program, Start
from tests.end_to_end.recipes import Shell
from tests.end_to_end.sshd import Far, Near, Sshd, missing
from tests.end_to_end.statuses import SIGNALS

PATIENCE: Final = 60.0  # seconds for one step
STEP: Final = 1 << 14  # bytes for each of which the far command says a line
# Bytes of one connection, up and down, within which ssh and the start of the far side are over.
BEGINNING: Final = {True: 75_000, False: 8_000}
SMALL: Final = MIB  # of memory for each direction: what has come back is soon told here
ANSWER: Final = b"an answer\n"

ECHO: Final = """\
import os, sys
count, line = 0, 0
while data := os.read(0, 1 << 16):
    count += len(data)
    while data:
        data = data[os.write(1, data):]
    while count >= (line + 1) * STEP:
        os.write(2, b"line %d\\n" % line)
        line += 1
os.write(2, b"end %d\\n" % count)
sys.exit(STATUS)
"""


class Plan(NamedTuple):
    """What is to happen to one session."""

    total: int  # bytes, each way
    kills: int  # of the ssh process
    cuts: int  # of the connection
    holes: int
    hole: float  # seconds
    status: int = 7


def random_cuts(rng: random.Random, count: int, largest: int) -> list[Cut]:
    """So many, each within so many bytes of one connection; a quarter of them early."""

    def draw() -> Cut:
        upward = rng.random() < 0.5
        most = BEGINNING[upward] if rng.random() < 0.25 else max(largest, BEGINNING[upward])
        return Cut(rng.choice((Fault.RESET, Fault.EOF)), upward, rng.randrange(most))

    return [draw() for _ in range(count)]


class Trial:
    """One session of which the way is cut."""

    def __init__(self, start: Start, near: Near, far: Far, plan: Plan, rng: random.Random) -> None:
        self.stalled: dict[str, list[float]] = {"kill": [], "hole": []}  # seconds without bytes
        self._plan = plan
        self._near = near
        self._far = far
        share = plan.total // (plan.kills + plan.cuts + 1)
        self.proxy = near.through(start, random_cuts(rng, plan.cuts, share))
        self._faults = sorted(
            [(rng.randrange(plan.total - SMALL), "kill") for _ in range(plan.kills)]
            + [(rng.randrange(plan.total - SMALL), "hole") for _ in range(plan.holes)]
        )

    def run(self, *options: str) -> list[str]:
        """Returns what was wrong."""
        plan = self._plan
        work = ECHO.replace("STEP", str(STEP)).replace("STATUS", str(plan.status))
        command, small = f"exec python3 -c '{work}'", f"--buffer={SMALL}"
        program = self._near.ssh(self._far, command, small, *options, stdin=PIPE, stdout=PIPE)
        producer, consumer = program.feed(plan.total), program.drain()
        sockets: set[str] = set()
        for offset, fault in self._faults:
            until(
                lambda: consumer.count >= offset or not program.running,  # noqa: B023
                lambda: f"byte {offset}: {consumer.count}, {program.lines}",  # noqa: B023
                PATIENCE,
            )
            sockets |= self._far.sockets()
            before = self._make(fault, consumer)
            if before >= plan.total:
                break  # all that was to come is here
            began, enough = time.monotonic(), min(before + MIB, plan.total)  # more than is here
            until(
                lambda: consumer.count >= enough or not program.running,  # noqa: B023
                lambda: f"bytes after a {fault} at {before}: {program.lines}",  # noqa: B023
                PATIENCE,
            )
            self.stalled[fault].append(time.monotonic() - began)
        came = consumer.wait_end(PATIENCE * 5)
        status = program.wait(PATIENCE)
        self._far.wait_nothing_left(sockets)
        wrong = [] if came == producer.written == plan.total else [f"{came} bytes came back"]
        wrong += [] if status == plan.status else [f"status {status}"]
        return wrong + check_lines(program, plan.total)

    def _make(self, fault: str, consumer: Consumer) -> int:
        """Make a fault; returns how many bytes had come back when it was over."""
        if fault == "kill":
            until(lambda: self._near.kill_now() or consumer.count >= self._plan.total, "an ssh")
            return consumer.count
        self.proxy.freeze()
        time.sleep(self._plan.hole)  # that is the hole
        before = consumer.count
        self.proxy.thaw()
        return before


def check_lines(program: Program, total: int) -> list[str]:
    """What is wrong with the lines of the far command, besides which bpipe says its own."""
    said = [line for line in program.lines if not line.startswith("bpipe: ")]
    wanted = [*(f"line {n}" for n in range(total // STEP)), f"end {total}"]
    if said == wanted:
        return []
    at = next(
        (n for n, pair in enumerate(zip(said, wanted, strict=False)) if pair[0] != pair[1]),
        min(len(said), len(wanted)),
    )
    return [f"stderr: {len(said)} lines of {len(wanted)}; at {at}: {said[at : at + 3]}"]


# --- statuses ---


def endings() -> list[tuple[str, int]]:
    """All the ways to end: what a shell does, and the status that says so."""
    exits = [(f"exit {number}", number) for number in range(256)]
    signals = [(f"kill -{name} $$", 128 + signal.Signals[f"SIG{name}"]) for name in SIGNALS]
    return exits + signals


def try_ending(
    start: Start, folder: Path, sshd: Sshd, far: Far, ending: tuple[str, int], cut: Cut | None
) -> list[str]:
    """Let the far command end like this; returns what was wrong."""
    folder.mkdir()
    shell = Shell(start, folder)
    near = Near(shell, sshd)
    if cut is not None:
        near.through(start, [cut])
    how, wanted = ending
    program = near.ssh(far, f"ulimit -c 0; cat; echo an answer; {how}", stdout=PIPE)
    answer, status = program.read_all(), program.wait(PATIENCE)
    if answer == ANSWER and status == wanted:
        return []
    return [f"{how}: {status}, {answer!r}, {program.lines}; {cut}"]


def try_endings(
    start: Start,
    folder: Path,
    sshd: Sshd,
    wanted: list[tuple[str, int]],
    rng: random.Random,
    jobs: int = 4,
) -> list[str]:
    """Try all of these, some at once; returns what was wrong."""
    far = sshd.far()
    cuts = random_cuts(rng, len(wanted), 0)
    with ThreadPoolExecutor(jobs) as pool:
        found = [
            pool.submit(try_ending, start, folder / f"e{n}", sshd, far, ending, cut)
            for n, (ending, cut) in enumerate(zip(wanted, cuts, strict=True))
        ]
        wrong = [each for one in found for each in one.result()]
    far.wait_nothing_left()
    return wrong


# --- the tool ---


@contextlib.contextmanager
def everything() -> Iterator[tuple[Start, Path, Sshd]]:
    """What a trial needs."""
    with tempfile.TemporaryDirectory(prefix="bp-") as folder, Start() as start:
        sshd = Sshd()
        try:
            yield start, Path(folder), sshd
        finally:
            sshd.end()


def _times(trial: Trial) -> Iterator[str]:
    for fault, times in trial.stalled.items():
        if times:
            yield f"{fault}: {median(times):.2f} s, at most {max(times):.2f} s, {len(times)} times"


def _play(options: argparse.Namespace, rng: random.Random) -> list[str]:
    kills = options.kills // 2
    plan = Plan(options.size, kills, options.kills - kills, options.holes, options.hole)
    with everything() as (start, folder, sshd):
        shell = Shell(start, folder)
        trial = Trial(start, Near(shell, sshd), sshd.far(), plan, rng)
        try:
            wrong = trial.run(*options.option)
        finally:
            shell.end()
    made = len(trial.proxy.faults.made)
    kills, holes = (len(trial.stalled[fault]) for fault in ("kill", "hole"))
    print(f"made     {made} cuts, {kills} kills, {holes} holes")
    for line in _times(trial):
        print(f"stalled  {line}")
    return wrong


def _end(options: argparse.Namespace, rng: random.Random) -> list[str]:
    wanted = rng.sample(endings(), min(options.statuses, len(endings())))
    with everything() as (start, folder, sshd):
        wrong = try_endings(start, folder, sshd, wanted, rng)
    print(f"endings  {len(wanted)} of {len(endings())}")
    return wrong


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.ssh_kills")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--size", type=size, default=100 * MIB)
    parser.add_argument("--holes", type=int, default=5)
    parser.add_argument("--hole", type=duration, default=20.0, help="how long one is")
    parser.add_argument("--statuses", type=int, default=0, help="so many; 999: all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--option", action="append", default=[], help="one of bpipe ssh")
    options = parser.parse_args()
    if why := missing():
        print(why)
        return 2
    print(f"seed     {options.seed}")
    began, rng = time.monotonic(), random.Random(options.seed)
    wrong = _end(options, rng) if options.statuses else _play(options, rng)
    for each in wrong:
        print(f"WRONG    {each}")
    said = "failed" if wrong else "all of it came once and in order, and nothing is left"
    print(f"verdict  {said}; {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
