"""What is told of a stream that becomes a file, at both of its ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bpipe.ends.file_sink import FileOutcome
from bpipe.errors import (
    Busy,
    LocalAbort,
    NotConnected,
    PeerAborted,
    ProgramFailed,
    SessionEnded,
    SessionLost,
)
from bpipe.report.files import Writing, told
from bpipe.report.totals import Done, Totals, advice
from bpipe.status import Status, Tally
from tests.support.statuses import BEFORE, COMPARING, FILING, MIB, over

NAMED = FileOutcome(named=True, kept=False, file="a.tar", part="a.tar.part")
KEPT = NAMED._replace(named=False, kept=True)
GONE = KEPT._replace(kept=False)
SENT = Totals(sent=500 * MIB, confirmed=500 * MIB, elapsed=100.0)
GOT = Totals(received=500 * MIB, delivered=500 * MIB, elapsed=100.0)
MOVED = "500.0 MiB (524,288,000 bytes)"


@pytest.mark.parametrize(
    ("writing", "said"),
    [
        (Writing("a.tar", 0, False, True), "a.tar: nothing of it is here yet"),
        (
            Writing("a", 12 << 30, False, True),
            "a: 12.0 GiB are here already; what is equal is not sent",
        ),
        (
            Writing("a", 12 << 30, False, False),
            "a: 12.0 GiB are here already; all of it is sent again",
        ),
        (Writing("a", 12 << 30, False, None), "a: 12.0 GiB are here already"),
        (
            Writing("/dev/x", 9, True, True),
            "/dev/x is written in place: what differs is overwritten",
        ),
    ],
)
def test_where_it_goes(writing: Writing, said: str) -> None:
    assert writing.words() == said


@pytest.mark.parametrize(
    ("totals", "tally", "filed", "said"),
    [
        (SENT, Tally(), None, f"sent {MOVED} in 1m40s (5.0 MiB/s), all on the disk there"),
        (
            SENT._replace(equal=9500 * MIB, reconnects=2),
            Tally(10_000 * MIB, 9500 * MIB, 500 * MIB),
            None,
            f"sent {MOVED} of 9.8 GiB, as the rest was there, in 1m40s (100.0 MiB/s with the"
            " rest), 2 reconnects,"
            " all on the disk there",
        ),
        (GOT, Tally(), NAMED, f"received {MOVED} in 1m40s (5.0 MiB/s); a.tar is on the disk"),
        (
            Totals(equal=500 * MIB, elapsed=100.0),
            Tally(500 * MIB, 500 * MIB, 0, incoming=True),
            NAMED,
            "received 0 B of 500.0 MiB, as the rest was here, in 1m40s (5.0 MiB/s with the rest);"
            " a.tar is on the disk",
        ),
        (
            GOT,
            Tally(),
            NAMED._replace(file="/dev/x", tail=2048),
            f"received {MOVED} in 1m40s (5.0 MiB/s); /dev/x is on the disk, and its last"
            " 2.0 KiB (2,048 bytes) are as before",
        ),
        (Totals(), Tally(), NAMED, "received 0 B in 0ms (0 B/s); a.tar is on the disk"),
    ],
)
def test_the_last_line_of_a_success(
    totals: Totals, tally: Tally, filed: FileOutcome | None, said: str
) -> None:
    done = Done(0, None, totals=totals)
    status = replace(FILING if filed else COMPARING, tally=tally)
    assert told(done, None, status, filed, "both ends").words() == said


def test_over_how_many_links_is_told_at_both_ends() -> None:
    status = over((1, 1))
    for totals, filed in ((SENT, None), (GOT, NAMED)):
        done = told(Done(0, None, totals=totals).over(status), None, status, filed, "it")
        assert " (5.0 MiB/s) over 2 links" in done.words()


def test_what_was_expected_is_compared_with_all_of_it() -> None:
    totals = SENT._replace(equal=500 * MIB)
    status = replace(COMPARING, tally=Tally(500 * MIB, 500 * MIB, 500 * MIB))
    for size, lacks in ((1000 * MIB, False), (1001 * MIB, True)):
        words = told(Done(0, None, None, size, totals), None, status, None, "").words()
        assert words.endswith("; 1.0 MiB (1,048,576 bytes) less than expected") is lacks


CONFIRMED = "524288000 bytes confirmed, 20971520 more not"
STAYS = "what has come stays in a.tar.part"
GOES_ON = "the same commands go on from there"
NOT_AGAIN = "what the other end keeps is not sent again"


@pytest.mark.parametrize(
    ("failure", "status", "filed", "ends", "said"),
    [
        (SessionLost("gave up"), COMPARING, None, "both ends", GOES_ON),
        (PeerAborted("it was removed"), COMPARING, None, "both ends", f"{CONFIRMED}; {NOT_AGAIN}"),
        (LocalAbort("stdin"), COMPARING, None, "both ends", f"{CONFIRMED}; {GOES_ON}"),
        (LocalAbort("protocol error: x"), BEFORE, None, "both ends", NOT_AGAIN),
        (PeerAborted("^C"), COMPARING, None, "", CONFIRMED),
        (SessionLost("5 bytes are confirmed"), COMPARING, None, "", ""),
        (LocalAbort("^C"), COMPARING, None, "", CONFIRMED),
        (
            SessionLost("gave up"),
            FILING,
            KEPT,
            "both ends",
            f"{STAYS}; {GOES_ON}",
        ),
        (LocalAbort("^C"), FILING, KEPT, "", STAYS),
        (PeerAborted("stdin"), FILING, KEPT, "both ends", f"{STAYS}; {GOES_ON}"),
        (PeerAborted('the other end: "protocol error: x"'), FILING, KEPT, "both ends", STAYS),
        (LocalAbort("it is full"), FILING, GONE, "both ends", "a.tar is not written"),
        (LocalAbort("too long"), FILING, KEPT._replace(hopeless=True), "both ends", STAYS),
        (
            ProgramFailed("status 3"),
            FILING,
            KEPT,
            "it",
            f"{STAYS}; the same command goes on from there",
        ),
    ],
)
def test_what_is_advised_after_a_failure(
    failure: SessionEnded, status: Status, filed: FileOutcome | None, ends: str, said: str
) -> None:
    done = told(Done(1, "why", advice="x"), failure, status, filed, ends)
    assert done.advice == said


@pytest.mark.parametrize("failure", [NotConnected("nobody"), Busy("another")])
def test_who_was_never_connected_has_read_no_stdin_if_he_writes_a_file(
    failure: NotConnected,
) -> None:
    more = advice(failure, Totals())
    done = told(Done(3, "nobody", advice=more), failure, FILING, KEPT, "both ends")
    assert done.advice == ("" if isinstance(failure, Busy) else "it can be started again")


@pytest.mark.parametrize(
    ("failure", "filed", "fields"),
    [
        (None, NAMED, {"file": "a.tar", "part": None}),
        (SessionLost("gave up"), KEPT, {"file": None, "part": "a.tar.part"}),
        (SessionLost("gave up"), GONE, {"file": None, "part": None}),
        (SessionLost("gave up"), None, {"file": None, "part": None}),
    ],
)
def test_what_programs_are_told(
    failure: SessionEnded | None, filed: FileOutcome | None, fields: dict[str, Any]
) -> None:
    done = told(Done(0, None), failure, FILING, filed, "both ends")
    assert {"file": done.file, "part": done.part} == fields
