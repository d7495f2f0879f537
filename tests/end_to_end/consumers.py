"""``python -m tests.end_to_end.consumers --runs 100``: real programs behind a bpipe, many times.

Some take the whole stream and leave before they are told that it has ended; some leave with bytes
in their pipe; some come late, or only when bpipe has ended. Each run is two processes of bpipe
between a producer and a consumer, and says whether both ends reported what is true.
"""

from __future__ import annotations

import argparse
import enum
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from subprocess import PIPE
from typing import IO, Final, NamedTuple

import pytest

from bpipe.cli.keys import write_key
from tests.end_to_end.data import held, pattern, until
from tests.end_to_end.helpers import Program, Start, finish

WAYS: Final = ("tcp", "unix", "sealed")
DELIVERED: Final = 0
BROKEN: Final = 141
HELD: Final = 2.0  # seconds that a producer, or a pipe that is not read, is waited for
NOISE: Final = 2.0  # seconds that a busy machine may add


class Comes(enum.Enum):
    """When the consumer is started."""

    AT_ONCE = enum.auto()
    FULL = enum.auto()  # when the whole stream lies in its pipe
    AFTER = enum.auto()  # when the bpipe before it has ended


class Case(NamedTuple):
    """One consumer and its producer, both in the words of the shell.

    The producer's $1 is the file of the data; $2 is one that is there once the consumer is gone.
    """

    name: str
    consumer: str
    data: bytes
    out: bytes  # what the consumer is to say
    ends: int = DELIVERED  # the exit status of both bpipes
    status: int = 0  # the consumer's own
    producer: str = 'cat "$1"'
    comes: Comes = Comes.AT_ONCE
    limit: float | None = None  # seconds; None: however long it takes


class Outcome(NamedTuple):
    """What has come of a run."""

    ends: list[int]  # the exit statuses of the two bpipes, the listener's first
    status: int  # the consumer's own
    out: bytes  # what the consumer said
    seconds: float  # from the end of the consumer, or from a full pipe, until both have ended
    said: list[str]  # by the two bpipes

    def wrong(self, case: Case) -> str:
        """What is not as the case wishes; empty if all is."""
        if self.ends != [case.ends] * 2:
            return f"ended with {self.ends}"
        if (self.status, self.out) != (case.status, case.out):
            return f"the consumer got {len(self.out)} bytes, and ended with {self.status}"
        if case.limit is not None and self.seconds > case.limit:
            return f"took {self.seconds:.1f} s"
        return ""


_LINE: Final = b"one line\n"
_LINES: Final = b"".join(b"line %d of many\n" % number for number in range(20_000))
_LARGE: Final = b"".join(pattern(at, 1_000_000) for at in range(0, 8_000_000, 1_000_000))
_FULL: Final = _LARGE[:900_000]  # fits into a pipe of 1 MiB, which is what bpipe asks for
_BLOCKS: Final = _LARGE[: 40 * 102_400]
_SCRIPT: Final = b"echo ran\nexit 0\n"
_LATER: Final = 'cat "$1"; until [ -e "$2" ]; do sleep 0.1; done; sleep 0.5'
_SLOWLY: Final = "for n in 1 2 3 4; do head -c 200000; sleep 0.6; done"  # longer than HELD

EXACT: Final = (  # they take everything, and leave without waiting for the end
    Case("head -n 1", "head -n 1", _LINE, _LINE),
    Case("read", 'read x; echo "$x"', _LINE, _LINE),
    Case("head -c N, 8 MB", "head -c 8000000", _LARGE, _LARGE),
    Case("dd count=", "dd bs=100k count=40 iflag=fullblock status=none", _BLOCKS, _BLOCKS),
    Case("grep -q", "grep -q needle && echo found", _LINES + b"needle\n", b"found\n"),
    Case("sh -s", "sh -s", _SCRIPT, b"ran\n"),
)
SLOW: Final = (  # they take everything, in their own time, or their producers do
    Case("reads slowly", f"{_SLOWLY}; cat", _FULL, _FULL),
    Case("reads late", "sleep 1; cat", _FULL, _FULL, comes=Comes.FULL),
    Case("reads after bpipe", "cat", _FULL, _FULL, comes=Comes.AFTER, limit=HELD + NOISE),
    Case("producer ends later", "head -n 1", _LINE, _LINE, producer=_LATER),
)
LEAVING: Final = (  # something is left over
    Case("exit 7", "exit 7", _FULL, b"", BROKEN, 7, comes=Comes.FULL),
    Case("sleep 1; exit 7", "sleep 1; exit 7", _FULL, b"", BROKEN, 7, comes=Comes.FULL),
    Case("slowly; exit 7", f"{_SLOWLY}; exit 7", _FULL, _FULL[:800_000], BROKEN, 7),
    Case("head -c, with more", "head -c 1000", _LARGE, _LARGE[:1000], BROKEN),
    Case("one line more", "head -n 1", _LINE, _LINE, BROKEN, producer=f"{_LATER}; echo"),
    Case(
        *("tail -f", "head -n 1", _LINE, _LINE, BROKEN),
        producer='exec tail -f "$1"',
        limit=HELD + NOISE,
    ),
)
CASES: Final = (*EXACT, *SLOW, *LEAVING)


