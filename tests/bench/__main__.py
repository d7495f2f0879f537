"""``python -m tests.bench NAME``: bpipe and its peers on the same work, and how they compare."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

from bpipe.cli.values import duration, size
from tests.bench.rounds import Options

NAMES: Final = (
    *("throughput", "recovery", "latency", "startup", "memory", "sessions", "slow"),
    *(
        "carrier",
        "buffers",
        "addresses",
        "many",
        "forward",
        "crowded",
        "ssh",
        "output",
        "rate",
        "compare",
        "path",
        "unplugged",
    ),
)
OVER: Final = (
    *("tcp", "unix", "file", "clean", "0.1%", "1%", "unequal", "slow", "dying", "dark"),
    *("thin", "thin-both", "full", "full-both", "again"),
)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--rounds", type=int, help="how often each is run")
    parser.add_argument("--size", type=size, nargs="+", help="bytes to move, as in 4G")
    parser.add_argument(
        "--count",
        type=int,
        help="exchanges (latency), sessions (sessions), lost connections (addresses)",
    )
    parser.add_argument(
        "--seconds",
        type=duration,
        nargs="+",
        help="of outages (recovery, ssh, unplugged), idleness (sessions), between cuts (slow), "
        "a run (path)",
    )
    parser.add_argument("--over", nargs="+", default=[], choices=OVER)
    parser.add_argument(
        "--congestion", default="", help="of TCP (path, unplugged); cubic is the default"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="TOOL", help="by its name")
    parser.add_argument("--sealed", action="store_true", help="bpipe with a secret as well")
    parser.add_argument("--json", action="store_true", help="one line for each table")
    return parser.parse_args()


def main() -> int:
    """Measure what is wanted; returns the exit status."""
    given = parse()
    signal.signal(signal.SIGTERM, _end)
    options = Options(
        rounds=given.rounds,
        sizes=given.size and tuple(given.size),
        count=given.count,
        seconds=given.seconds and tuple(given.seconds),
        sealed=given.sealed,
        only=tuple(given.only),
        over=tuple(given.over),
        congestion=given.congestion,
    )
    for table in importlib.import_module(f"tests.bench.{given.name}").run(options):
        if given.json:
            print(table.as_json(), flush=True)
        else:
            table.print()
    return 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leave no process and no namespace behind."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
