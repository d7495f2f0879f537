"""Random walks of a model of several links: ``python -m tests.support.walk --seeds 1000``.

Each seed chooses how often what happens. The rules are those of ``test_slots_model.py``; what
hypothesis makes small, this makes often.
"""

from __future__ import annotations

import argparse
import random
from typing import TYPE_CHECKING

from tests.support.loopback import EVERYTHING, SIDES

if TYPE_CHECKING:
    from tests.protocol.test_slots_model import SlotsModel

_SECONDS = [0.0003, 0.001, 0.01, 0.05, 0.2, 0.5, 2.0, 7.0]


class Walk:
    """One model, led by one seed."""

    def __init__(self, seed: int, model: type[SlotsModel]) -> None:
        self._rng = random.Random(seed)
        self.model = model()
        most = self._rng.choice([10, 40, 300, 3000])
        buffers = self._rng.randint(1, most), self._rng.randint(1, most)
        self.model.start(buffers=buffers, links=self._rng.randint(2, 4))
        self._largest = self._rng.choice([3, 20, 100, 500])  # bytes that are moved at once
        self._slow = self._rng.sample(range(8), self._rng.randint(0, 2))  # links that seldom move
        self._weights = {
            self._flow: 40,
            self._move: 30,
            self._deliver: 10,
            self._advance: self._rng.choice([3, 15]),
            self._cut: self._rng.choice([0.0, 0.5, 3]),
            self._darken: self._rng.choice([0.0, 0.3, 2]),
            self._reconnect: self._rng.choice([0.1, 1, 6]),
            self._end: self._rng.choice([0.0, 0.1]),
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

    def _size(self) -> int:
        return self._rng.choice([EVERYTHING, self._rng.randint(1, self._largest)])

    def _index(self) -> int:
        index = self._rng.randrange(8)
        return self._rng.randrange(8) if index in self._slow else index

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
        self.model.cut(self._index(), self._rng.choice([(0, 1), (0,), (1,)]))

    def _darken(self) -> None:
        self.model.darken(self._index())

    def _reconnect(self) -> None:
        if not self.model.sessions[0].over:
            greeted = self._rng.choice([EVERYTHING, EVERYTHING, self._rng.randrange(200)])
            self.model.reconnect(greeted, self._rng.randrange(4))

    def _end(self) -> None:
        side = self._side()
        end = self._rng.choice([self.model.finish, self.model.stop, self.model.leave])
        end(side, True)


def main() -> None:
    """Walk, and tell of the first seed that fails."""
    from tests.protocol.test_slots_model import SealedSlotsModel, SlotsModel

    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1000)
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        try:
            Walk(seed, SealedSlotsModel if seed % 4 == 3 else SlotsModel).run()
        except BaseException:
            print(f"seed {seed}")
            raise
    print(f"{options.seeds} seeds: nothing found")


if __name__ == "__main__":
    main()
