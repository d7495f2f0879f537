"""``python -m tests.end_to_end.statuses``: how a program ends is told at both ends.

Each status from 0 to 255, and each of fifteen signals: of a program of a listener, and of a caller,
plain and sealed, without a cut of the connection, with one before the end of the program's stream
was heard, and with one after that. The end with the program is a process; the other one is here,
but for one case of eight, which has a process there, too. What a first run has sent says where to
cut. With ``--links N`` a session has so many, and each of them is cut so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import bpipe
from bpipe.cli.keys import write_key
from bpipe.demo.faults import Cut, Fault, FaultProxy
from bpipe.run.exits import decide
from bpipe.run.join import Outcome

SIGNALS: Final = (
    *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2"),
    *("PIPE", "ALRM", "TERM"),
)
ANSWER: Final = b"an answer\n"
PATIENCE: Final = 60.0  # seconds for one case
# An end that was left alone, as its peer has been told all, does not wait for half a minute.
LIMITS: Final = bpipe.Limits(connect_timeout=PATIENCE, give_up_after=PATIENCE, linger=2.0)
CUTS: Final = ("no cut", "a cut before the end", "a cut after the end")
DONE_SOON: Final = "--give-up-after", "3s"
REAL: Final = 8  # of so many cases, one has a process at both ends


class Case(NamedTuple):
    """A program that ends, and what the connection does meanwhile."""

    ends: int | str  # its status, or the name of a signal
    sealed: bool
    cut: str
    calls: bool  # the program is the caller's

    @property
    def status(self) -> int:
        """What a shell is told."""
        if isinstance(self.ends, int):
            return self.ends
        return 128 + signal.Signals[f"SIG{self.ends}"]

    @property
    def program(self) -> list[str]:
        """What ends like this."""
        how = f"exit {self.ends}" if isinstance(self.ends, int) else f"kill -{self.ends} $$"
        return ["sh", "-c", f"ulimit -c 0; cat; echo an answer; {how}"]


def cases() -> list[Case]:
    """All of them."""
    every = itertools.product((*range(256), *SIGNALS), (False, True), CUTS, (False, True))
    return [Case(*each) for each in every]


class Reach(NamedTuple):
    """Of a session without a cut: bytes that had gone the program's way at two moments."""

    heard: int  # when the end of its stream was heard
    all: int


class Lab:
    """Where cases are tried, some at once."""

    def __init__(self, folder: Path, seed: int, links: int = 1) -> None:
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._key = folder / "key"
        write_key(self._key)
        self._secret = bpipe.Secret.parse(self._key.read_bytes())
        self._links = links
        self._reach: dict[tuple[bool, bool], Reach] = {}

    async def run(self, wanted: Iterable[Case], jobs: int) -> None:
        """Try all of these."""
        for sealed, calls in itertools.product((False, True), repeat=2):
            await self._try(Case(0, sealed, CUTS[0], calls), real=False)
        queue = iter(enumerate(wanted))

        async def work() -> None:
            for number, case in queue:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._try(case, real=number % REAL == 0)
                except (TimeoutError, AssertionError) as error:
                    self.wrong.append(f"{case}: {error!r}")

        await asyncio.gather(*(work() for _ in range(jobs)))

    async def _try(self, case: Case, *, real: bool) -> None:
        async with contextlib.AsyncExitStack() as stack:
            cuts = [cut for _ in range(self._links) if (cut := self._cut(case))]
            trial = Trial(case, self._key, self._secret, cuts, self._links)
            stack.push_async_callback(trial.close)
            statuses = await (trial.processes() if real else trial.here())
        if not real and case.cut == CUTS[0]:
            self._reach[case.sealed, case.calls] = Reach(trial.heard, trial.passed)
        self.seen[trial.what_was_cut] += 1
        if statuses != [case.status] * 2 or trial.answer != ANSWER:
            self.wrong.append(f"{case}: {statuses}, {trial.answer!r}, {trial.said!r}")

    def _cut(self, case: Case) -> Cut | None:
        """Where this case has its connection cut."""
        if case.cut == CUTS[0]:
            return None
        reach = self._reach[case.sealed, case.calls]
        fault = self._rng.choice((Fault.RESET, Fault.EOF))
        if case.cut == CUTS[1]:
            return Cut(fault, case.calls, self._rng.randrange(reach.heard))
        return Cut(fault, case.calls, self._rng.randint(reach.heard, reach.all - 1))


