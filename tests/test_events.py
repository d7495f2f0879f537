"""The events: what people are told of them, and that the manual has their schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bpipe.cli import events
from bpipe.cli.events import Done, Listening, Progress, Totals, to_json

MANUAL = Path(__file__).parent.parent / "man" / "bpipe.1"
MIB = 1 << 20


CLASSES = [
    each for each in vars(events).values() if hasattr(each, "_fields") and hasattr(each, "words")
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
    line = to_json(Listening("unix:/a\nb", None), 1764000000.12345)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": 1764000000.123,
        "event": "listening",
        "address": "unix:/a\nb",
        "port": None,
    }


def test_the_totals_are_fields_among_the_others() -> None:
    done = json.loads(to_json(Done(4, "why", Totals(sent=5)), 0))
    assert (done["event"], done["status"], done["reason"]) == ("done", 4, "why")
    assert (done["sent"], done["confirmed"]) == (5, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"sent": 4300 * MIB, "confirmed": 4300 * MIB, "elapsed": 192.0, "reconnects": 3},
            "sent 4.2 GiB in 3m12s (22.4 MiB/s), 3 reconnects, all delivered",
        ),
        (
            {"received": MIB, "delivered": MIB, "elapsed": 2.0, "reconnects": 1},
            "received 1.0 MiB in 2s (512.0 KiB/s), 1 reconnect, all delivered",
        ),
        (
            {"sent": 1024, "received": 2048, "elapsed": 2.0},
            "sent 1.0 KiB and received 2.0 KiB in 2s (1.0 KiB/s), all delivered",
        ),
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
    assert Done(status, reason, Totals(**fields)).words() == said


def test_the_progress_in_words() -> None:
    progress = Progress(
        state="connected",
        peer="there:1",
        outage=3.0,
        round_trip=None,
        totals=Totals(sent=3072, confirmed=2048, received=10, delivered=5, reconnects=2),
    )
    assert progress.words() == (
        "connected there:1; no progress for 3s; sent 3.0 KiB, 2.0 KiB confirmed;"
        " received 10 B, 5 B delivered; 2 reconnects"
    )
