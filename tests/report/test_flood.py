"""What happens again and again: so much of it is told, and then how often it was."""

from __future__ import annotations

import pytest

from bpipe.report import flood as module
from bpipe.report.flood import PERIOD, STRANGERS_EVERY, Flood, Strangers
from tests.support.outputs import Recorder


def test_a_loop_that_goes_on_is_one_line_a_minute_and_one_that_has_ended_is_forgotten() -> None:
    flood = Flood(10)
    for second in range(300):
        for _ in range(10):
            flood.count(float(second))
        if flood.untold and not flood.due_in(float(second)):
            assert flood.sum_up(float(second)) >= 500
            assert not flood.count(float(second))
    flood.sum_up(300.0)
    assert flood.sum_up(360.0) == 0
    assert flood.count(500.0)


def test_what_comes_slowly_is_told_each_time() -> None:
    flood = Flood(10)
    assert all(flood.count(number * PERIOD / 10) for number in range(100))
    assert flood.untold == 0


def test_callers_that_were_refused_are_told_at_once_and_then_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "clock", lambda: now)
    recorder = Recorder()
    strangers = Strangers(recorder.tell)
    strangers.look(0)
    for refused in range(1, 100):
        strangers.look(refused)
    now += STRANGERS_EVERY
    for refused in (99, 99, 120):
        strangers.look(refused)
    told = [line.partition(" refused")[0] for line in recorder.lines]
    assert told == ["1 caller", "98 callers"]
