"""What came, in any window; and the longest time without anything."""

from __future__ import annotations

import math
import os

from tests.bench.arrivals import Arrivals, arriving, wait_first


def test_windows_and_gaps() -> None:
    arrivals = Arrivals()
    for at, count in ((10.0, 1), (10.25, 2), (10.5, 4), (11.0, 8)):
        arrivals.add(at, count)
    assert arrivals.first == 10.0
    assert arrivals.moved(10.0, 10.5) == 3
    assert arrivals.moved(0.0, 20.0) == 15
    assert arrivals.windows(10.0, 10.7, 0.5) == [3, 6, 6]
    assert arrivals.gap(10.0, 11.0) == 0.5
    assert arrivals.gap(10.5, 12.0) == 1.0
    assert arrivals.gap(0.0, 5.0) == 5.0
    assert [arrivals.after(each) for each in (10.25, 10.375, 11.5)] == [0.0, 0.125, math.inf]


def test_all_that_is_read_counts() -> None:
    (one, first), (two, second) = os.pipe(), os.pipe()
    with arriving([one, two]) as arrivals:
        os.write(second, bytes(5))
        at = wait_first(arrivals)
        os.close(second)
        os.write(first, bytes(7))
        while arrivals.moved(at, at + 100) < 12:
            pass
    for descriptor in (one, two, first):
        os.close(descriptor)
