"""What people read when something is odd about a program."""

from __future__ import annotations

import pytest

from bpipe.report.oddities import oddity


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "output-held",
            "the program has ended, but process 7 (sleep) holds its output;"
            " no more of that is sent",
        ),
        (
            "program-stopped",
            "the program is stopped: process 7 (sleep); kill -CONT 7 lets it go on",
        ),
        (
            "out-of-reach",
            "process 7 (sleep) is another user's: it cannot be ended, and is waited for",
        ),
    ],
)
def test_it_says_which_process(what: str, words: str) -> None:
    assert oddity(what, 7, "sleep").words() == words
