"""How a run ended, and how far it has come: the lines that people read last."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bpipe.errors import (
    Busy,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    ProgramFailed,
    SessionEnded,
    SessionLost,
)
from bpipe.report.events import to_json
from bpipe.report.totals import Done, Listener, Progress, Totals, advice, origin
from tests.support.statuses import over

MIB = 1 << 20
AGAIN = "nothing was read from stdin: it can be started again"
BOTH = "start both ends again, from the beginning"
CHECK = "see what the far side has before it is sent again"


@pytest.mark.parametrize(
    ("totals", "size", "said"),
    [
        (
            Totals(sent=4300 * MIB, confirmed=4300 * MIB, elapsed=192.0, reconnects=3),
            None,
            "sent 4.2 GiB (4,508,876,800 bytes) in 3m12s (22.4 MiB/s), 3 reconnects, all delivered",
        ),
        (
            Totals(received=MIB, delivered=MIB, elapsed=2.0, reconnects=1),
            None,
            "received 1.0 MiB (1,048,576 bytes) in 2s (512.0 KiB/s), 1 reconnect, all delivered",
        ),
        (
            Totals(sent=1024, received=2048, elapsed=2.0),
            None,
            "sent 1.0 KiB (1,024 bytes) and received 2.0 KiB (2,048 bytes) in 2s (1.0 KiB/s),"
            " all delivered",
        ),
        (
            Totals(sent=600, elapsed=2.0),
            3000,
            "sent 600 B in 2s (300 B/s), all delivered; 2.3 KiB (2,400 bytes) less than expected",
        ),
        (Totals(sent=600, elapsed=2.0), 600, "sent 600 B in 2s (300 B/s), all delivered"),
        (Totals(), None, "done; both streams were empty"),
    ],
)
def test_the_last_line_of_a_success(totals: Totals, size: int | None, said: str) -> None:
    assert Done(0, None, None, size, totals).words() == said


@pytest.mark.parametrize(
    ("failure", "totals", "said"),
    [
        (NotConnected("nobody"), {}, AGAIN),
        (NotConnected("nobody", "refused"), {}, AGAIN),
        (NotConnected("who?", "no-such-name"), {}, ""),
        (Busy("another session"), {}, ""),
        (SessionLost("2 more are not"), {"sent": 7, "confirmed": 5}, BOTH),
        (SessionLost("not confirmed"), {"sent": 7, "confirmed": 7}, CHECK),
        (SessionLost("gave up"), {"received": 9, "delivered": 9}, f"9 bytes received; {BOTH}"),
        (
            PeerAborted("full"),
            {"sent": 7, "confirmed": 1},
            f"1 byte confirmed, 6 more not; {BOTH}",
        ),
        (PeerAborted("full"), {"received": 9, "delivered": 8}, f"8 bytes received; {BOTH}"),
        (LocalAbort("cannot read stdin"), {}, ""),
        (SessionEnded("a bug"), {"sent": 1}, f"0 bytes confirmed, 1 more not; {BOTH}"),
        (PipeClosed("head"), {"sent": 7, "confirmed": 5}, "5 bytes confirmed, 2 more not"),
    ],
)
def test_what_is_advised_after_a_failure(
    failure: SessionEnded, totals: dict[str, Any], said: str
) -> None:
    assert advice(failure, Totals(**totals)) == said


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (LocalAbort("^C"), "5 bytes confirmed, 2 more not; "),
        (SessionLost("gone; 5 bytes are confirmed, 2 more are not"), ""),
    ],
)
def test_who_interrupts_it_is_told_how_far_it_got_once_and_not_what_to_do(
    failure: SessionEnded, said: str
) -> None:
    assert advice(failure, Totals(), interrupted=True) == ""
    got = advice(failure, Totals(sent=7, confirmed=5, received=1, delivered=1), interrupted=True)
    assert got == f"{said}1 byte received"


@pytest.mark.parametrize(
    ("failure", "whose"),
    [(None, None), (ProgramFailed("status 1"), "program"), (PipeClosed("head"), "bpipe")],
)
def test_whose_failure_it_is(failure: SessionEnded | None, whose: str | None) -> None:
    assert origin(failure) == whose


@pytest.mark.parametrize(("advice", "said"), [("", "why"), ("do this", "why; do this")])
def test_the_last_line_of_a_failure(advice: str, said: str) -> None:
    assert Done(1, "why", "code", None, Totals(sent=5), advice).words() == said


def test_the_progress_in_words() -> None:
    progress = Progress(
        state="connected",
        peer="there:1",
        outage=3.0,
        round_trip=None,
        size=8192,
        rate=1 << 20,
        totals=Totals(sent=3072, confirmed=2048, received=10, delivered=5, reconnects=2),
    )
    assert progress.words() == (
        "connected there:1; nothing heard for 3s; sent 3.0 KiB, 2.0 KiB confirmed;"
        " received 10 B, 5 B delivered; 25%; 1.0 MiB/s; 2 reconnects"
    )


LISTENER = Listener(
    address="here:1",
    sessions=1,
    away=0,
    most=64,
    draining=False,
    served=1,
    failed=0,
    refused=0,
    held=0,
    rate=0,
    totals=Totals(),
)
MANY = LISTENER._replace(
    sessions=3,
    away=1,
    served=42,
    failed=2,
    refused=5,
    held=12 * MIB,
    rate=30 * MIB,
    totals=Totals(sent=3072, confirmed=2048, received=10, delivered=5, reconnects=7),
)


@pytest.mark.parametrize(
    ("listener", "now", "in_all"),
    [
        (
            LISTENER,
            "1 session; 1 in all; sent 0 B, 0 B confirmed; received 0 B, 0 B delivered;"
            " 0 reconnects",
            "served 1 session",
        ),
        (
            MANY,
            "3 sessions, 1 without a connection; 42 in all, 2 failed;"
            " sent 3.0 KiB, 2.0 KiB confirmed; received 10 B, 5 B delivered;"
            " 12.0 MiB held; 30.0 MiB/s; 7 reconnects; 5 callers refused",
            "served 42 sessions, 2 failed; sent 3.0 KiB (3,072 bytes) and received 10 B",
        ),
    ],
)
def test_many_sessions_in_words(listener: Listener, now: str, in_all: str) -> None:
    assert listener.words() == now
    assert listener.served_in_all() == in_all


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ((), "sent 600 B in 2s (300 B/s), all delivered"),
        ((-1, -3), "sent 600 B in 2s (300 B/s) over 2 links, all delivered"),
        ((-1, 0, -1), "sent 600 B in 2s (300 B/s) over 2 of 3 links, all delivered"),
    ],
)
def test_the_last_line_tells_over_how_many_links(links: tuple[int, ...], said: str) -> None:
    done = Done(0, None, None, None, Totals(sent=600, elapsed=2.0)).over(over(links))
    assert done.words() == said
    fields = json.loads(to_json(done, "cafe", 0))
    slots = {"used", "slots"} & set(fields)
    assert slots == ({"used", "slots"} if links else set())


def test_where_it_stands_tells_how_many_links_there_are() -> None:
    progress = Progress("connected", "far:7", None, None, None, 0, Totals(), 3, 4)
    assert progress.words().startswith("connected far:7; 3 of 4 links; sent 0 B")
