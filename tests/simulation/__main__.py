"""``python -m tests.simulation``: run many seeds, or one of them with its log."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.simulation.crowd import Crowd
from tests.simulation.file_ends import Process
from tests.simulation.files import Files
from tests.simulation.judge import Wrong
from tests.simulation.worlds import make_world, run_seed

BATCH = 50  # seeds


class Result(NamedTuple):
    """What a batch of seeds came to."""

    passed: int
    links: int
    seconds: float  # of virtual time
    special: Counter[str]  # where many call, or a stream becomes a file: what has happened there
    failures: list[str]


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--step", type=int, default=1, help="from one to the next: 60 is a kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("-v", "--verbose", action="store_true", help="with its log: < > = %% !")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed, verbose=options.verbose)
    seeds = range(options.first, options.first + options.seeds * options.step, options.step)
    return run_many(seeds, options.jobs)


def replay(seed: int, *, verbose: bool) -> int:
    """Run one seed; returns the exit status."""
    scenario = make_world(seed, (lambda prefix, text: print(prefix, text)) if verbose else None)
    try:
        scenario.run()
    except Wrong as error:
        print(f"! {error}")
        return 1
    finally:
        scenario.dispose()
    for end in scenario.ends:
        if isinstance(end, Process):
            print(f"{end.name}: {'killed' if end.killed else f'status {end.status}'}")
        else:
            print(f"{end.name}: {end.session.failure or 'success'}")
    return 0


def run_many(seeds: range, jobs: int) -> int:
    """Run seeds side by side; returns the exit status."""
    began = shown = time.monotonic()
    done = links = 0
    virtual = 0.0
    special: Counter[str] = Counter()
    failures: list[str] = []
    with multiprocessing.Pool(jobs, initializer=set_up) as pool:
        for result in pool.imap_unordered(run_batch, batches(seeds)):
            done += result.passed + len(result.failures)
            links += result.links
            virtual += result.seconds
            special += result.special
            failures += result.failures
            for failure in result.failures:
                print(failure, flush=True)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                rate = done / (shown - began)
                print(f"{done} of {len(seeds)} seeds, {rate:.0f} per second", flush=True)
    took = time.monotonic() - began
    pace = len(seeds) / took
    print(f"seeds {seeds[0]} to {seeds[-1]} in {took:.0f} s: {pace:.0f} per second")
    print(f"{links} links, {virtual / 3600:.1f} hours of virtual time")
    print(
        "many at one listener, or a file: "
        + ", ".join(f"{n} {what}" for what, n in special.items())
    )
    print(f"{done - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def set_up() -> None:
    """Make a process ready: garbage is collected after a batch, and only what batches have made."""
    gc.disable()
    gc.freeze()


def batches(seeds: range) -> Iterator[range]:
    """The seeds, in pieces."""
    for start in range(0, len(seeds), BATCH):
        yield seeds[start : start + BATCH]


def run_batch(seeds: range) -> Result:
    """Run these, one after the other."""
    links, seconds, failures = 0, 0.0, []
    special: Counter[str] = Counter()
    for seed in seeds:
        try:
            scenario = run_seed(seed)
        except Wrong as error:
            failures.append(str(error))
        else:
            links += sum(
                each.links if isinstance(each, Process) else each.session.history.links
                for each in scenario.ends
            )
            seconds += scenario.world.now - scenario.began
            if isinstance(scenario, (Crowd, Files)):
                special += scenario.counts
    gc.collect()
    return Result(len(seeds) - len(failures), links, seconds, special, failures)


if __name__ == "__main__":
    sys.exit(main())
