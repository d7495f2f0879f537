"""The status line of many sessions: what is said at which width."""

from __future__ import annotations

import pytest

from bpipe.report.service_line import service_line
from bpipe.report.totals import Listener, Totals
from tests.support.statuses import MIB

NONE = Listener(
    address="127.0.0.1:7000",
    sessions=0,
    away=0,
    most=64,
    draining=False,
    served=0,
    failed=0,
    refused=0,
    held=0,
    rate=0,
    totals=Totals(elapsed=3.2),
)
SOME = NONE._replace(
    sessions=3,
    served=3,
    rate=30 * MIB,
    totals=Totals(
        sent=1300 * MIB, confirmed=1228 * MIB, received=40 * MIB, delivered=40 * MIB, elapsed=192.3
    ),
)
TROUBLE = SOME._replace(
    sessions=61,
    served=4200,
    away=17,
    failed=12,
    refused=1234,
    held=12 * MIB,
    totals=SOME.totals._replace(reconnects=7),
)
FILES = NONE._replace(
    totals=Totals(
        received=205 * MIB, delivered=205 * MIB, compared=12 << 30, equal=12083 * MIB, elapsed=120.0
    ),
)


def text(now: Listener, width: int) -> str:
    """The line without its styles."""
    return "".join(span.text for span in service_line(now, width))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (NONE, "serving at 127.0.0.1:7000  0 sessions  elapsed 3s"),
        (NONE._replace(sessions=1), "serving at 127.0.0.1:7000  1 session  idle  elapsed 3s"),
        (SOME, "serving  3 sessions  sent 1.2 GiB  30.0 MiB/s"),
        (TROUBLE, "serving  61 sessions  17 away  12 failed  30.0 MiB/s"),
        (FILES, "serving  0 sessions  11.8 GiB equal  received 205.0 MiB"),
        (SOME._replace(draining=True), "draining  3 sessions  sent 1.2 GiB  30.0 MiB/s"),
    ],
)
def test_sixty_columns_say_what_matters(now: Listener, said: str) -> None:
    assert text(now, 60) == said


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            FILES,
            "serving at 127.0.0.1:7000  0 sessions  12.0 GiB compared, 11.8 equal"
            "  received 205.0 MiB  elapsed 2m00s",
        ),
        (
            SOME,
            "serving at 127.0.0.1:7000  3 sessions  sent 1.2 GiB  received 40.0 MiB  30.0 MiB/s"
            "  elapsed 3m12s",
        ),
        (
            TROUBLE,
            "serving at 127.0.0.1:7000  61 of 64 sessions  17 away  12 failed  sent 1.2 GiB"
            "  received 40.0 MiB  30.0 MiB/s  12.0 MiB held  4200 in all"
            "  1234 callers refused  7 reconnects  elapsed 3m12s",
        ),
    ],
)
def test_two_hundred_columns_say_everything(now: Listener, said: str) -> None:
    assert text(now, 220) == said


@pytest.mark.parametrize("now", [NONE, SOME, FILES, TROUBLE, TROUBLE._replace(draining=True)])
def test_no_width_is_exceeded_and_more_columns_never_say_less(now: Listener) -> None:
    lengths = [len(text(now, width)) for width in range(1, 240)]
    assert all(length <= width for width, length in enumerate(lengths, 1))
    assert lengths == sorted(lengths)


def test_the_direction_that_has_moved_more_comes_first() -> None:
    totals = Totals(received=2048, delivered=2048, sent=5, confirmed=5)
    assert "received 2.0 KiB  sent 5 B" in text(SOME._replace(totals=totals), 200)
