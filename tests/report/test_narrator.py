"""What is told of a pipe, and what is not worth telling."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpipe.report import narrator as module
from bpipe.report.flood import PERIOD
from bpipe.report.narrator import MOST, Narrator
from bpipe.status import State, Status
from tests.support.outputs import Recorder
from tests.support.statuses import BEFORE, over

UP = replace(BEFORE, state=State.CONNECTED, links=1)
DOWN = replace(UP, state=State.RECONNECTING, cause="reset", away=0.0)
AGAIN = replace(UP, links=2, cause="reset", away=4.2)
NOBODY = replace(BEFORE, cause="nobody", attempts=1)
ALL_DOWN = replace(over((-1, -1)), state=State.RECONNECTING, cause="reset", away=0.0)
FAR = tuple(
    each._replace(cause=why) for each, why in zip(ALL_DOWN.slots, ("too far", "late"), strict=True)
)
LEFT = replace(BEFORE, cause="closed")  # as a listener has it whose caller was never heard


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([UP], "connected to there:1"),
        ([UP, UP], "connected to there:1"),
        ([UP, DOWN], "connected to there:1|connection lost: reset; reconnecting"),
        ([replace(UP, written=5)], "connected to there:1"),
        (
            [UP, DOWN, replace(DOWN, away=4.1), AGAIN],
            "connected to there:1|connection lost: reset; reconnecting"
            "|connected again to there:1 after 4.2s",
        ),
        (  # over before anybody looked
            [UP, replace(AGAIN, replayed=2048)],
            "connected to there:1|connected again to there:1 after 4.2s, 2.0 KiB sent again",
        ),
        ([NOBODY], "(attempt 1: nobody; again in 0.5s)"),
        ([NOBODY, NOBODY], "(attempt 1: nobody; again in 0.5s)"),
        (
            [replace(NOBODY, attempts=number) for number in range(1, 8)],
            "(attempt 1: nobody; again in 0.5s)|(attempt 2: nobody; again in 0.5s)"
            "|(attempt 4: nobody; again in 0.5s)",
        ),
        (
            [UP, DOWN, replace(DOWN, cause="nobody", attempts=1)],
            "connected to there:1|connection lost: reset; reconnecting"
            "|(attempt 1: nobody; again in 0.5s)",
        ),
        (  # the end of the peer's stream came with the greeting
            [replace(BEFORE, links=1, peer_finished=True), replace(UP, peer_finished=True)],
            "connected to there:1|(the peer has finished, after 0 B)",
        ),
        (
            [UP, replace(UP, received=2048, peer_finished=True)],
            "connected to there:1|(the peer has finished, after 2.0 KiB)",
        ),
        (
            [UP, replace(UP, state=State.FINISHING), replace(UP, state=State.OVER)],
            "connected to there:1",
        ),
        ([replace(UP, state=State.FINISHING)], "connected to there:1"),
        (
            [over((1, 0)), over((1, 1)), over((-1, 1)), over((2, 1))],
            "connected to far.example:7000",
        ),
        (
            [over((1, 1)), ALL_DOWN, replace(over((2, -1)), beside=1, away=4.2, replayed=99)],
            "connected to far.example:7000|connection lost: reset; reconnecting"
            "|connected again to far.example:7000 after 4.2s",
        ),
        (  # which take turns
            [
                over((1, 1)),
                ALL_DOWN,
                *(
                    replace(ALL_DOWN, slots=FAR, cause=each.cause, attempts=number)
                    for number in range(1, 6)
                    for each in FAR
                ),
            ],
            "connected to far.example:7000|connection lost: reset; reconnecting"
            "|(attempt 1: too far; again in 0ms)|(attempt 2: too far; again in 0ms)"
            "|(attempt 4: too far; again in 0ms)",
        ),
        (
            [UP, LEFT, UP],
            "connected to there:1|connection lost: closed; waiting for a caller"
            "|connected to there:1",
        ),
    ],
)
def test_each_change_of_state_is_one_event(history: list[Status], said: str) -> None:
    recorder = Recorder()
    narrator = Narrator(recorder, BEFORE)
    for status in history:
        narrator.look(status)
    assert "|".join(recorder.lines) == said


def test_of_a_loop_of_losses_the_first_are_told_and_then_how_many_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(module, "clock", lambda: now)
    recorder = Recorder()
    narrator = Narrator(recorder, BEFORE)
    narrator.look(UP)
    for links in range(1, 1001):
        narrator.look(replace(DOWN, links=links, attempts=links))
        narrator.look(replace(AGAIN, links=links + 1))
    told = [line.partition(":")[0].partition(" to ")[0] for line in recorder.lines]
    assert told == ["connected", *MOST * ["connection lost", "connected again"]]
    now = PERIOD
    narrator.sum_up()
    assert recorder.lines[-1] == (
        f"the connection was lost {1000 - MOST} more times in the last minute; now connected"
    )


def test_a_loss_that_lasts_is_told_with_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "clock", lambda: now)
    recorder = Recorder()
    narrator = Narrator(recorder, BEFORE)
    for links in range(1, MOST + 2):
        narrator.look(replace(UP, links=links))
        narrator.look(replace(DOWN, links=links))
    now = PERIOD
    narrator.sum_up()
    assert recorder.lines[-1] == (
        "the connection was lost 1 more time in the last minute; now reconnecting"
    )
    narrator.look(replace(UP, links=MOST + 2, away=70.0))
    assert recorder.lines[-1] == "connected again to there:1 after 1m10s"
