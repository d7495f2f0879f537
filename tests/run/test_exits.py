"""What a shell is told about how a session ended."""

from __future__ import annotations

import pytest

from bpipe.errors import (
    Busy,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    SessionEnded,
    SessionLost,
)
from bpipe.run.exits import exit_status


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (None, 0),
        (PeerAborted("why"), 1),
        (LocalAbort("why"), 1),
        (SessionEnded("a bug"), 1),
        (NotConnected("nobody"), 3),
        (Busy("busy"), 3),
        (SessionLost("gave up"), 4),
        (PipeClosed("head"), 141),
    ],
)
def test_the_exit_status(failure: SessionEnded | None, status: int) -> None:
    assert exit_status(failure) == status
