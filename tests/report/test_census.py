"""What is counted over all sessions, those that have ended and those that live."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bpipe.report.census import SAMPLES, Census
from bpipe.report.totals import Totals
from bpipe.status import State, Status, Tally
from tests.support.statuses import BEFORE

UP = replace(BEFORE, state=State.CONNECTED, links=1)
AWAY = replace(UP, state=State.RECONNECTING, links=3, replayed=9)


@dataclass
class Server:
    address: str = "here:1"
    reachable: bool = False
    sealed: bool = False
    refused: int = 0
    most: int = 64


def test_what_has_ended_is_added_to_what_lives() -> None:
    census = Census(100.0)
    moved = Totals(sent=50, confirmed=40, received=30, delivered=20, reconnects=2, elapsed=7.0)
    census.end(moved, failed=True)
    census.end(moved, failed=False)
    up = replace(UP, written=5, confirmed=3, tally=Tally(11, 7, 5))
    sessions = [up, replace(AWAY, received=9, delivered=2)]
    now = census.take(Server(refused=3), sessions, 110.0, draining=True)
    assert (now.address, now.most, now.refused, now.draining) == ("here:1", 64, 3, True)
    assert (now.sessions, now.away, now.served, now.failed) == (2, 1, 4, 1)
    assert now.held == 2 + 7
    assert now.totals == Totals(105, 83, 69, 42, 9, 6, 11, 7, 10.0)


def test_a_session_counts_once_also_when_it_ends() -> None:
    census = Census(0.0)
    lives = census.take(Server(), [replace(UP, written=5, confirmed=5)], 1.0, draining=False)
    census.end(Totals(sent=5, confirmed=5), failed=False)
    ended = census.take(Server(), [], 1.0, draining=False)
    assert (lives.served, lives.totals) == (ended.served, ended.totals)
    assert (lives.sessions, ended.sessions) == (1, 0)


def test_the_rate_is_that_of_the_last_seconds_however_often_it_is_asked_for() -> None:
    census = Census(0.0)

    def rate(moved: int, now: float) -> int:
        half: Status = replace(UP, written=moved // 2, confirmed=moved // 2)
        other = replace(UP, received=moved // 2, delivered=moved // 2)
        return census.take(Server(), [half, other], now, draining=False).rate

    assert rate(0, 0.0) == 0
    same: Status = replace(UP, tally=Tally(1000, 1000, 0))
    assert Census(0.0).take(Server(), [same], 2.0, draining=False).rate == 500
    for second in range(1, 10):
        assert rate(second * 1000, float(second)) == 1000
    for second in range(10, 19):
        slow = rate(9000, float(second))
    assert slow == 0
    for number in range(10 * SAMPLES):
        fast = rate(9000 + number * 10, 19 + number / 100)
    assert 900 <= fast <= 1000
