"""What is said on stderr, and that saying it never waits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpipe.cli.report import QUEUED, Narrator, Reporter, describe
from bpipe.cli.values import Level
from bpipe.pipe import State, Status

BEFORE = Status(
    state=State.CONNECTING,
    peer="there:1",
    buffer_size=1000,
    written=0,
    confirmed=0,
    received=0,
    delivered=0,
    links=0,
    replayed=0,
    outage=None,
    round_trip=None,
    refused=0,
    cause="",
)
UP = replace(BEFORE, state=State.CONNECTED, links=1)
DOWN = replace(UP, state=State.RECONNECTING, cause="reset", outage=0.0)
AGAIN = replace(UP, links=2, cause="reset")


@contextlib.contextmanager
def stderr_as_a_pipe() -> Iterator[int]:
    """The end of a pipe at which what is said on descriptor 2 can be read.

    Not a fixture: pytest's own redirection begins between those and the test.
    """
    reader, writer = os.pipe()
    saved = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield reader
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(reader)


def test_lines_are_written_in_order() -> None:
    with stderr_as_a_pipe() as stderr:
        reporter = Reporter(Level.NORMAL)
        reporter.say("one")
        reporter.say("zwölf \udcff")
        reporter.close()
        assert os.read(stderr, 1000) == "bpipe: one\nbpipe: zwölf ?\n".encode()


@pytest.mark.parametrize(
    ("level", "said"),
    [(Level.QUIET, b"q"), (Level.NORMAL, b"qn"), (Level.VERBOSE, b"qnv")],
)
def test_the_level_decides_what_is_said(level: Level, said: bytes) -> None:
    with stderr_as_a_pipe() as stderr:
        reporter = Reporter(level)
        reporter.say("q", Level.QUIET)
        reporter.say("n")
        reporter.say("v", Level.VERBOSE)
        reporter.close()
        assert os.read(stderr, 1000) == b"".join(b"bpipe: %c\n" % letter for letter in said)


def test_a_stderr_that_takes_nothing_holds_up_nobody() -> None:
    with stderr_as_a_pipe() as stderr:
        os.set_blocking(2, False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                os.write(2, bytes(1 << 16))
        os.set_blocking(2, True)
        reporter = Reporter(Level.NORMAL)
        began = time.monotonic()
        for number in range(10 * QUEUED):
            reporter.say(str(number))
        assert time.monotonic() - began < 0.5
        reporter.close()
        assert time.monotonic() - began < 3
        while b"bpipe: 0\n" not in os.read(stderr, 1 << 16):
            pass  # so that its thread ends


def test_a_stderr_that_somebody_has_set_nonblocking() -> None:
    with stderr_as_a_pipe() as stderr:
        os.set_blocking(2, False)
        reporter = Reporter(Level.NORMAL)
        line = "x" * 10_000
        for _ in range(20):  # more than a pipe holds
            reporter.say(line)
        seen = 0  # of the letters: a reporter of an earlier test may still say its numbers
        while seen < 20 * len(line):
            seen += os.read(stderr, 1 << 16).count(b"x")
        assert seen == 20 * len(line)
        reporter.close()


def test_a_stderr_that_is_gone_is_no_error() -> None:
    with stderr_as_a_pipe():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
        os.close(writer)
        reporter = Reporter(Level.NORMAL)
        for number in range(10):
            reporter.say(str(number))
        began = time.monotonic()
        reporter.close()
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([UP], "connected to there:1"),
        ([UP, UP], "connected to there:1"),
        ([UP, DOWN], "connected to there:1|connection lost: reset; reconnecting"),
        ([replace(UP, written=5)], "connected to there:1"),
        (
            [UP, DOWN, replace(DOWN, outage=4.2), AGAIN],
            "connected to there:1|connection lost: reset; reconnecting"
            "|connected again to there:1 after 4.2s",
        ),
        (
            [UP, replace(AGAIN, replayed=2048)],
            "connected to there:1|connected again to there:1, 2.0 KiB sent again",
        ),
        ([replace(BEFORE, cause="nobody")], "(nobody)"),
        ([replace(BEFORE, cause="nobody"), replace(BEFORE, cause="nobody")], "(nobody)"),
        (
            [UP, DOWN, replace(DOWN, cause="nobody")],
            "connected to there:1|connection lost: reset; reconnecting|(nobody)",
        ),
        (
            [UP, replace(UP, state=State.FINISHING), replace(UP, state=State.OVER)],
            "connected to there:1",
        ),
    ],
)
def test_each_change_of_state_is_one_line(history: list[Status], said: str) -> None:
    lines: list[str] = []

    class Recorder(Reporter):
        def __init__(self) -> None: ...

        def say(self, line: str, level: Level = Level.NORMAL) -> None:
            lines.append(line if level is Level.NORMAL else f"({line})")

    moments = [BEFORE, *history]
    narrator = Narrator(Recorder(), lambda: moments[0])
    while len(moments) > 1:
        del moments[0]
        narrator.look()
    assert "|".join(lines) == said


def test_the_description_of_a_status() -> None:
    status = replace(
        AGAIN, outage=3.0, written=3072, confirmed=2048, received=10, delivered=5, links=3
    )
    assert describe(status) == (
        "connected there:1; no progress for 3s; sent 3.0 KiB, 2.0 KiB confirmed;"
        " received 10 B, 5 B delivered; 2 reconnects"
    )
    assert describe(BEFORE) == (
        "connecting there:1; sent 0 B, 0 B confirmed; received 0 B, 0 B delivered; 0 reconnects"
    )