class Trial:
    """One case: the two ends, and the network between them."""

    def __init__(
        self, case: Case, key: Path, secret: bpipe.Secret, cuts: list[Cut], links: int
    ) -> None:
        self.answer = b""
        self.said = b""  # by the process that has the program
        self.heard = 0  # bytes that had gone the program's way when its end was heard
        self.passed = 0  # of these, all
        self.what_was_cut = "nothing cut"
        self._case = case
        self._secret = secret if case.sealed else None
        self._options = [*DONE_SOON, *(["--secret", str(key)] if case.sealed else [])]
        self._cuts = cuts
        self._links = links
        self._pipe: bpipe.BackedPipe | None = None
        self._proxy: FaultProxy | None = None
        self._processes: list[asyncio.subprocess.Process] = []

    async def close(self) -> None:
        """Leave nothing."""
        if self._pipe is not None:
            self._pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
            await self._pipe.wait_closed()
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if self._proxy is not None:
            await self._proxy.close()

    async def here(self) -> list[int]:
        """With one end in this process; returns the statuses of both, the program's first."""
        if self._case.calls:
            self._pipe = await bpipe.listen("127.0.0.1:0", secret=self._secret, limits=LIMITS)
            where = self._open_proxy(self._pipe.status().peer)
            process = await self._start("connect", where, self._case.program)
        else:
            process = await self._start("listen", "127.0.0.1:0", self._case.program)
            where = self._open_proxy(await self._address(process))
            self._pipe = await bpipe.connect(
                where, secret=self._secret, limits=LIMITS, links=self._links
            )
        status = await self._take(self._pipe)
        return [await self._ended(process), status]

    async def processes(self) -> list[int]:
        """With a process at each end; the same."""
        words = {False: [], True: self._case.program}
        far = await self._start("listen", "127.0.0.1:0", words[not self._case.calls])
        where = self._open_proxy(await self._address(far))
        near = await self._start("connect", where, words[self._case.calls])
        own, other = (near, far) if self._case.calls else (far, near)
        assert other.stdout is not None
        self.answer = await other.stdout.read()
        return [await self._ended(own), await other.wait()]

    async def _start(
        self, command: str, where: str, program: list[str]
    ) -> asyncio.subprocess.Process:
        words = ["--links", str(self._links)] if command == "connect" else []
        words += ["--", *program] if program else []
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bpipe", command, where, *self._options, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    async def _address(self, process: asyncio.subprocess.Process) -> str:
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        assert line.startswith("bpipe: listening on "), line
        return line.split(" on ")[1].split(",")[0].strip()

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        _, self.said = await process.communicate()
        assert process.returncode is not None
        return process.returncode

    def _open_proxy(self, target: str) -> str:
        host, _, port = target.rpartition(":")
        proxy = FaultProxy((host, int(port)), self._cuts, self._note_cut, self._count)
        self._proxy = proxy
        return "{}:{}".format(*proxy.start())

    def _note_cut(self, cut: Cut) -> None:
        self.what_was_cut = "cut after the end was heard" if self.heard else "cut before that"

    def _count(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        if upward is self._case.calls:
            self.passed = max(self.passed, offset + len(data))
        return data

    def _trace(self, sign: str, text: str) -> None:
        if sign == "<" and re.match(r"(link \d: )?FIN", text) and not self.heard:
            self.heard = self.passed

    async def _take(self, pipe: bpipe.BackedPipe) -> int:
        """Be the other end; returns what would be its exit status."""
        pipe.engine.session.trace_to(self._trace)
        with contextlib.suppress(bpipe.SessionEnded):
            await pipe.connect()
            pipe.finish()
            while data := await pipe.read():
                self.answer += data
        await pipe.wait_closed()
        reader = pipe.reader
        outcome = Outcome(pipe.failure, pipe.status(), reader.finish, left_early=reader.left_early)
        return decide(outcome)[0]


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.statuses")
    parser.add_argument("--cases", type=int, help="a sample of so many; without it, all")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--links", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    began, every = time.monotonic(), cases()
    random.Random(options.seed).shuffle(every)
    with tempfile.TemporaryDirectory(prefix="bpipe-statuses-") as folder:
        lab = Lab(Path(folder), options.seed, options.links)
        asyncio.run(lab.run(every[: options.cases], options.jobs))
    print(f"seed     {options.seed}")
    print(f"cases    {lab.seen.total()} of {len(every)}; {time.monotonic() - began:.0f} s")
    print("cuts     " + ", ".join(f"{what} {n}" for what, n in lab.seen.most_common()))
    for each in lab.wrong:
        print(f"WRONG    {each}")
    print("verdict  " + ("failed" if lab.wrong else "each status came as it was, both ways"))
    return 1 if lab.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
