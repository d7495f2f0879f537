"""A question on the terminal: what is typed is not shown, and is shown again afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

# In a session of its own, whose terminal is stdin; it tells on stdout what it was told.
PROGRAM = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from bpipe.cli.prompt import ask
try:
    print(ask("What? "))
except OSError as error:
    print(type(error).__name__, error)
"""


class Question:
    """A process that asks, and the other side of its terminal."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=self.slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.shown = b""

    def wait_asked(self) -> None:
        """Wait until the question is shown."""
        asked = self.shown.count(b"What? ")
        while self.shown.count(b"What? ") == asked:
            self.shown += os.read(self.master, 1000)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[str, int]:
        """What it was told, and its exit status."""
        told, _ = self._process.communicate(timeout=20)
        return told.decode().strip(), self._process.returncode

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for descriptor in (self.master, self.slave):
            os.close(descriptor)


@pytest.fixture
def question() -> Iterator[Question]:
    question = Question()
    yield question
    question.close()


def test_the_answer_is_not_shown(question: Question) -> None:
    question.wait_asked()
    assert not question.echoes
    question.type(b"an answer\n")
    assert question.end() == (r"b'an answer\n'", 0)
    assert question.echoes
    os.set_blocking(question.master, False)
    assert b"answer" not in question.shown + os.read(question.master, 1000)


def test_an_end_of_file_is_no_answer(question: Question) -> None:
    question.wait_asked()
    question.type(b"\x04")
    assert question.end() == ("b''", 0)
    assert question.echoes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_process_and_leaves_the_terminal_as_it_was(
    question: Question, number: signal.Signals
) -> None:
    question.wait_asked()
    question.signal(number)
    assert question.end() == ("", -number)
    assert question.echoes


def test_one_that_goes_on_where_what_is_typed_is_shown_asks_again(question: Question) -> None:
    question.wait_asked()
    flags = termios.tcgetattr(question.slave)
    flags[3] |= termios.ECHO  # as a shell does when it has stopped somebody
    termios.tcsetattr(question.slave, termios.TCSANOW, flags)
    question.signal(signal.SIGCONT)
    question.wait_asked()
    assert not question.echoes
    question.type(b"an answer\n")
    assert question.end() == (r"b'an answer\n'", 0)
    assert question.echoes


def test_without_a_terminal_nobody_can_be_asked() -> None:
    program = PROGRAM.replace("fcntl.ioctl(0, termios.TIOCSCTTY, 0)", "")
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path("/"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.startswith("OSError [Errno")
