"""What the options mean for those below that say how a session connects, and how long it waits."""

from __future__ import annotations

import pytest
import typer

from bpipe.cli.tuning import Tuning
from bpipe.net.ways import Links, links_of
from bpipe.protocol.patience import Limits


def test_limits() -> None:
    usual = Limits(give_up_after=9.0)
    assert Tuning().terms(5, usual) == {"buffer_size": 5, "limits": usual, "needs": 0}
    tuning = Tuning(1.0, 0.0, retry_max=4.0, heartbeat=3.0, buffer=7)
    limits = Limits(3.0, 1.0, 0.0, retry_max=4.0)
    assert tuning.terms(5, usual) == {"buffer_size": 7, "limits": limits, "needs": 0}
    assert Tuning().terms(1 << 10, usual, 3)["needs"] == 3
    with pytest.raises(typer.BadParameter, match="--output needs a --buffer of at least 1K"):
        tuning.terms(1 << 10, usual, 3)


@pytest.mark.parametrize(
    ("tuning", "links", "total"),
    [
        (Tuning(), 1, 1),
        (Tuning(links=4), 4, 4),
        (Tuning(bind=["lo", "::1"], congestion="reno"), Links(None, ("lo", "::1"), "reno"), 2),
        (Tuning(bind=["lo"], links=3), Links(3, ("lo",)), 3),
    ],
)
def test_links_of_who_calls(tuning: Tuning, links: int | Links, total: int) -> None:
    assert tuning.calling() == links
    assert links_of(links).total() == total


@pytest.mark.parametrize(
    ("tuning", "why"),
    [
        (Tuning(links=1, bind=["lo", "::1"]), "--bind: 2 of them need as many links, not 1"),
        (Tuning(bind=["lo"] * 9), "--bind: there can be 1 to 8 links, not 9"),
    ],
)
def test_links_of_who_calls_are_as_many_as_they_can_be(tuning: Tuning, why: str) -> None:
    with pytest.raises(typer.BadParameter, match=why):
        tuning.calling()


def test_links_of_who_is_called() -> None:
    assert Tuning().listening() == Links(8)
    assert Tuning(max_links=1, congestion="reno").listening() == Links(1, (), "reno")