def run(case: Case, way: str, folder: Path, *, behind: str = "listen") -> Outcome:
    """Run a case once, with its consumer behind the end that does this."""
    data, gone, key, path = (folder / name for name in ("data", "gone", "key", "s"))
    data.write_bytes(case.data)
    gone.unlink(missing_ok=True)
    options = ["--secret", str(key)] if way == "sealed" else []
    if options and not key.exists():
        write_key(key)
    reading, writing = os.pipe()
    with Start() as start, open(reading, "rb", 0) as pipe, open(writing, "wb", 0) as stdout:
        where = f"unix:{path}" if way == "unix" else "127.0.0.1:0"
        words = "sh", "-c", case.producer, "sh", str(data), str(gone)
        producer = start.program(*words, stdout=PIPE)
        consumer = _consumer(start, case, pipe) if case.comes is Comes.AT_ONCE else None
        if behind == "listen":
            listener = start.bpipe("listen", where, *options, stdout=stdout)
            caller = start.bpipe("connect", listener.address, *options, stdin=producer)
        else:
            listener = start.bpipe("listen", where, *options, stdin=producer)
            caller = start.bpipe("connect", listener.address, *options, stdout=stdout)
        stdout.close()
        if case.comes is not Comes.AT_ONCE:
            until(lambda: held(pipe) == len(case.data), "the whole stream in the pipe")
        began = time.monotonic()
        if case.comes is Comes.AFTER:
            finish(listener, caller)
        seconds = time.monotonic() - began
        consumer = consumer or _consumer(start, case, pipe)
        out, status = consumer.read_all(), consumer.wait()
        gone.touch()
        began = time.monotonic()
        ends = finish(listener, caller)
        return Outcome(
            ends,
            status,
            out,
            seconds if case.comes is Comes.AFTER else time.monotonic() - began,
            listener.lines[-1:] + caller.lines[-1:],
        )


def _consumer(start: Start, case: Case, pipe: IO[bytes]) -> Program:
    """Started on this pipe, whose only reader it is from then on."""
    consumer = start.program("sh", "-c", case.consumer, stdin=pipe, stdout=PIPE)
    pipe.close()
    return consumer


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.end_to_end.consumers", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=100, help="of each, over each way")
    parser.add_argument("--only", nargs="+", default=[case.name for case in CASES])
    options = parser.parse_args()
    failed = 0
    print(f"{'consumer':20}{'over':8}{'as it has to be':>18}{'slowest end':>14}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        for case in CASES:
            for way in WAYS if case.name in options.only else ():
                wrong, slowest = _repeat(case, way, Path(folder), options.runs)
                failed += wrong.total()
                right = f"{options.runs - wrong.total()} of {options.runs}"
                print(f"{case.name:20}{way:8}{right:>18}{slowest:12.2f} s", flush=True)
                for text, count in wrong.most_common():
                    print(f"    {count} times {text}", flush=True)
    return 1 if failed else 0


def _repeat(case: Case, way: str, folder: Path, runs: int) -> tuple[Counter[str], float]:
    """What was wrong how often, and the longest time until both ends had ended."""
    wrong: Counter[str] = Counter()
    slowest = 0.0
    for number in range(runs):
        try:
            outcome = run(case, way, folder, behind=("listen", "connect")[number % 2])
        except (AssertionError, pytest.fail.Exception) as error:
            wrong[str(error)] += 1
        else:
            slowest = max(slowest, outcome.seconds)
            if text := outcome.wrong(case):
                wrong[text] += 1
    return wrong, slowest


if __name__ == "__main__":
    sys.exit(main())
