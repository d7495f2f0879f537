"""The status line of many sessions: what is said at which width."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpipe.report.service_line import Outage, outage, service_line
from bpipe.report.totals import Listener, Totals
from bpipe.status import State, Status
from tests.support.statuses import AWAY, CALLING, MIB, SENDING

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
    rate=44 * MIB,
    totals=Totals(
        received=205 * MIB, delivered=205 * MIB, compared=12 << 30, equal=12083 * MIB, elapsed=120.0
    ),
)


def text(now: Listener, width: int, out: Outage | None = None) -> str:
    """The line without its styles."""
    return "".join(span.text for span in service_line(now, out, width))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (NONE, "serving at 127.0.0.1:7000  0 sessions  elapsed 3s"),
        (NONE._replace(sessions=1), "serving at 127.0.0.1:7000  1 session  idle  elapsed 3s"),
        (SOME, "serving  3 sessions  sent 1.2 GiB  30.0 MiB/s"),
        (TROUBLE, "serving  61 sessions  17 away  12 failed  30.0 MiB/s"),
        (FILES, "serving  0 sessions  received 205.0 MiB  44.0 MiB/s"),
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
            "  received 205.0 MiB  44.0 MiB/s  elapsed 2m00s",
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


def test_what_was_moved_is_shown_while_something_moves_and_what_failed_stays() -> None:
    ended = FILES._replace(rate=0, served=3, failed=1)
    assert text(ended, 200) == (
        "serving at 127.0.0.1:7000  0 sessions  1 failed  3 in all  elapsed 2m00s"
    )
    waiting = text(SOME._replace(rate=0, held=5), 200)
    assert waiting == "serving at 127.0.0.1:7000  3 sessions  idle  5 B held  elapsed 3m12s"


CUT = Outage(12.3, "nothing was heard for 6.0 s")


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (
            200,
            "serving at 127.0.0.1:7000  3 sessions  no connection for 12s"
            "  nothing was heard for 6.0 s  2.0 MiB held  elapsed 3m12s",
        ),
        (80, "serving  3 sessions  no connection for 12s  nothing was heard for 6.0 s"),
        (60, "serving  3 sessions  no connection  nothing was heard for 6…"),
    ],
)
def test_an_outage_of_all_sessions_is_not_idle(width: int, said: str) -> None:
    now = SOME._replace(rate=0, away=3, held=2 * MIB)
    assert text(now, width, CUT) == said


@pytest.mark.parametrize(
    ("sessions", "out"),
    [
        ([], None),
        ([AWAY, SENDING], None),
        ([replace(AWAY, state=State.ABORTING)], None),
        ([AWAY], Outage(42.7, "no answer from far.example:7000")),
        (
            [AWAY, replace(AWAY, away=3.0, cause="far.example:7000: reset"), CALLING],
            Outage(3.0, "reset"),
        ),
        ([CALLING], Outage(None, "connection refused")),
    ],
)
def test_who_was_heard_last_tells_why_all_are_away(
    sessions: list[Status], out: Outage | None
) -> None:
    assert outage(sessions) == out


def test_without_a_first_connection_no_time_is_told() -> None:
    now = NONE._replace(sessions=1, away=1)
    said = text(now, 80, Outage(None, "connection refused"))
    assert said == "serving at 127.0.0.1:7000  1 session  no connection  connection refused  3s"
