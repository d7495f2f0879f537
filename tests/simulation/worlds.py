"""Which kind of world a seed makes, and how one is run."""

from __future__ import annotations

from collections import deque

from tests.simulation.course import Log
from tests.simulation.crowd import Crowd, is_crowded
from tests.simulation.dark import Dark
from tests.simulation.far import Far, is_far
from tests.simulation.files import Files, has_files
from tests.simulation.judge import Wrong
from tests.simulation.limited import Limited, has_a_rate
from tests.simulation.many import Many
from tests.simulation.scenario import Scenario
from tests.simulation.several import PERIOD, Several, has_several_links
from tests.simulation.shared import Shared
from tests.simulation.told import Told, is_told
from tests.simulation.turns import Turns, is_in_turn

AnyWorld = Scenario | Crowd | Dark | Far | Files | Limited | Told | Turns
KINDS: tuple[type[AnyWorld], ...] = (*[Several] * 4, Dark, Shared, *[Several] * 4, Dark, Many)


def make_world(seed: int, log: Log | None = None) -> AnyWorld:
    """The world of this seed."""
    if is_in_turn(seed):
        return Turns(seed, log)
    if is_far(seed):
        return Far(seed, log)
    if has_files(seed):
        return Files(seed, log)
    if has_a_rate(seed):
        return Limited(seed, log)
    if is_told(seed):
        return Told(seed, log)
    if has_several_links(seed):
        return make_several(seed, log)
    return Crowd(seed, log) if is_crowded(seed) else Scenario(seed, log)


def make_several(seed: int, log: Log | None) -> AnyWorld:
    """One whose sessions have several links: most of these have everything that may happen."""
    number = seed // PERIOD % len(KINDS)
    return KINDS[number](seed, log)


def run_seed(seed: int) -> AnyWorld:
    """Run one seed to its end. Raises Wrong, with the last events, if a promise is broken."""
    scenario = make_world(seed)
    try:
        scenario.run()
    except Wrong as error:
        raise Wrong(f"seed {seed}: {error}\n" + "\n".join(last_events(seed))) from None
    finally:
        scenario.dispose()
    return scenario


def last_events(seed: int, count: int = 40) -> list[str]:
    """The log's last lines for a seed that fails."""
    lines: deque[str] = deque(maxlen=count)
    scenario = make_world(seed, lambda prefix, text: lines.append(f"{prefix} {text}"))
    try:
        scenario.run()
    except Wrong as error:
        lines.append(f"! {error}")
    finally:
        scenario.dispose()
    return list(lines)
