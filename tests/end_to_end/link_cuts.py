"""``python -m tests.end_to_end.link_cuts --cuts 10000 --links 3``: sessions of several links, cut.

Each session is two processes, with verified bytes both ways, plain or sealed, over TCP or a Unix
socket. All of its links go through one proxy that breaks each at a random byte, also of a greeting;
now and then several at once, or all, and where there is a secret it spoils a byte, too. Some
sessions are short, so that their ends are cut; in some a stream ends soon, or is not wanted, and
the other goes on. These end when so many cuts were made. At both ends every byte and the exit
status are right, and memory and descriptors stay within a bound. Of the longest time without a byte
it is told how much of that its proxy, this tool or the whole machine stood still.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE
from typing import Final, NamedTuple

from bpipe.cli.keys import write_key
from bpipe.demo.faults import GREETING_SIZE, Cut, Fault, random_cuts
from bpipe.report.format import format_size
from tests.end_to_end.data import MIB, Consumer
from tests.end_to_end.helpers import Bpipe, Proxy, Start
from tests.support.pulse import Pulse, Pulses

OPTIONS: Final = "--heartbeat", "100ms", "--buffer", "1M", "--give-up-after", "30s"
BOUND: Final = 42 * MIB  # of memory: the program, and a buffer for each direction
SEALING: Final = 14 * MIB  # what encryption takes beside that
DESCRIPTORS: Final = 24, 4  # of a process at most; and for each link: one, and for who calls anew
MOST: Final = 240  # cuts of one session
REACH: Final = 1 << 18  # bytes into a connection: the furthest cut
LOGS: Final = "listener.log", "caller.log"
SHORT: Final = 0, 1, 5_000, 300_000  # bytes: lengths of a stream in a short session
SHORT_REACH: Final = 4_000
STRIKE: Final = 0.08  # of the cuts hit several links at once
SPOIL: Final = 0.03  # of the sealed connections have a byte spoilt
STUCK: Final = 60.0  # seconds without a byte, or until the end, after which something is wrong


class Plan(NamedTuple):
    """Of one session."""

    links: int
    sealed: bool
    unix: bool
    totals: tuple[int | None, int | None]  # bytes that each sends, the listener and the caller;
    # None: until there were the cuts
    cuts: int
    retry_max: str
    half: bool = False  # nothing of the shorter one is wanted at either end

    @property
    def short(self) -> bool:
        """Whether its end is soon there."""
        return None not in self.totals

    @property
    def directions(self) -> tuple[list[str], list[str]]:
        """What the listener is told of that, and the caller."""
        if not self.half:
            return [], []
        one, other = ["--send-only"], ["--recv-only"]
        return (one, other) if self.totals[0] is None else (other, one)

    def fates(self, rng: random.Random) -> Iterator[Cut]:
        """The cuts, in the direction in which bytes go: both, or that of the longer stream."""
        most, reach = (self.cuts, SHORT_REACH) if self.short else (10**9, REACH)
        busy = [upward for upward in (False, True) if self.short or self.totals[upward] is None]
        for cut in random_cuts(rng, most, reach):
            early = cut.offset < GREETING_SIZE
            yield cut if early else cut._replace(upward=rng.choice(busy))


def draw(rng: random.Random, links: int, retry_max: str, most: int) -> Plan:
    """One of the sessions."""
    kind = rng.choices(("both", "one", "half", "short"), weights=(9, 2, 2, 4))[0]
    few, many = rng.choice(SHORT), rng.choice(SHORT) if kind == "short" else None
    few = 0 if kind == "half" else few
    totals = (None, None) if kind == "both" else rng.choice(((few, many), (many, few)))
    cuts = rng.randint(1, 10) if kind == "short" else rng.randint(most // 3, most)
    sealed, unix = rng.random() < 0.5, rng.random() < 0.3
    return Plan(links, sealed, unix, totals, cuts, retry_max, kind == "half")


class Weather:
    """What befalls the connections of a session beside their cuts; sees all that is relayed."""

    def __init__(self, rng: random.Random, plan: Plan) -> None:
        self.made: Counter[str] = Counter()
        self.proxy: Proxy | None = None
        self._rng = rng
        self._plan = plan
        self._reach = SHORT_REACH if plan.short else REACH
        self._seen = 0  # cuts
        self._spoils: dict[tuple[int, bool], int] = {}  # at which byte of which connection

    def __call__(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        assert self.proxy is not None
        faults = self.proxy.faults
        if len(faults.made) > self._seen:
            self._seen = len(faults.made)
            if self._rng.random() < STRIKE:
                count = self._rng.randint(2, self._plan.links)
                fault = self._rng.choice((Fault.RESET, Fault.RESET, Fault.EOF, Fault.SILENCE))
                faults.strike(fault, count)
                self.made["all at once" if count == self._plan.links else "several at once"] += 1
        return self._spoil(connection, upward, offset, data) if self._plan.sealed else data

    def _spoil(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        key = connection, upward
        if not offset and self._rng.random() < SPOIL:
            early = self._rng.random() < 0.25
            self._spoils[key] = self._rng.randrange(GREETING_SIZE if early else self._reach)
        place = self._spoils.get(key, -1) - offset
        if not 0 <= place < len(data):
            return data
        self.made["a byte spoilt"] += 1
        return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


class Stall(NamedTuple):
    """A time in which no byte came in one direction of a session."""

    seconds: float = 0.0
    until: float = 0.0  # time.monotonic()
    proxy: float = 0.0  # seconds: the longest of these in which the session's proxy stood still


class Outcome(NamedTuple):
    """What one session came to, or all of them."""

    cuts: Counter[Fault]
    beside: Counter[str]
    connections: int = 0
    sessions: int = 0
    moved: int = 0  # bytes, both ways
    replayed: int = 0
    stall: Stall = Stall()  # the longest
    memory: int = 0  # bytes: the most of a process
    sealed: int = 0  # the same, where links are sealed
    descriptors: int = 0
    wrong: tuple[str, ...] = ()

    def plus(self, other: Outcome) -> Outcome:
        """Both."""
        return Outcome(
            self.cuts + other.cuts,
            self.beside + other.beside,
            self.connections + other.connections,
            self.sessions + other.sessions,
            self.moved + other.moved,
            self.replayed + other.replayed,
            max(self.stall, other.stall),
            max(self.memory, other.memory),
            max(self.sealed, other.sealed),
            max(self.descriptors, other.descriptors),
            self.wrong + other.wrong,
        )


NOTHING: Final = Outcome(Counter(), Counter())


class Trial:
    """One session."""

    def __init__(self, start: Start, plan: Plan, folder: Path, key: Path, seed: int) -> None:
        self._plan = plan
        self._seed = seed
        rng = random.Random(seed)
        options = [*OPTIONS, *(["--secret", str(key)] if plan.sealed else [])]
        where = f"unix:{folder / 'l'}" if plan.unix else "127.0.0.1:0"
        self._logs = [folder / name for name in LOGS]
        listening, calling = (
            ["--log-json", str(log), *direction]
            for log, direction in zip(self._logs, plan.directions, strict=True)
        )
        self.listener = start.bpipe("listen", where, *options, *listening, stdin=PIPE, stdout=PIPE)
        self.weather = Weather(rng, plan)
        cuts = plan.fates(random.Random(seed + 1))
        path = folder / "p" if plan.unix else None
        self.proxy = start.proxy(self.listener.address, cuts, path, self.weather)
        self.weather.proxy = self.proxy
        self.caller = start.bpipe(
            *("connect", self.proxy.address, "--links", str(plan.links), *options),
            *("--retry-max", plan.retry_max, *calling),
            stdin=PIPE,
            stdout=PIPE,
        )
        self.producers = [
            each.feed(total, offset)
            for offset, (each, total) in enumerate(zip(self.ends, plan.totals, strict=True))
        ]
        self.consumers = [
            each.drain(offset) for offset, each in enumerate((self.caller, self.listener))
        ]
        self._most: dict[Bpipe, int] = dict.fromkeys(self.ends, 0)
        self._descriptors = 0
        self._stall = Stall()
        self._pulse = Pulse()
        self.proxy.watch(self._pulse)

    @property
    def ends(self) -> tuple[Bpipe, Bpipe]:
        """The two processes."""
        return self.listener, self.caller

    @property
    def made(self) -> int:
        """The cuts so far."""
        return len(self.proxy.faults.made)

    def run(self, over: threading.Event) -> Outcome:
        """Until so many cuts were made, or this is over; and then to the end of both."""
        wrong = []
        if not self._watch(over):
            wrong.append(f"stuck after {self.made} cuts, {[c.count for c in self.consumers]}")
        for producer, total in zip(self.producers, self._plan.totals, strict=True):
            if total is None:
                producer.finish()
        wrong += self._judge()
        done = [json.loads(log.read_text().splitlines()[-1]) for log in self._logs if log.exists()]
        memory = max(self._most.values())
        return Outcome(
            Counter(cut.fault for cut in self.proxy.faults.made),
            self.weather.made,
            self.proxy.faults.connections,
            1,
            sum(each.count for each in self.consumers),
            sum(each.get("replayed", 0) for each in done),
            self._stall,
            0 if self._plan.sealed else memory,
            memory if self._plan.sealed else 0,
            self._descriptors,
            tuple(f"seed {self._seed}, {self._plan}: {each}" for each in wrong),
        )

    def _watch(self, over: threading.Event) -> bool:
        """Look on until it is time to end; returns whether bytes came all the time."""
        seen = {each: (0, time.monotonic()) for each in self.consumers}
        while self.made < self._plan.cuts and not over.is_set() and self._look():
            now = time.monotonic()
            for each, (count, at) in seen.items():
                if each.count > count:
                    if count:
                        stall = Stall(now - at, now, self._pulse.longest(at, now))
                        self._stall = max(self._stall, stall)
                    seen[each] = each.count, now
                elif now - at > STUCK and each.thread.is_alive():
                    return False
            time.sleep(0.02)
        return True

    def _look(self) -> bool:
        """At memory and descriptors; returns whether both run."""
        for each in self.ends:
            try:
                self._most[each] = max(self._most[each], each.peak_memory)
                many = len(os.listdir(f"/proc/{each.pid}/fd"))
                self._descriptors = max(self._descriptors, many)
            except (OSError, AssertionError):  # it has ended
                return False
        return True

    def _judge(self) -> list[str]:
        wrong, patience = [], time.monotonic() + STUCK
        while all(each.running for each in self.ends) and time.monotonic() < patience:
            self._look()
            time.sleep(0.02)
        for name, each in zip(("listener", "caller"), self.ends, strict=True):
            try:
                if (status := each.wait(STUCK)) != 0:
                    wrong.append(f"the {name}'s exit status is {status}: {each.lines[-3:]}")
            except AssertionError as error:
                wrong.append(f"the {name}: {error}"[-600:])
            if self._most[each] > BOUND + self._plan.sealed * SEALING:
                wrong.append(f"the {name} had {format_size(self._most[each])}")
        least, more = DESCRIPTORS
        if self._descriptors > least + more * self._plan.links:
            wrong.append(f"{self._descriptors} descriptors")
        for producer, consumer in zip(self.producers, self.consumers, strict=True):
            wrong += _compare(producer.written, consumer)
        return wrong


def _compare(written: int, consumer: Consumer) -> list[str]:
    consumer.thread.join(1.0)
    wrong = [] if consumer.count == written else [f"{consumer.count} of {written} bytes"]
    return wrong + ([] if consumer.wrong is None else [f"a wrong byte near {consumer.wrong}"])


class Cuts:
    """All of them, in some sessions at a time."""

    def __init__(self, wanted: int, seed: int, folder: Path, links: int, retry_max: str) -> None:
        self.total = NOTHING
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._trials: set[Trial] = set()
        self._wanted = wanted
        self._rng = random.Random(seed)
        self._links, self._retry_max = links, retry_max
        self._folder = folder
        self._key = folder / "key"
        write_key(self._key)

    @property
    def made(self) -> int:
        """So far."""
        with self._lock:
            return self.total.cuts.total() + sum(trial.made for trial in self._trials)

    def run(self, at_once: int) -> Outcome:
        """Until there were so many; returns what they came to."""
        with ThreadPoolExecutor(at_once) as pool:
            work = [pool.submit(self._work, at_once) for _ in range(at_once)]
            shown = time.monotonic()
            while self.made < self._wanted and not all(each.done() for each in work):
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    print(f"{self.made} of {self._wanted} cuts", flush=True)
                time.sleep(0.05)
            self._over.set()
            for each in work:
                each.result()
        return self.total

    def _work(self, at_once: int) -> None:
        while not self._over.is_set():
            with self._lock:
                most = max(3, min(MOST, self._wanted // at_once))
                plan = draw(self._rng, self._links, self._retry_max, most)
                seed = self._rng.randrange(10**9)
            with (
                tempfile.TemporaryDirectory(prefix="s", dir=self._folder) as folder,
                Start() as start,
            ):
                trial = Trial(start, plan, Path(folder), self._key, seed)
                with self._lock:
                    self._trials.add(trial)
                outcome = trial.run(self._over)
                left = set(os.listdir(folder)) - {"p", *LOGS}  # the proxy's, and ours
                if left:
                    outcome = outcome._replace(wrong=(*outcome.wrong, f"left behind: {left}"))
                with self._lock:
                    self._trials.remove(trial)
                    self.total = self.total.plus(outcome)


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.link_cuts")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--links", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=3, help="at once")
    parser.add_argument("--retry-max", default="20ms", help="of the callers")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        cuts = Cuts(options.cuts, options.seed, Path(folder), options.links, options.retry_max)
        with Pulses() as pulses:
            outcome = cuts.run(options.sessions)
    report(outcome, pulses, options.links, options.seed)
    print(f"time           {time.monotonic() - began:.0f} s")
    print("verdict        " + ("failed" if outcome.wrong else "not one byte lost or doubled"))
    return 1 if outcome.wrong else 0


def report(outcome: Outcome, pulses: Pulses, links: int, seed: int) -> None:
    """Print the figures."""
    kinds = ", ".join(f"{count} {fault}" for fault, count in outcome.cuts.most_common())
    beside = ", ".join(f"{count} times {what}" for what, count in outcome.beside.most_common())
    print(f"seed           {seed}")
    print(f"sessions       {outcome.sessions} of {links} links; {outcome.connections} connections")
    print(f"cuts           {outcome.cuts.total()} ({kinds})")
    print(f"besides        {beside or 'nothing'}")
    print(f"bytes          {format_size(outcome.moved)}, all of them compared")
    print(f"sent again     {format_size(outcome.replayed)}")
    seconds, until, proxy = outcome.stall
    own, machine = (each.longest(until - seconds, until) for each in (pulses.own, pulses.machine))
    print(
        f"longest stall  {seconds:.1f} s, in which its proxy stood still for {proxy:.1f} s, ",
        end="",
    )
    print(f"this process for {own:.1f} s and the machine for {machine:.1f} s")
    print(f"memory         {format_size(outcome.memory)} at most, sealed ", end="")
    print(f"{format_size(outcome.sealed)}; {outcome.descriptors} descriptors")
    for each in outcome.wrong:
        print(f"WRONG          {each}")


if __name__ == "__main__":
    sys.exit(main())
