"""What is written to stderr: lines, and below them a status line that is never in their way."""

from __future__ import annotations

import contextlib
import fcntl
import locale
import os
import pty
import struct
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from bpipe.report import terminal as module
from bpipe.report.line import line as one_line
from bpipe.report.meter import View
from bpipe.report.output import QUEUED, LineThread
from bpipe.report.settings import Level, Settings, When
from bpipe.report.terminal import (
    Picture,
    Terminal,
    has_glyphs,
    is_dumb,
    same_terminal,
    size,
    wants_status,
)
from tests.end_to_end.data import SOON
from tests.support.outputs import ended, fill, say_much, stderr_as, stderr_as_a_pipe
from tests.support.statuses import BEFORE

ERASE = "\r\x1b[2K \x1b[J\r"
DRAWN = "connecting to there:1"


def picture(peer: str = "there:1") -> Picture:
    return partial(one_line, View(replace(BEFORE, peer=peer), 0.0, None, 0.0))


@contextlib.contextmanager
def stderr_as_a_terminal(width: int = 80, rows: int = 24) -> Iterator[Callable[[], str]]:
    """A real one; what it was sent since that was asked for last, which is something."""
    master, slave = pty.openpty()
    tty.setraw(slave)  # a newline stays what it is
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, width, 0, 0))

    def sent() -> str:
        os.set_blocking(master, True)
        data = os.read(master, 1 << 16)
        os.set_blocking(master, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(master, 1 << 16)
        return data.decode()

    try:
        with stderr_as(slave), ended("Reporter"):
            yield sent
    finally:
        os.close(master)
        os.close(slave)


# --- lines ---


def test_lines_are_written_in_order() -> None:
    with stderr_as_a_pipe() as stderr:
        terminal = Terminal()
        terminal.say("one")
        terminal.say("zwölf \udcff \x1b[2J")
        terminal.close()
        assert os.read(stderr, 1000) == "one\nzwölf ? ?[2J\n".encode()


def test_a_stderr_that_takes_nothing_holds_up_nobody() -> None:
    with stderr_as_a_pipe() as stderr:
        fill(2)
        os.set_blocking(stderr, False)

        def drain() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(stderr, 1 << 16)

        with ended("Reporter", drain):
            say_much(Terminal())


def test_a_stderr_that_somebody_has_set_nonblocking() -> None:
    with stderr_as_a_pipe() as stderr, ended("Reporter"):
        os.set_blocking(2, False)
        terminal = Terminal()
        line = "x" * 10_000
        for _ in range(20):  # more than a pipe holds
            terminal.say(line)
        seen = 0
        while seen < 20 * len(line):
            seen += os.read(stderr, 1 << 16).count(b"x")
        assert seen == 20 * len(line)
        terminal.close()


def test_a_stderr_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with stderr_as(writer), ended("Reporter"):
        os.close(writer)
        terminal = Terminal()
        for number in range(2 * QUEUED):
            terminal.say(str(number))
        began = time.monotonic()
        terminal.close()
        assert time.monotonic() - began < SOON


# --- the status line ---


def test_a_line_takes_the_place_of_the_status_line_which_is_drawn_again_below() -> None:
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        terminal.say("a line")
        terminal.close()
        text = sent()
    before, line, after = text.partition("a line\n")
    assert line
    assert before.endswith(ERASE)
    assert DRAWN in before
    assert DRAWN in after
    assert after.endswith(ERASE)
    assert text.count("\x1b[?7l") == text.count("\x1b[?7h") == text.count(DRAWN)


def test_where_there_is_no_room_for_an_empty_row_the_line_is_in_the_row_of_the_cursor() -> None:
    with stderr_as_a_terminal(rows=2) as sent:
        terminal = Terminal()
        terminal.show(picture())
        terminal.close()
        text = sent()
    assert DRAWN in text
    assert "\n" not in text
    assert "\x1b[A" not in text


def test_a_view_that_is_hidden_is_erased_until_the_next_one() -> None:
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        assert DRAWN in sent()
        terminal.hide()
        assert sent() == ERASE
        terminal.say("a line")
        assert sent() == "a line\n"
        terminal.show(picture("other:2"))
        assert "other:2" in sent()
        terminal.close()


def test_clearing_waits_until_it_is_erased() -> None:
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        assert DRAWN in sent()
        terminal.clear()
        assert sent() == ERASE
        terminal.say("a line")
        assert sent() == "a line\n"
        terminal.close()


def test_what_is_said_from_some_moment_on_goes_elsewhere_without_a_trace_of_the_line() -> None:
    reader, writer = os.pipe()
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        assert DRAWN in sent()
        terminal.turn_to(writer)
        assert sent() == ERASE
        terminal.say("a line")
        terminal.close()
    assert os.read(reader, 100) == b"a line\n"
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_words_after_half_a_line_of_data_begin_a_new_one() -> None:
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.make_way([memoryview(b"half a line")])
        terminal.say("words")
        assert sent() == "\nwords\n"
        terminal.make_way([memoryview(b"a whole one\n")])
        terminal.say("more words")
        assert sent() == "more words\n"
        terminal.close()


def test_data_makes_the_status_line_go_first() -> None:
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        assert DRAWN in sent()
        terminal.make_way([memoryview(b"data\n")])
        assert sent() == ERASE
        terminal.close()


def test_a_terminal_without_codes_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with stderr_as_a_terminal() as sent:
        terminal = Terminal()
        terminal.show(picture())
        terminal.say("a line")
        terminal.close()
        text = sent()
    assert "\x1b" not in text
    assert DRAWN in text
    assert "\r" + " " * len(DRAWN) in text


@pytest.mark.parametrize("width", [20, 60])
def test_no_line_reaches_the_last_column(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with stderr_as_a_terminal(width) as sent:
        terminal = Terminal()
        terminal.show(picture("a-long-name.example:" + "7" * 99))
        terminal.close()
        assert max(map(len, sent().split("\r"))) <= width - 1


def test_a_thread_that_draws_at_once_leaves_the_next_view_to_be_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(LineThread):
        """Which comes to nothing before its job is done."""

        def do(self, job: Callable[[], None], *, last: bool = False) -> bool:
            done = threading.Event()
            taken = super().do(job, last=last)
            super().do(done.set)
            return done.wait(SOON) and taken

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(module, "LineThread", Slow)
    with stderr_as_a_pipe() as stderr:
        terminal = Terminal()
        for peer in ("one", "two"):
            terminal.show(picture(peer))
        terminal.close()
        said = os.read(stderr, 1000)
    assert b"to one" in said
    assert b"to two" in said


# --- what there is ---


@pytest.mark.parametrize(
    ("settings", "on_a_terminal", "elsewhere"),
    [
        (Settings(), True, False),
        (Settings(Level.QUIET), False, False),
        (Settings(Level.TRACE), True, False),
        (Settings(status_line=When.ALWAYS), True, True),
        (Settings(Level.QUIET, When.ALWAYS), True, True),
        (Settings(status_line=When.NEVER), False, False),
        (Settings(status_line=When.ALWAYS, log="-"), False, False),
        (Settings(log="file"), True, False),
    ],
)
def test_when_there_is_a_status_line(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, on_a_terminal: bool, elsewhere: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with stderr_as_a_terminal():
        assert wants_status(settings) is on_a_terminal
    with stderr_as_a_pipe():
        assert wants_status(settings) is elsewhere
    monkeypatch.setenv("TERM", "dumb")
    with stderr_as_a_terminal():
        assert wants_status(settings) is elsewhere


@pytest.mark.parametrize(
    ("term", "dumb"),
    [("xterm", False), ("linux", False), ("dumb", True), ("unknown", True), ("", True)],
)
def test_a_terminal_without_escape_codes(
    monkeypatch: pytest.MonkeyPatch, term: str, dumb: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert is_dumb() is dumb
    monkeypatch.delenv("TERM")
    assert is_dumb()


@pytest.mark.parametrize(
    ("encoding", "codeset", "term", "more"),
    [
        ("utf-8", "UTF-8", "xterm", True),
        ("UTF8", "utf8", "screen", True),
        ("utf-8", "ANSI_X3.4-1968", "xterm", False),
        ("iso-8859-1", "UTF-8", "xterm", False),
        ("utf-8", "UTF-8", "linux", False),
        ("utf-8", "UTF-8", "vt220", False),
    ],
)
def test_which_characters_a_terminal_has(
    monkeypatch: pytest.MonkeyPatch, encoding: str, codeset: str, term: str, more: bool
) -> None:
    monkeypatch.setattr(locale, "nl_langinfo", lambda item: codeset)
    monkeypatch.setenv("TERM", term)
    assert has_glyphs(encoding) is more


def test_how_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_as_a_terminal(100, 30):
        assert size() == (30, 100)
    with stderr_as_a_terminal(0, 0):
        assert size() == (0, 80)
    monkeypatch.delenv("COLUMNS", raising=False)
    with stderr_as_a_pipe():
        assert size() == (0, 80)
        monkeypatch.setenv("COLUMNS", "120")
        assert size() == (0, 120)
        monkeypatch.setenv("COLUMNS", "0")
        assert size() == (0, 80)


def test_which_descriptor_is_the_same_terminal() -> None:
    master, slave = pty.openpty()
    other, another = pty.openpty()
    reader, writer = os.pipe()
    try:
        with stderr_as(slave):
            copy = os.dup(slave)
            assert same_terminal(copy)
            os.close(copy)
            assert not same_terminal(another)
            assert not same_terminal(writer)
        with stderr_as(writer):
            assert not same_terminal(slave)
    finally:
        for each in (master, slave, other, another, reader, writer):
            os.close(each)
