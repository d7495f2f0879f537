"""What is said on stderr, and that saying it never waits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpipe.report.events import Lost
from bpipe.report.meter import View
from bpipe.report.reporter import QUEUED, Log, Output, Reporter
from bpipe.report.settings import Level
from bpipe.report.terminal import Terminal
from bpipe.report.totals import Done
from tests.end_to_end.data import PATIENCE, SOON, until
from tests.support.statuses import BEFORE


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
        terminal = Terminal()
        terminal.say("one")
        terminal.say("zwölf \udcff \x1b[2J")
        terminal.close()
        assert os.read(stderr, 1000) == "one\nzwölf ? ?[2J\n".encode()


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


class Lines:
    """An output that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str, *, last: bool = False) -> bool:
        self.said.append(line)
        return True

    def close(self) -> None: ...


def fill(descriptor: int) -> None:
    """Write until nothing more is taken."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(1 << 16))
    os.set_blocking(descriptor, True)


def test_a_thread_that_draws_at_once_leaves_the_next_view_to_be_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with stderr_as_a_pipe() as stderr:
        terminal = Terminal()
        do = terminal._writer.do

        def be_slow(job: Callable[[], None], *, last: bool = False) -> bool:
            done = threading.Event()
            taken = do(job, last=last)
            do(done.set)
            return done.wait(SOON) and taken

        monkeypatch.setattr(terminal._writer, "do", be_slow)
        for peer in ("one", "two"):
            terminal.show(View(replace(BEFORE, peer=peer), 0.0, None, 0.0))
        terminal.close()
        said = os.read(stderr, 1000)
    assert b"to one" in said
    assert b"to two" in said


def say_much(output: Output) -> None:
    """Say more than is kept, and close, while nobody takes anything.

    If that waited for somebody, it would wait for ever; so a bound that no machine is too slow
    for is enough. What it costs is processor time, which does not depend on who else is busy.
    """
    spent = []

    def say() -> None:
        began = time.thread_time()
        for _ in range(10 * QUEUED):
            output.say("0" * 1000)
        output.close()
        spent.append(time.thread_time() - began)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert spent, "it waits"
    assert spent[0] < 0.5


def test_a_stderr_that_takes_nothing_holds_up_nobody() -> None:
    with stderr_as_a_pipe() as stderr:
        fill(2)
        terminal = Terminal()
        say_much(terminal)
        os.set_blocking(stderr, False)

        def ended() -> bool:
            with contextlib.suppress(BlockingIOError):
                os.read(stderr, 1 << 16)
            return not terminal._writer._thread.is_alive()

        until(ended, "its thread to end, or it would go on in the next test")


@pytest.mark.parametrize("json_lines", [False, True])
def test_what_a_blocked_stderr_has_not_taken_is_counted(json_lines: bool) -> None:
    with stderr_as_a_pipe() as stderr:
        fill(2)
        terminal = Terminal()
        reporter = Reporter(Level.NORMAL, terminal)
        if json_lines:
            reporter.log_to(terminal)
        reporter.tell(Lost("0", "closed"))
        until(terminal._writer._jobs.empty, "the thread to wait for stderr")
        for number in range(1, 2 * QUEUED):
            reporter.tell(Lost(str(number), "closed"))
        reporter.tell(Done(0, None))  # is never dropped
        threading.Thread(target=reporter.close).start()
        said = b""
        while b"both streams were empty" not in said and b'"done"' not in said:
            said += os.read(stderr, 1 << 16)
    lines = re.findall(r"[b{].*", said.decode())
    *told, dropped, _ = lines  # and an earlier test's thread may still have said its numbers
    missing = 2 * QUEUED - len(told)
    if json_lines:
        assert json.loads(dropped).items() >= {"event": "dropped", "messages": missing}.items()
    else:
        assert dropped == f"bpipe: ({missing} messages dropped)"
    assert QUEUED <= len(told) <= QUEUED + 1


def test_a_stderr_that_somebody_has_set_nonblocking() -> None:
    with stderr_as_a_pipe() as stderr:
        os.set_blocking(2, False)
        terminal = Terminal()
        line = "x" * 10_000
        for _ in range(20):  # more than a pipe holds
            terminal.say(line)
        seen = 0  # of the letters: an earlier test's thread may still say its numbers
        while seen < 20 * len(line):
            seen += os.read(stderr, 1 << 16).count(b"x")
        assert seen == 20 * len(line)
        terminal.close()


def test_a_stderr_that_is_gone_is_no_error() -> None:
    with stderr_as_a_pipe():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
        os.close(writer)
        terminal = Terminal()
        for number in range(2 * QUEUED):
            terminal.say(str(number))
        began = time.monotonic()
        terminal.close()
        assert time.monotonic() - began < 3


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log = Log(str(path), pytest.fail)
    log.say("one")
    log.say("two")
    log.close()
    assert path.read_text() == "before\none\ntwo\n"


def test_a_log_that_fails_says_so_once() -> None:
    failures: list[str] = []
    log = Log("/dev/full", failures.append)
    for _ in range(2 * QUEUED):
        log.say("line")
    log.close()
    assert failures == ["no space left on device"]


def test_a_log_that_takes_nothing_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    say_much(Log(str(path), lambda why: None))
    os.close(reader)
