"""Data that is known: threads that write it and read it, and waiting for conditions."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import IO, Final

import pytest

PATIENCE: Final = 40.0  # seconds until a condition that does not come is a failure
SOON: Final = 3.0  # seconds for what is to happen within one: these machines are noisy
MIB: Final = 1 << 20

# The length is prime, so that no buffer, page or frame repeats in step with it.
_BLOCK: Final = random.Random(20).randbytes(1_000_003)
_TWICE: Final = memoryview(_BLOCK * 2)
_STEP: Final = 1 << 17


def pattern(start: int, count: int) -> memoryview:
    """``count`` bytes (at most a million) of the test data from this offset on."""
    within = start % len(_BLOCK)
    return _TWICE[within : within + count]


def until(
    condition: Callable[[], object], what: str | Callable[[], str], patience: float = PATIENCE
) -> None:
    """Wait for a condition, and fail when it does not come."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            pytest.fail(
                f"waited {patience} s in vain for {what if isinstance(what, str) else what()}"
            )
        time.sleep(0.005)


def held(pipe: IO[bytes]) -> int:
    """The bytes that lie in a pipe: more than its size, if they were spliced into it."""
    count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return count


class Producer:
    """A thread that writes test data: ``total`` bytes, or without an end. Closes its file.

    With a ``pause`` (seconds, after each piece) it leaves the processor to others.
    """

    def __init__(
        self, file: IO[bytes], total: int | None, offset: int = 0, pause: float = 0.0
    ) -> None:
        self.written = 0
        self.broken = False  # nobody reads any more
        self.ended = False
        self._file = file
        self._total = total
        self._offset = offset
        self._pause = pause
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError), self._file:
                self.broken = True
                while (left := self._left()) > 0:
                    step = min(_STEP, left)
                    data = pattern(self._offset + self.written, step)
                    self.written += os.write(self._file.fileno(), data)
                    if self._pause:
                        time.sleep(self._pause)
                self.broken = False
        finally:
            self.ended = True

    def _left(self) -> int:
        total = self._total  # `finish` may set it meanwhile
        return _STEP if total is None else total - self.written

    def finish(self) -> None:
        """Let an endless producer come to its end."""
        self._total = 0

    def wait_written(self, count: int) -> None:
        """Wait until so many bytes were taken from this producer."""
        until(lambda: self.written >= count or self.ended, f"{count} bytes to be written")
        assert self.written >= count

    def wait_stuck(self, least: int) -> None:
        """Wait until ``least`` bytes were written, and then no more for a while."""
        self.wait_written(least)
        before = -1
        while before != self.written:
            before = self.written
            time.sleep(0.3)  # a thread may get no turn for long on a busy machine
        assert not self.ended, "a producer that was to be stuck has ended"

    def wait_broken(self, patience: float = PATIENCE) -> None:
        """Wait until this producer was told that nobody reads."""
        until(lambda: self.ended, "the producer to end", patience)
        assert self.broken, "the producer has written everything"


class Consumer:
    """A thread that reads until the end, and compares with the test data."""

    def __init__(self, file: IO[bytes], offset: int = 0) -> None:
        self.count = 0
        self.wrong: int | None = None  # the first offset at which a read was not as expected
        self._file = file
        self._offset = offset
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with self._file:
            while data := os.read(self._file.fileno(), 1 << 18):
                if self.wrong is None and data != pattern(self._offset + self.count, len(data)):
                    self.wrong = self.count
                self.count += len(data)

    def wait_count(self, count: int) -> None:
        """Wait until so many bytes have come."""
        until(lambda: self.count >= count, f"{count} bytes to arrive")

    def wait_end(self, patience: float = 60.0) -> int:
        """Wait for the end of the stream; returns how many bytes came, if they are right."""
        self.thread.join(patience)
        assert not self.thread.is_alive(), f"no end of the stream after {self.count} bytes"
        assert self.wrong is None, f"a wrong byte in the piece at {self.wrong}"
        return self.count
