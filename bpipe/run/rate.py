"""A rate that is in a file, which may be changed while this process runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from bpipe.errors import explain
from bpipe.protocol.rate import Bucket
from bpipe.report.rates import Rate, RateUnread
from bpipe.report.watch import Watch, repeat

LOOK: Final = 1.0  # seconds between two looks at the file
LONGEST: Final = 100  # bytes that are read of it

Seen = tuple[int, ...]  # what the system says of a file, which changes with its content


class RateFile(Bucket):
    """A bucket whose rate is the first words of a file; if there are none, there is no limit.

    ``parse`` makes a number of them. ValueError, with a text for people, if the file has no rate.
    """

    def __init__(self, path: str, parse: Callable[[str], int]) -> None:
        self.path = path
        self._parse = parse
        self._seen = self._look()
        super().__init__(self._read())

    def look(self) -> bool:
        """Read it if it has changed; returns whether the rate has. ValueError as above, once."""
        before, seen = self.rate, self._look()
        if seen != self._seen:
            self._seen = seen
            self.change(self._read())
        return self.rate != before

    def _look(self) -> Seen:
        try:
            of = os.stat(self.path)
        except OSError:
            return ()
        return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns

    def _read(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb", buffering=0) as file:
                data = file.read(LONGEST + 1)
        except OSError as error:
            raise ValueError(f"{self.path}: {explain(error)}") from None
        text = (data or b"").decode(errors="replace").strip()
        try:
            return self._parse(text) if text else 0
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
