"""Which events are told, to whom, and in which form."""

from __future__ import annotations

import json
import os
import re
import threading
import time

import pytest

from bpipe.report import terminal as module
from bpipe.report.events import Lost, OfSession
from bpipe.report.output import QUEUED, write_all
from bpipe.report.reporter import Reporter
from bpipe.report.settings import Level
from bpipe.report.terminal import Terminal
from bpipe.report.totals import Done
from tests.support.outputs import Lines, ended, fill, stderr_as_a_pipe


@pytest.mark.parametrize(
    ("level", "said"),
    [(Level.QUIET, "q"), (Level.NORMAL, "qn"), (Level.VERBOSE, "qnv"), (Level.TRACE, "qnvt")],
)
def test_the_level_decides_what_is_said(level: Level, said: str) -> None:
    lines = Lines()
    reporter = Reporter(level, lines)
    for letter, each in zip("qnvt", Level, strict=True):
        reporter.tell(Lost(letter, "closed"), each)
    expected = [f"bpipe: connection lost: {letter}; reconnecting" for letter in said]
    assert lines.said == expected


def test_a_log_has_every_event_as_json_and_stderr_as_a_log_no_words() -> None:
    lines, log = Lines(), Lines()
    for level, stderr in ((Level.QUIET, lines), (Level.TRACE, log)):
        reporter = Reporter(level, stderr)
        reporter.log_to(log)
        reporter.tell(Lost("why", "reset"), Level.NORMAL)
    assert lines.said == []
    runs = set()
    for line in log.said:
        told = json.loads(line)
        assert abs(told.pop("time") - time.time()) < 60
        runs.add(told.pop("run"))
        lost = {"event": "lost", "reason": "why", "code": "reset", "state": "reconnecting"}
        assert told == lost
    assert len(log.said) == len(runs) == 2


def test_only_the_end_of_the_run_is_never_dropped_and_not_that_of_a_session() -> None:
    class Lasts(Lines):
        def say(self, line: str, *, last: bool = False) -> bool:
            return super().say(f"{line}, last" if last else line)

    lines = Lasts()
    reporter = Reporter(Level.NORMAL, lines)
    reporter.tell(OfSession(Done(1, "why"), 3, "beef"))
    reporter.tell(Done(1, "why"))
    assert lines.said == ["bpipe: session 3: why", "bpipe: why, last"]


@pytest.mark.parametrize("json_lines", [False, True])
def test_what_a_blocked_stderr_has_not_taken_is_counted(
    monkeypatch: pytest.MonkeyPatch, json_lines: bool
) -> None:
    writing = threading.Event()

    def note(descriptor: int, data: bytes) -> None:
        writing.set()
        write_all(descriptor, data)

    monkeypatch.setattr(module, "write_all", note)
    with stderr_as_a_pipe() as stderr, ended("Reporter"):
        fill(2)
        terminal = Terminal()
        reporter = Reporter(Level.NORMAL, terminal)
        if json_lines:
            reporter.log_to(terminal)
        reporter.tell(Lost("0", "closed"))
        assert writing.wait(10)
        for number in range(1, 2 * QUEUED):
            reporter.tell(Lost(str(number), "closed"))
        reporter.tell(Done(0, None))  # is never dropped
        threading.Thread(target=reporter.close).start()
        said = b""
        while b"both streams were empty" not in said and b'"done"' not in said:
            said += os.read(stderr, 1 << 16)
    *told, dropped, _ = re.findall(r"[b{].*", said.decode())
    missing = 2 * QUEUED - len(told)
    if json_lines:
        assert json.loads(dropped).items() >= {"event": "dropped", "messages": missing}.items()
    else:
        assert dropped == f"bpipe: ({missing} messages dropped)"
    assert QUEUED <= len(told) <= QUEUED + 1
