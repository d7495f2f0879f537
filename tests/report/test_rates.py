from __future__ import annotations

import pytest

from bpipe.report.events import Event, Started
from bpipe.report.rates import Rate, RateUnread


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Rate(2 << 20), "at most 2.0 MiB/s from now on"),
        (Rate(None), "no limit from now on"),
        (RateUnread("f: why", 2048), "--rate: f: why; as before: at most 2.0 KiB/s"),
        (RateUnread("why", None), "--rate: why; as before: no limit"),
        (
            Started("connect", "0.1.0", 7, "far:1", None, 4096),
            "bpipe 0.1.0, process 7: connect far:1, at most 4.0 KiB/s",
        ),
    ],
)
def test_it_says_what_counts(event: Event, words: str) -> None:
    assert event.words() == words
