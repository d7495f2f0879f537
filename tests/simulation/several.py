"""One seed of a world in which a session has several links at once, over one path or several.

All that happens to the ends of ``scenario.py`` happens here, too, and to each path by itself: it
may be slow or narrow, cut its connections at any byte, go dark and come back, alone or together
with the others. The two ends may not want the same number of links. ``debts.py`` looks into both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from bpipe.net.backoff import Backoff
from bpipe.net.dialers import Dialers
from bpipe.net.source import LinkSource
from bpipe.protocol.session import Session
from tests.simulation.course import Log
from tests.simulation.debts import Books
from tests.simulation.ends import End, Plan, SeededManners, SimulatedConnector
from tests.simulation.judge import Judge, Wrong
from tests.simulation.kinds import SECRET, Kind
from tests.simulation.network import Network
from tests.simulation.scenario import Scenario

PERIOD: Final = 20  # of so many seeds, one makes such a world:
PLACE: Final = 10  # in which no other world is special, and never sealed by its number

SPECIAL: Final = (
    *[""] * 8, *["programs", "records", "remote", "astray"] * 2, "doubtful", "slow",
)  # fmt: skip


def has_several_links(seed: int) -> bool:
    """Whether a session has them in the world of this seed."""
    return seed % PERIOD == PLACE


class Several(Scenario):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 300_000

    def __init__(self, seed: int, log: Log | None = None) -> None:
        self._books: list[Books] = []
        super().__init__(seed, log)

    # --- who is there ---

    def _choose_kind(self, seed: int) -> Kind:
        rng = self.rng
        secret = SECRET if rng.random() < 0.3 else None
        kind = Kind.of(seed)._replace(secret=secret, piped=rng.random() < 0.3)
        if special := rng.choice(SPECIAL):
            change: dict[str, Any] = {special: True}
            kind = kind._replace(**change)
        return kind._replace(records=kind.records or kind.remote)

    def _make_networks(self) -> list[Network]:
        """One for each path; slots that have none of their own share the first ones again."""
        rng = self.rng
        self.links = rng.choice((2, 2, 3, 4)), rng.choice((8, 8, 8, 4, 3, 2, 1))
        count = rng.randint(1, self.links[0])
        networks = [self._make_network(self.kind) for _ in range(count)]
        weathers = [each.weather for each in networks]
        for weather in weathers:
            weather.rate = rng.choice((0.0, 0.0, 0.0, 20_000.0, 200_000.0))
            if self.kind.slow:  # there is much to send
                weather.rate = 0.0
        if rng.random() < 0.4 and not (self.kind.slow or self.kind.doubtful):  # all but one are bad
            best = rng.choice(weathers)
            best.faulty = best.hiccups = best.stragglers = best.rate = 0.0
            best.latency, best.away, best.capacity = (0.001, 0.05), [], 65536
        if rng.random() < 0.3:  # they go dark together
            for weather in weathers[1:]:
                weather.away = weathers[0].away
        return networks

    def _make_end(
        self, name: str, plan: Plan, rng: random.Random, source: Callable[[Session], LinkSource]
    ) -> End:
        caller, callee = self.links
        plan.links = callee if name == "listener" else caller
        return super()._make_end(name, plan, rng, source)

    def _make_judge(self) -> Judge:
        near, far = self.caller.session, self.callee.session
        self._books = [Books(near, far, self.networks)]
        return super()._make_judge()

    def _dial(self, session: Session, backoff: Backoff) -> LinkSource:
        networks = [self.networks[slot % len(self.networks)] for slot in range(self.links[0])]
        connectors = [SimulatedConnector(each, SeededManners.of(self.fork())) for each in networks]
        for each, network in zip(connectors, networks, strict=True):
            each.via = f"path {self.networks.index(network)}"
        return Dialers(session, connectors, backoff.cap, self.world.clock)

    # --- running ---

    def look(self) -> None:
        for books in self._books:
            if wrong := books.look():
                raise Wrong(wrong)
        super().look()
