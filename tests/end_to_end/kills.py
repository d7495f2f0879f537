"""``python -m tests.end_to_end.kills --kills N``: two processes and their programs, killed.

A listener with a program that reads, a caller that has one that writes, or its stdin. One or two of
them are killed when the reader has read a certain byte, or the writer has written it, by who has
done that (``kills_actor``). Afterwards nobody may have taken a part for the whole: no program has
seen the end of a stream that was cut short, no bpipe exits 0 for one, and no process is left. Some
runs have nobody killed, and end well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from bpipe.cli.keys import write_key
from tests.end_to_end import kills_actor
from tests.end_to_end.data import until
from tests.end_to_end.helpers import Bpipe, Start
from tests.end_to_end.kills_actor import STEP, Killer, produce
from tests.end_to_end.quota import Quota

ENDS_WITHIN: Final = 3.0  # seconds after the other end; an end that knows less may wait for 300
PATIENCE: Final = 40.0  # seconds
MOST: Final = 3 << 20  # bytes of a stream

# How often each kind of consumer is drawn. Behind the first reader is the one that counts, unless
# that is left behind (setsid, and those below that are shared): then nobody waits for its end.
KINDS: Final = {
    "plain": 6,
    "behind cat": 4,
    "setsid behind cat": 3,
    "timeout": 3,
    "setsid --wait": 3,
    "setsid": 2,
    "deaf": 3,
    "deaf behind cat": 2,
    "stubborn": 1,
    "left by its parent": 3,
    "forks": 2,
}
READERS: Final = 2  # of one that is left by its parent, which reads as well
LEAVES: Final = ("setsid", "left by its parent", "forks")  # readers for whom nobody waits


class Plan(NamedTuple):
    """What is to happen in one run."""

    kind: str  # of the consumer
    total: int  # bytes
    answer: int  # bytes of the consumer, after the end
    producer: str  # "stdin", "program", or "fails": one that exits 1
    killer: str  # "consumer", "producer", or "nobody"
    at: str  # see `kills_actor`
    kills: str
    unix: bool

    @property
    def whole(self) -> bool:
        """Whether it is to end well."""
        return self.killer == "nobody" and self.producer != "fails"


def draw(rng: random.Random) -> Plan:
    """What happens in the run to which this generator belongs."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    total = rng.choice((0, 1, 1000, rng.randrange(MOST), rng.randrange(MOST), STEP))
    producer = rng.choices(("stdin", "program", "fails"), (4, 4, 1))[0]
    answers = producer == "stdin" and kind not in LEAVES
    answer = rng.choice((0, 10, 100_000)) if answers else 0
    killer = rng.choices(("consumer", "producer", "nobody"), (5, 4, 1))[0]
    at = rng.choice((str(rng.randint(0, total)), str(rng.randint(0, total)), "0", "end"))
    victims = ["listener", "caller", "program"]
    victims += ["reader"] if killer == "consumer" else []
    victims += ["producer"] if producer != "stdin" else []
    hit = rng.sample(victims, rng.choice((1, 1, 2)))
    kills = ",".join(f"{each}:{rng.choice((9, 15))}" for each in hit)
    return Plan(kind, total, answer, producer, killer, at, kills, rng.random() < 0.5)


