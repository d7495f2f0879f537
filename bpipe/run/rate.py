"""A rate that is in a file, which may be changed while this process runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final

from bpipe.errors import explain
from bpipe.protocol.rate import Bucket
from bpipe.report.rates import Rate, RateUnread
from bpipe.report.watch import Watch, repeat

LOOK: Final = 1.0  # seconds between two looks at the file
LONGEST: Final = 100  # bytes that are read of it

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Seen = tuple[int, ...]  # what the system says of a file, which changes with its content


class RateFile(Bucket):
    """A bucket whose rate is the first words of a file; if there are none, there is no limit.

    ``parse`` makes a number of them. ValueError, with a text for people, if the file has no rate.
    """

    def __init__(self, path: str, parse: Callable[[str], int]) -> None:
        self.path = path
        self._parse = parse
        self._seen = self._look()
        self._emptied = False  # since the last look: it may be that somebody writes it just now
        self._unread = ""  # why it could not be read the last time
        super().__init__(self._read() or 0)

    def look(self) -> bool:
        """Read it if it has changed; returns whether the rate has. ValueError as above, once."""
        before, seen, unread = self.rate, self._look(), self._unread
        if seen != self._seen or self._emptied:
            self._seen = seen
            try:
                self._take(self._read())
                self._unread = ""
            except ValueError as error:
                self._emptied, self._unread = False, str(error)
                if self._unread != unread:
                    raise
        return self.rate != before

    def _take(self, number: int | None) -> None:
        """What the file says; that it is empty counts when it still is at the next look."""
        self._emptied = number is None and self.rate > 0 and not self._emptied
        if not self._emptied:
            self.change(number or 0)

    def _look(self) -> Seen:
        try:
            of = os.stat(self.path)
        except OSError:
            return ()
        return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns

    def _read(self) -> int | None:
        """The rate that is in the file; None: there is nothing in it."""
        try:
            descriptor = os.open(self.path, _READ)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    # what a pipe says is gone when it was read, and may be somebody else's
                    raise ValueError(f"{self.path}: it is no file")
                data = os.read(descriptor, LONGEST + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ValueError(f"{self.path}: {explain(error)}") from None
        text = data.decode(errors="replace").strip()
        try:
            return self._parse(text) if text else None
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def follow(bucket: Bucket, watch: Watch, changed: Callable[[], None]) -> None:
    """If the rate is in a file, look there from now on, and call this when it has changed."""
    if isinstance(bucket, RateFile):
        repeat(partial(_look, bucket, watch, changed), LOOK)


def _look(file: RateFile, watch: Watch, changed: Callable[[], None]) -> None:
    try:
        if file.look():
            watch.tell(Rate(file.rate or None))
            changed()
    except ValueError as error:
        watch.tell(RateUnread(str(error), file.rate or None))
