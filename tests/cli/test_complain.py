"""What is said of a command line that cannot be run: one line, without what others must not see."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from bpipe.cli.complain import complain, say


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no such option: --x", "no such option: --x"),
        ("not a\x1b]0;port\x07", "not a?]0;port?"),
        ("two\nlines", "two?lines"),
        ("not text: \udcff", "not text: ?"),
        (r"not text: '\udcff'", "not text: '?'"),
        ("no file bpipe1:R4aTzQmVx0yWcE3nLkJh5gUdSbF7oIpA9tXrC2vN8wM", None),
    ],
)
def test_a_complaint_is_one_line_without_secrets(
    capsys: pytest.CaptureFixture[str], message: str, said: str | None
) -> None:
    complain(message)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bpipe: ")
    assert err.count("\n") == 1
    if said is None:
        assert "R4aTzQ" not in err
    else:
        assert err == f"bpipe: {said}\n"


def test_a_stderr_that_is_missing_is_no_reason_to_use_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("words")
    assert capsys.readouterr().out == ""


class Full(io.StringIO):
    """Which takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "")


def test_a_stderr_that_is_full_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    say("words")
