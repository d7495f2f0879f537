"""Twenty callers at a listener for eighteen, each cut three times: all is right, nothing left."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bpipe.protocol.wire import Admission
from tests.end_to_end.crowd import Size, crowd

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("sealed", "links"), [(False, 1), (True, 4)], ids=["plain", "sealed, over four links"]
)
def test_a_crowd_that_is_cut(tmp_path: Path, sealed: bool, links: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    outcome = crowd(Size(20, 3, sealed, seed, links), tmp_path)
    assert outcome.wrong == [], f"seed {seed}"
    assert outcome.cuts.total() == 60
    assert outcome.resumed > 20
    assert outcome.refused[Admission.FULL.name] == 0
