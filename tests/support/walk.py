"""Random walks of a model of several links: ``python -m tests.support.walk --seeds 1000``.

Each seed chooses how often what happens. The rules are those of ``test_slots_model.py``; what
hypothesis makes small, this makes often. What has happened in all of them is told at the end.
"""

from __future__ import annotations

import argparse
import functools
import gc
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.support.loopback import CALLER, EVERYTHING, SIDES

if TYPE_CHECKING:
    from tests.protocol.test_slots_model import SlotsModel

BATCH = 100  # seeds

_SECONDS = [0.0003, 0.001, 0.01, 0.05, 0.2, 0.5, 2.0, 7.0]
_LAGS = [0.0005, 0.02, 0.2, 1.5]  # seconds over a link
_PACES = [1.0, 1.0, 0.3, 0.05]  # how often it is let move when its turn has come
_NOTICED = [(0, 1), (0,), (1,)]
_MOST = 4  # links


class Walk:
    """One model, led by one seed."""

    def __init__(self, seed: int, model: type[SlotsModel]) -> None:
        self._rng = rng = random.Random(seed)
        self.model = model()
        most = rng.choice([10, 40, 300, 3000])
        buffers = rng.randint(1, most), rng.randint(1, most)
        self.links = rng.choice([1, 2, 2, 3, 3, 4, 4])
        lags = [rng.choice([0.0, rng.choice(_LAGS)]) for _ in range(_MOST)]
        self.model.start(buffers=buffers, links=self.links, slow=lags)
        self._paces = [rng.choice(_PACES) for _ in range(_MOST)]
        self._largest = rng.choice([3, 20, 100, 500])  # bytes that are moved at once
        self._weights = {
            self._flow: 40,
            self._move: 30,
            self._deliver: 10,
            self._advance: rng.choice([3, 15]),
            self._cut: rng.choice([0.0, 0.5, 3]),
            self._darken: rng.choice([0.0, 0.3, 2]),
            self._suspect: rng.choice([0.0, 0.0, 1]),
            self._reconnect: rng.choice([0.1, 1, 6]),
            self._echo: rng.choice([0.0, 0.5, 2]),
            self._end: rng.choice([0.0, 0.1]),
        }

    def run(self, steps: int = 150) -> None:
        """So many steps, and then to the end without faults."""
        acts, weights = list(self._weights), list(self._weights.values())
        for act in self._rng.choices(acts, weights, k=steps):
            act()
            self.check()
        self.model.teardown()

    def check(self) -> None:
        """What has to hold always."""
        model = self.model
        model.what_came_out_is_a_prefix_of_what_went_in()
        model.the_cursors_of_the_two_ends_are_in_order()
        model.only_what_the_consumer_took_is_delivered()
        model.neither_end_breaks_the_protocol()
        model.no_buffer_holds_more_than_its_size()
        model.who_reports_success_is_right()
        model.what_has_not_arrived_is_owed_or_given_back()
        model.who_is_let_in_is_the_latest_of_his_slot()

    def _size(self) -> int:
        return self._rng.choice([EVERYTHING, self._rng.randint(1, self._largest)])

    def _index(self) -> int:
        """Of a link that lives: the slow ones are left out most of the time."""
        rng, pair = self._rng, self.model.pair
        alive = pair.alive
        index = 0
        for _ in range(3 if alive else 0):
            index = rng.randrange(len(alive))
            if rng.random() < self._paces[pair.slots[alive[index]]]:
                break
        return index

    def _side(self) -> int:
        return self._rng.choice(SIDES)

    def _flow(self) -> None:
        count = self._rng.randint(1, self._largest)
        self.model.flow(
            self._index(), self._side(), count, self._size(), self._size(), self._size()
        )

    def _move(self) -> None:
        self.model.move(self._index(), self._side(), self._size(), self._size())

    def _deliver(self) -> None:
        self.model.deliver(self._side(), self._size())

    def _advance(self) -> None:
        self.model.advance(self._rng.choice(_SECONDS))

    def _cut(self) -> None:
        self.model.cut(self._any(), self._rng.choice(_NOTICED), self._rng.random() < 0.5)

    def _darken(self) -> None:
        self.model.darken(self._any())

    def _suspect(self) -> None:
        self.model.suspect(self._any(), self._side(), self._rng.random() < 0.5)

    def _reconnect(self) -> None:
        if not self.model.sessions[CALLER].over:
            greeted = self._rng.choice([EVERYTHING, EVERYTHING, self._rng.randrange(200)])
            late = self._rng.choice([0.0, self._rng.choice(_LAGS)])
            self.model.reconnect(self._rng.randrange(_MOST), greeted, late)

    def _echo(self) -> None:
        self.model.echo(self._any(), self._size(), self._rng.random() < 0.5)

    def _any(self) -> int:
        return self._rng.randrange(60)

    def _end(self) -> None:
        side = self._side()
        end = self._rng.choice([self.model.finish, self.model.stop, self.model.leave])
        end(side, True)


class Result(NamedTuple):
    """What a batch of seeds came to."""

    seeds: int
    seen: Counter[str]
    failures: list[str]


def run_batch(seeds: range, steps: int) -> Result:
    """Walk these, one after the other."""
    from tests.protocol.test_slots_model import SealedSlotsModel, SlotsModel

    seen: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        try:
            walk = Walk(seed, SealedSlotsModel if seed % 4 == 3 else SlotsModel)
            walk.run(steps)
        except Exception:
            failures.append(f"seed {seed}\n{traceback.format_exc()}")
            continue
        pair = walk.model.pair
        seen += pair.seen
        seen[f"seeds with {walk.links} links"] += 1
        seen["bytes taken"] += sum(map(len, walk.model.taken))
        seen["bytes begun again"] += sum(each.history.replayed for each in pair.sessions)
    gc.collect()
    return Result(len(seeds), seen, failures)


def batches(seeds: range) -> Iterator[range]:
    """The seeds, in pieces."""
    for start in range(0, len(seeds), BATCH):
        yield seeds[start : start + BATCH]


def set_up() -> None:
    """Make a process ready: garbage is collected after a batch, and only what batches have made."""
    gc.disable()
    gc.freeze()


def main() -> int:
    """Walk, tell of the seeds that fail, and of what has happened; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.walk", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=int, default=150, help="of each, before its end")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    began = shown = time.monotonic()
    done, seen = 0, Counter[str]()
    failures: list[str] = []
    run = functools.partial(run_batch, steps=options.steps)
    with multiprocessing.Pool(options.jobs, initializer=set_up) as pool:
        for result in pool.imap_unordered(run, batches(seeds)):
            done, seen = done + result.seeds, seen + result.seen
            failures += result.failures
            for failure in result.failures:
                print(failure, flush=True)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"{done} of {len(seeds)} seeds", flush=True)
    took = time.monotonic() - began
    print(f"seeds {seeds[0]} to {seeds[-1]} in {took:.0f} s: {done / took:.0f} per second")
    for what, count in sorted(seen.items()):
        print(f"{count:>14,} {what}")
    print(f"{done - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