class Run:
    """One of them: two processes of bpipe, and what they start."""

    def __init__(self, start: Start, plan: Plan, folder: Path, options: list[str]) -> None:
        self.plan = plan
        self.folder = folder
        self.nudged = False  # an end was told not to wait for the other one any longer
        self.written = False  # all that stdin was to get
        self.answered = 0  # bytes
        self._start = start
        self._options = ["--give-up-after", "1s", *options]
        self._threads: list[threading.Thread] = []
        self.listener, self.caller = self._begin()

    def _begin(self) -> tuple[Bpipe, Bpipe]:
        plan, where = self.plan, "127.0.0.1:0"
        # The one variable that also the guard's process gets.
        shell = f'export LD_LIBRARY_PATH={self.folder}; exec "$@"'
        if plan.unix:
            where = f"unix:{self.folder / 's'}"
        command = "listen", where, *self._options, "--", *self._consumer()
        listener = self._start.bpipe(*command, shell=shell)
        self._tell("listener", listener)
        if not plan.unix:
            where = listener.address
        program = [] if plan.producer == "stdin" else ["--", *self._actor("producer")]
        caller = self._start.bpipe(
            *("connect", where, *self._options, "--retry-max", "50ms", *program),
            stdin=subprocess.DEVNULL if program else subprocess.PIPE,
            stdout=subprocess.PIPE,
            shell=shell,
        )
        self._tell("caller", caller)
        return listener, caller

    def watch(self) -> None:
        """Feed it, and read what it answers."""
        self._threads.append(threading.Thread(target=self._drain))
        if self.plan.producer == "stdin":
            self._threads.append(threading.Thread(target=self._feed))
        for thread in self._threads:
            thread.start()

    def _tell(self, name: str, bpipe: Bpipe) -> None:
        (self.folder / "new").write_text(str(bpipe.pid))
        (self.folder / "new").rename(self.folder / f"{name}.pid")

    def _actor(self, role: str, manner: str = "plain") -> list[str]:
        plan = self.plan
        kills = plan.kills if plan.killer == role else ""
        amount = plan.answer if role == "consumer" else plan.total
        if role == "producer" and plan.producer == "fails":
            manner = "fails"
        command = [sys.executable, "-I", "-S", kills_actor.__file__, str(self.folder)]
        return [*command, role, manner, str(amount), plan.at, kills]

    def _consumer(self) -> list[str]:
        kind = self.plan.kind
        before, _, _ = kind.partition(" behind cat")
        manner = before if before in ("deaf", "stubborn", "forks") else "plain"
        actor = self._actor("consumer", manner)
        if kind == "left by its parent":
            words = shlex.join(actor)
            return ["sh", "-c", f"exec 3<&0; (cat <&3 | {words} & ); exec {words} 3<&-"]
        if kind.endswith("behind cat"):
            before = "setsid --wait" if before == "setsid" else ""
            return ["sh", "-c", f"cat | {before} {shlex.join(actor)}"]
        starters = {"timeout": ["timeout", "99"], "setsid": ["setsid"]}
        starters["setsid --wait"] = ["setsid", "--wait"]
        return [*starters.get(kind, []), *actor]

    def _feed(self) -> None:
        plan = self.plan
        killer = Killer(str(self.folder), plan.at, plan.kills if plan.killer == "producer" else "")
        with contextlib.suppress(BrokenPipeError), self.caller.stdin as file:
            produce(file.fileno(), plan.total, killer)
            self.written = True

    def _drain(self) -> None:
        while data := os.read(self.caller.stdout.fileno(), STEP):
            self.answered += len(data)

    # --- its end ---

    def finish(self) -> list[int]:
        """Wait for all that belongs to it; returns the statuses of listener and caller."""
        ends = self.listener, self.caller
        until(lambda: not all(each.running for each in ends), "an end", PATIENCE)
        for each in ends:
            try:
                each.popen.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.nudged = True
                each.signal(signal.SIGTERM)
        statuses = [each.wait_whatever(PATIENCE) for each in ends]
        for each in ends:
            assert "Traceback" not in each.text, each.text
        for thread in self._threads:
            thread.join(PATIENCE)
        until(lambda: not self._left(), lambda: f"the end of {self._left()}", PATIENCE)
        return statuses

    def _left(self) -> list[str]:
        """The processes that are left."""
        mark = f"LD_LIBRARY_PATH={self.folder}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes() + b"\0":
                    found.append((path / "cmdline").read_text().replace("\0", " "))
        return found


class Evidence(NamedTuple):
    """What the programs have left in the folder of a run."""

    kills: list[str]  # like ``listener:9``
    read: int  # bytes, by all readers together
    begun: set[str]  # the pids of readers
    whole: set[str]  # of those that saw the end
    ended: set[str]  # of those that did all that they had to do
    produced: bool  # the program that wrote ended well

    @classmethod
    def found(cls, folder: Path) -> Evidence:
        """In this folder."""
        killed = folder / "killed"
        counts = {each.suffix[1:]: each for each in folder.glob("begun.*[0-9]")}
        return cls(
            kills=killed.read_text().split() if killed.exists() else [],
            read=sum(int.from_bytes(each.read_bytes()[:8], "little") for each in counts.values()),
            begun=set(counts),
            whole={each.suffix[1:] for each in folder.glob("whole.*")},
            ended={each.suffix[1:] for each in folder.glob("ended.consumer.*")},
            produced=any(folder.glob("ended.producer.*")),
        )


