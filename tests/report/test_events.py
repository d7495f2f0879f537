"""The events: what people are told of them. That the manual has them: ``test_manual_events.py``."""

from __future__ import annotations

import json
import re

import pytest

from bpipe.report import events
from bpipe.report.events import (
    Crowded,
    Draining,
    Forwarding,
    Invitation,
    Listening,
    OfSession,
    Retrying,
    Trying,
    Unsteady,
    to_json,
)
from bpipe.report.totals import Done, Totals


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
    done = json.loads(to_json(Done(4, "why", "lost", None, Totals(sent=5), "do this"), "cafe", 0))
    assert (done["event"], done["status"], done["reason"]) == ("done", 4, "why")
    assert (done["sent"], done["confirmed"]) == (5, 0)
    assert "do this" not in done.values()


@pytest.mark.parametrize("whose", [None, "program", "bpipe"])
def test_whose_failure_it_is(whose: str | None) -> None:
    done = json.loads(to_json(Done(1, "why", from_=whose), "cafe", 0))
    assert done["from"] == whose
    assert not any(key.endswith("_") for key in done)


def test_an_event_of_one_session_is_the_event_with_a_number_or_the_id() -> None:
    unsteady = Unsteady(7, "connected")
    event = OfSession(unsteady, 3, "beef")
    assert event.words() == f"session 3: {unsteady.words()}"
    told, plain = json.loads(to_json(event, "cafe", 0)), json.loads(to_json(unsteady, "cafe", 0))
    assert told.pop("session") == "beef"
    assert told == plain


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            Listening("127.0.0.1:7", 7, "machine", False),
            "listening on 127.0.0.1:7, for this machine only; others need --secret (bpipe keygen)",
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
        (Retrying("refused", "refused", 8, 0.877), "attempt 8: refused; again in 0.88s"),
        (Retrying("cut", "reset", 0, 0.0), "no connection yet: cut"),
        (
            Unsteady(1423, "connected"),
            "the connection was lost 1423 more times in the last minute; now connected",
        ),
        (
            Forwarding("127.0.0.1:5432", "far:7", "machine"),
            "connections to 127.0.0.1:5432 go to far:7",
        ),
        (
            Forwarding("0.0.0.0:5432", "far:7", "network"),
            "connections to 0.0.0.0:5432, those of other machines too, go to far:7",
        ),
        (Crowded(1, 0), "1 more session began in the last minute"),
        (Crowded(0, 7), "7 more sessions failed in the last minute"),
        (Draining(3, 30.0), "no more sessions are taken; 3 may go on for 30s"),
        (Draining(0, 30.0), "no more sessions are taken"),
    ],
)
def test_what_is_said_of_it(event: events.Event, said: str) -> None:
    assert event.words() == said


def test_no_number_has_more_digits_than_anybody_needs() -> None:
    line = to_json(Trying("far:7", "why", "refused", 27.123456), "cafe", 1764000000.12345)
    assert not re.search(r"\.\d{4}", line)
