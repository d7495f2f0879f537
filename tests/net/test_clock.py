"""The clock."""

from __future__ import annotations

import time

import pytest

from bpipe.net.clock import clock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="there is none here")
def test_it_runs_on_while_the_machine_sleeps() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = clock()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_it_never_goes_back() -> None:
    times = [clock() for _ in range(1000)]
    assert times == sorted(times)