def judge(run: Run, found: Evidence, statuses: list[int]) -> list[str]:
    """What was wrong."""
    plan, wrong = run.plan, []
    produced = run.written if plan.producer == "stdin" else found.produced
    # One that was killed may have read a last piece that it has not counted.
    uncounted = STEP * len(found.begun - found.whole)
    if plan.kind == "left by its parent" and len(found.whole) < READERS:
        uncounted = plan.total  # the other reader may have had any part of it, and not begun
    complete = produced and plan.total - uncounted <= found.read <= plan.total
    if found.whole and not complete:
        wrong.append("a false end of file")
    if found.read > plan.total:
        wrong.append("more was read than was written")
    served = plan.kind in LEAVES or found.begun == found.ended
    for name, status in zip(("listen", "connect"), statuses, strict=True):
        if status == 0 and not (complete and served):
            wrong.append(f"a false 0 of {name}")
        if status == 0 and run.answered != plan.answer:
            wrong.append(f"a false 0 of {name}: {run.answered} bytes came back")
        if status not in (0, 141) and plan.whole and plan.kind == "setsid":
            wrong.append(f"{name} exits {status}, and nobody was killed")
        if status != 0 and plan.whole and plan.kind != "setsid":
            wrong.append(f"{name} exits {status}, and nobody was killed")
    return wrong


class Tally(Quota):
    """What came of all runs; what happens are kills."""

    def __init__(self, kills: int, seed: int, sealed: bool) -> None:
        super().__init__(kills, seed)
        self.kinds: Counter[str] = Counter()  # of consumers, killed or not
        self.whole = self.quiet = self.nudged = 0
        self.sealed = sealed

    def note(self, run: Run, found: Evidence, statuses: list[int]) -> None:
        """A run is over."""
        with self._lock:
            self.runs += 1
            self.whole += bool(found.whole)
            self.quiet += not found.kills
            self.nudged += run.nudged
            self.kinds[run.plan.kind] += 1
            self.happened.update(_words(each) for each in found.kills)
            names = zip(("listen", "connect"), statuses, strict=True)
            self.statuses.update(f"{name} {status}" for name, status in names)
            self._show()

    def line(self) -> str:
        """Where it stands."""
        return (
            f"{self.happened.total()} kills in {self.runs} runs, {self.quiet} of them without one;"
            f" {self.whole} ended whole, {self.nudged} were nudged; {self.seconds:.0f} s"
        )


def _words(kill: str) -> str:
    name, _, number = kill.partition(":")
    return f"{name} {signal.Signals(int(number)).name}"


def play(number: int, tally: Tally, folder: Path) -> None:
    """One run, from its number alone."""
    plan = draw(random.Random(f"{tally.seed}/{number}"))
    within = folder / str(number)
    within.mkdir()
    options = ["--secret", str(folder / "key")] if tally.sealed else []
    with Start() as start:
        try:
            run = Run(start, plan, within, options)
            run.watch()
            statuses = run.finish()
        except BaseException as error:  # what pytest raises is no Exception
            tally.fail(f"run {number}: {error!r}: {plan}")
            return
        found = Evidence.found(within)
        said = f"{statuses} {run.listener.lines[-3:]} {run.caller.lines[-3:]}"
        for each in judge(run, found, statuses):
            tally.fail(f"run {number}: {each}: {plan} {found} {said}")
        tally.note(run, found, statuses)


def kill(tally: Tally, jobs: int, folder: Path, only: int | None = None) -> None:
    """Play until there were enough kills; or one run, again."""
    write_key(folder / "key")
    tally.play(lambda number: play(number, tally, folder), jobs, only)


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--only", type=int, help="the number of the one run to play")
    options = parser.parse_args()
    tally = Tally(options.kills, options.seed, options.sealed)
    with tempfile.TemporaryDirectory(prefix="bpipe-kills-") as folder:
        kill(tally, options.jobs, Path(folder), options.only)
    print(f"seed      {options.seed}{', sealed' if options.sealed else ''}")
    print(f"total     {tally.line()}")
    told = {"kills": tally.happened, "kinds": tally.kinds, "statuses": tally.statuses}
    for name, counts in told.items():
        print(f"{name:10}" + ", ".join(f"{each} {n}" for each, n in sorted(counts.items())))
    for each in tally.wrong:
        print(f"WRONG     {each}")
    print("verdict   " + ("failed" if tally.wrong else "no false end, no false 0, nobody left"))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
