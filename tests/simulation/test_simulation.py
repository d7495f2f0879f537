"""Some seeds of the simulation: a fixed set, and a batch that nobody has seen before."""

from __future__ import annotations

import random
import time

import pytest

from tests.simulation import far, files, limited, several, told, turns
from tests.simulation.crowd import PERIOD, PLACE
from tests.simulation.worlds import run_seed

REGRESSIONS = (
    229,  # a close that was cancelled ended the session, and left its link open
    365,  # BUSY with a session of the caller's own, that a late CONFIRM had made, ended the caller
    2464,  # a done end that found nobody reported success although its stream had been cut short
    5829,  # the judge wanted a rate to be told that had been another one for a moment
    101960,  # the simulation took a caller that waits in vain for one that goes round in circles
    200773,  # a late CONFIRM of a session that was given up replaced the one that came after it
    3635889,  # the judge wanted an ABORT to be answered in less time than a slow path needs
    7161996,  # the judge wanted a BYE to arrive although its link was lost to a silence before
    7343522,  # a session that had given up, in a process that was stopped just then, was attached
    7653749,  # the same, in a greeting that had begun before
    10089981,  # an end that had given up was done by what its consumer did after that
    50001123,  # a link was in doubt just before its peer, which was hearing a long frame, spoke
    72173037,  # the judge wanted an abort to be heard by an end that gave up in that moment
)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_found_a_bug(seed: int) -> None:
    run_seed(seed)


def test_the_fixed_seeds() -> None:
    for seed in range(100):
        if seed % limited.PERIOD != limited.PLACE:  # these take long, and have their own test
            run_seed(seed)


def test_many_at_one_listener() -> None:
    for number in range(10, 20):
        run_seed(PLACE + number * PERIOD)


def test_a_command_that_is_held_far_away() -> None:
    worlds = [run_seed(far.PLACE + number * far.PERIOD) for number in range(3, 40)]
    reached = [any(end.session.history.links for end in world.ends) for world in worlds]
    assert sum(reached) > len(reached) / 2


def test_one_sender_after_the_other() -> None:
    for number in range(2, 14):
        run_seed(turns.PLACE + number * turns.PERIOD)


def test_a_stream_that_becomes_a_file() -> None:
    for number in range(2, 14):
        run_seed(files.PLACE + number * files.PERIOD)


def test_processes_with_a_rate() -> None:
    for number in range(18, 30):
        run_seed(limited.PLACE + number * limited.PERIOD)


def test_several_links_at_once() -> None:
    for number in range(6, 18):
        run_seed(several.PLACE + number * several.PERIOD)


def test_machines_that_are_told_of_their_paths() -> None:
    for number in range(1, 6):
        run_seed(told.PLACE + number * told.PERIOD)


@pytest.mark.slow
def test_fresh_seeds() -> None:
    first = random.SystemRandom().randrange(10**9)
    until = time.monotonic() + 4
    seed = first
    while time.monotonic() < until:
        run_seed(seed)
        seed += 1
    print(f"seeds {first} to {seed - 1}")


@pytest.mark.parametrize("seed", [77, PLACE + 2 * PERIOD, files.PLACE + 18 * files.PERIOD])
def test_a_seed_is_a_function_of_its_number(seed: int) -> None:
    first, second = run_seed(seed), run_seed(seed)
    assert first.world.now == second.world.now
    assert first.world.steps == second.world.steps
