"""Where words go: a stderr of a test's own, outputs that remember, and those that take nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from bpipe.report.events import Event
from bpipe.report.output import QUEUED, Output
from bpipe.report.reporter import Reporter
from bpipe.report.settings import Level
from tests.end_to_end.data import PATIENCE, until


@contextlib.contextmanager
def stderr_as(descriptor: int) -> Iterator[None]:
    """Meanwhile, what is said on descriptor 2 goes here.

    Not a fixture: pytest's own redirection begins between those and the test.
    """
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def stderr_as_a_pipe() -> Iterator[int]:
    """The end of a pipe at which what is said on descriptor 2 can be read."""
    reader, writer = os.pipe()
    try:
        with stderr_as(writer):
            os.close(writer)
            yield reader
    finally:
        os.close(reader)


def threads(name: str) -> set[threading.Thread]:
    """Those of this name that have not ended."""
    return {each for each in threading.enumerate() if each.name == name}


@contextlib.contextmanager
def ended(name: str, help_them: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait for the threads of this name that begin meanwhile, or they would go on in the next
    test. ``help_them`` is called while they are waited for."""
    before = threads(name)
    yield

    def have_ended() -> bool:
        help_them()
        return threads(name) <= before

    until(have_ended, "its thread to end")


class Lines:
    """An output that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str, *, last: bool = False) -> bool:
        self.said.append(line)
        return True

    def close(self) -> None: ...


class Recorder(Reporter):
    """Remembers what is told; in brackets, what is only for those who want to know more."""

    def __init__(self) -> None:
        super().__init__(Level.TRACE, Lines())
        self.events: list[Event] = []
        self.lines: list[str] = []

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        self.events.append(event)
        line = event.words()
        self.lines.append(line if level is Level.NORMAL else f"({line})")


def fill(descriptor: int) -> None:
    """Write until nothing more is taken."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(1 << 16))
    os.set_blocking(descriptor, True)


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
