"""The events: what people are told of them, and that the manual has their schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bpipe.report import events, totals
from bpipe.report.events import Invitation, Listening, Trying, Unsteady, to_json
from bpipe.report.totals import Done, Progress, Totals

MANUAL = Path(__file__).parents[2] / "man" / "bpipe.1"
MIB = 1 << 20


CLASSES = [
    each
    for each in {**vars(events), **vars(totals)}.values()
    if hasattr(each, "_fields") and hasattr(each, "words")
]


def schema_in_the_manual() -> dict[str, set[str]]:
    """The fields of each event: what is marked as a variable in the text of its item."""
    section = MANUAL.read_text().partition(".Ss Events\n")[2].partition("\n.S")[0]
    texts, _, last = section.partition("\nThese are the totals:\n")
    totals = variables(last)
    fields = {}
    for item in re.split(r"^\.It Cm ", texts, flags=re.MULTILINE)[1:]:
        name, _, text = item.partition("\n")
        fields[name] = variables(text) | (totals if "the totals" in text else set())
    return fields


def variables(text: str) -> set[str]:
    return set(re.findall(r"^\.(?:It )?Va (\w+)", text, re.MULTILINE))


def test_the_manual_has_every_event_with_every_field() -> None:
    program = {}
    for each in CLASSES:
        fields = set(each._fields)
        if "totals" in fields:
            fields = fields - {"totals"} | set(Totals._fields)
        program[events.name(each)] = fields
    assert schema_in_the_manual() == program


def test_the_json_is_one_line_with_the_fields_the_time_and_the_name() -> None:
    line = to_json(Listening("unix:/a\nb", None, "user", False), "cafe", 1764000000.12345)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": 1764000000.123,
        "run": "cafe",
        "event": "listening",
        "address": "unix:/a\nb",
        "port": None,
        "reach": "user",
        "sealed": False,
    }


def test_the_totals_are_fields_among_the_others() -> None:
    done = json.loads(to_json(Done(4, "why", "lost", None, Totals(sent=5)), "cafe", 0))
    assert (done["event"], done["status"], done["reason"]) == ("done", 4, "why")
    assert (done["sent"], done["confirmed"]) == (5, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"sent": 4300 * MIB, "confirmed": 4300 * MIB, "elapsed": 192.0, "reconnects": 3},
            "sent 4.2 GiB (4,508,876,800 bytes) in 3m12s (22.4 MiB/s), 3 reconnects, all delivered",
        ),
        (
            {"received": MIB, "delivered": MIB, "elapsed": 2.0, "reconnects": 1},
            "received 1.0 MiB (1,048,576 bytes) in 2s (512.0 KiB/s), 1 reconnect, all delivered",
        ),
        (
            {"sent": 1024, "received": 2048, "elapsed": 2.0},
            "sent 1.0 KiB (1,024 bytes) and received 2.0 KiB (2,048 bytes) in 2s (1.0 KiB/s),"
            " all delivered",
        ),
        (
            {"sent": 600, "elapsed": 2.0, "size": 3000},
            "sent 600 B in 2s (300 B/s), all delivered; 2.3 KiB (2,400 bytes) less than expected",
        ),
        ({"sent": 600, "elapsed": 2.0, "size": 600}, "sent 600 B in 2s (300 B/s), all delivered"),
        ({}, "done; both streams were empty"),
        (
            {"status": 3, "reason": "localhost:1: connection refused"},
            "localhost:1: connection refused; nothing was read from stdin: it can be started again",
        ),
        (
            {"status": 4, "reason": "gave up; 5 bytes are confirmed, 2 more are not", "sent": 7},
            "gave up; 5 bytes are confirmed, 2 more are not;"
            " start both ends again, from the beginning",
        ),
        (
            {"status": 4, "reason": "delivery not confirmed", "sent": 7, "confirmed": 7},
            "delivery not confirmed; see what the far side has before it is sent again",
        ),
        (
            {"status": 1, "reason": "the other end: full", "sent": 7, "confirmed": 1},
            "the other end: full; 1 byte confirmed, 6 more not;"
            " start both ends again, from the beginning",
        ),
        (
            {"status": 1, "reason": "the other end: full", "received": 9, "delivered": 8},
            "the other end: full; 8 bytes received; start both ends again, from the beginning",
        ),
        (
            {"status": 141, "reason": "the far side stopped reading", "sent": 7, "confirmed": 5},
            "the far side stopped reading; 5 bytes confirmed, 2 more not",
        ),
        ({"status": 130, "reason": "interrupted by SIGINT"}, "interrupted by SIGINT"),
        ({"status": 2, "reason": "a bad address"}, "a bad address"),
    ],
)
def test_the_last_line(fields: dict[str, Any], said: str) -> None:
    status, reason = fields.pop("status", 0), fields.pop("reason", None)
    size = fields.pop("size", None)
    assert Done(status, reason, None, size, Totals(**fields)).words() == said


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


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            Listening("127.0.0.1:7", 7, "machine", False),
            "listening on 127.0.0.1:7, for this machine only (no secret)",
        ),
        (
            Listening("localhost:7", 7, "machine", True),
            "listening on localhost:7, for this machine only",
        ),
        (Listening("unix:/s", None, "user", False), "listening on unix:/s, for this user only"),
        (Listening("*:7", 7, "network", True), "listening on *:7"),
        (
            Invitation("bpipe connect HOST:7 --secret k"),
            "on the other machine: bpipe connect HOST:7 --secret k",
        ),
        (
            Trying("far:7", "no answer yet", "silent", 27.9),
            "far:7: no answer yet; trying for 27s more",
        ),
        (
            Trying("far:7", "cannot resolve far: unknown", "address", 1.2),
            "cannot resolve far: unknown; trying for 1s more",
        ),
        (
            Unsteady(1423, "connected"),
            "the connection was lost 1423 more times in the last minute; now connected",
        ),
    ],
)
def test_what_is_said_of_it(event: events.Event, said: str) -> None:
    assert event.words() == said


def test_no_number_has_more_digits_than_anybody_needs() -> None:
    line = to_json(Trying("far:7", "why", "refused", 27.123456), "cafe", 1764000000.12345)
    assert not re.search(r"\.\d{4}", line)
