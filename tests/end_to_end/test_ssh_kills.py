"""A small part of what ``ssh_kills`` does: the ssh below a ``bpipe ssh`` is killed, cut, silent."""

from __future__ import annotations

import random

import pytest

from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import Shell
from tests.end_to_end.ssh_kills import Plan, Trial, endings, try_endings
from tests.end_to_end.sshd import Near, Sshd

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUICK = ("--heartbeat", "300ms")


def test_bytes_lines_and_status_come_through_kills_and_a_hole(
    start: Start, shell: Shell, sshd: Sshd
) -> None:
    seed = random.SystemRandom().randrange(10**9)
    plan = Plan(8 * MIB, kills=3, cuts=3, holes=1, hole=1.5)
    trial = Trial(start, Near(shell, sshd), sshd.far(), plan, random.Random(seed))
    assert trial.run(*QUICK) == [], f"seed {seed}"
    assert any(trial.stalled.values())
    assert len(trial.proxy.faults.made) > 0


def test_each_way_to_end_is_told_whatever_the_connection_does(
    start: Start, shell: Shell, sshd: Sshd
) -> None:
    seed = random.SystemRandom().randrange(10**9)
    rng = random.Random(seed)
    every = endings()
    sample = [every[0], every[255], rng.choice(every[1:255]), rng.choice(every[256:])]
    assert try_endings(start, shell.folder, sshd, sample, rng) == [], f"seed {seed}"
