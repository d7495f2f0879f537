"""A sender that is killed is typed again, and the listener that writes its stream goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pytest

from tests.end_to_end.data import until
from tests.end_to_end.helpers import Program, Start
from tests.support.targets import refusal

pytestmark = pytest.mark.slow

STREAM: Final = os.urandom(3 << 20)
HALF: Final = 3 << 19
# A listener that does not wait for a sender as long as others do.
IMPATIENT: Final = """
import sys
from bpipe.cli.app import run
from bpipe.protocol import sessions

sessions.DESERTED = 1.0
sys.exit(run(sys.argv[1:]))
"""


class Place:
    """Where a file is received."""

    def __init__(self, start: Start, folder: Path, *more: str, secret: Path | None = None) -> None:
        self.file, self.part = folder / "file", folder / "file.part"
        self._start = start
        self._address = f"unix:{folder}/s"
        self._sealed = [] if secret is None else ["--secret", str(secret)]
        options = ["--output", str(self.file), *self._sealed, *more]
        command = sys.executable, "-c", IMPATIENT, "listen", self._address, *options
        self.listener = start.program(*command)
        self.listener.wait_line("listening on ")

    def send(self) -> Program:
        """All of the stream."""
        source = self.file.with_name("stream")
        source.write_bytes(STREAM)
        with source.open("rb") as stream:
            return self._start.bpipe("connect", self._address, *self._sealed, stdin=stream)

    def send_half(self) -> Program:
        """As far as that it has come, and is not at its end."""
        sender = self._start.bpipe("connect", self._address, *self._sealed, stdin=PIPE)
        sender.stdin.write(STREAM[:HALF])
        until(lambda: self.part.exists() and self.part.stat().st_size == HALF, lambda: sender.text)
        return sender


def test_a_sender_that_is_killed_is_typed_again(start: Start, tmp_path: Path) -> None:
    place = Place(start, tmp_path)
    place.send_half().signal(signal.SIGKILL)
    again = place.send()
    assert (again.wait(), place.listener.wait()) == (0, 0)
    assert place.file.read_bytes() == STREAM
    assert not place.part.exists()
    again.wait_line("^bpipe: sent 1.5 MiB .* as the rest was there")
    told = [re.sub(" (to|lost).*", r" \1", line) for line in place.listener.lines[2:-1]]
    assert told == [
        "bpipe: connected to",
        "bpipe: connection lost",
        "bpipe: another sender has begun anew",
        "bpipe: connected to",
    ]


def test_a_sealed_listener_for_one_after_the_other_has_one_at_a_time(
    start: Start, tmp_path: Path, key: Path
) -> None:
    place = Place(start, tmp_path, "-k", secret=key)
    first = place.send_half()
    busy = place.send()
    assert busy.wait() == 3
    busy.wait_line("busy: the listener is serving another session, heard [01] s ago")
    first.signal(signal.SIGKILL)
    assert place.send().wait() == 0
    assert place.file.read_bytes() == STREAM
    place.listener.wait_line("^bpipe: session 1: .*: another sender has begun anew")
    until(place.part.exists, "the place of the next stream")
    assert "another bpipe is writing it" in refusal(place.file)[0]
    place.listener.signal(signal.SIGTERM)
    assert place.listener.wait() == 0
    assert not place.part.exists()
    place.listener.wait_line("^bpipe: served 2 sessions, 1 failed; ")
