"""Consumers that take everything are 0 at both ends, always; those that leave early are 141."""

from __future__ import annotations

import os
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.consumers import EXACT, LEAVING, SLOW, WAYS, Case, Comes, run
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Start, finish


def name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", EXACT, ids=name)
def test_who_takes_exactly_everything(case: Case, path: Path) -> None:
    at = EXACT.index(case)
    outcome = run(case, WAYS[at % 3], path.parent, behind="connect" if at % 2 else "listen")
    assert not outcome.wrong(case), outcome.said


@pytest.mark.parametrize("case", [*SLOW, *LEAVING], ids=name)
def test_who_takes_it_in_his_own_time_and_who_leaves_something(case: Case, path: Path) -> None:
    # A pipe holds less than its size of what is spliced into it in small pieces.
    plain = case.comes is Comes.AT_ONCE
    way, behind = ("tcp", "listen") if plain else ("sealed", "connect")
    outcome = run(case, way, path.parent, behind=behind)
    assert not outcome.wrong(case), outcome.said


@pytest.mark.parametrize("far", ["listen", "connect"])
def test_the_other_direction_goes_on_when_a_consumer_has_all_and_leaves(
    start: Start, path: Path, far: str
) -> None:
    near = "connect" if far == "listen" else "listen"
    asking = start.bpipe(near, str(path), stdin=PIPE, stdout=PIPE)
    answering = start.bpipe(far, str(path), stdin=PIPE, stdout=PIPE)
    asking.stdin.write(b"question\n")
    asking.stdin.close()
    assert os.read(answering.stdout.fileno(), 100) == b"question\n"
    answering.stdout.close()
    answering.feed(3 * MIB)
    assert asking.drain().wait_end() == 3 * MIB
    assert finish(asking, answering) == [0, 0]
