"""The exit statuses, beside 0 and signals."""

from __future__ import annotations

from typing import Final

from bpipe.errors import NotConnected, PipeClosed, SessionEnded, SessionLost

FAILED: Final = 1
USAGE: Final = 2
NOT_CONNECTED: Final = 3
LOST: Final = 4
PIPE_CLOSED: Final = 141  # as a shell reports a death by SIGPIPE

_STATUSES: Final[dict[type[SessionEnded], int]] = {
    NotConnected: NOT_CONNECTED,
    SessionLost: LOST,
    PipeClosed: PIPE_CLOSED,
}


def exit_status(failure: SessionEnded | None) -> int:
    """What a shell is told about how the session ended."""
    if failure is None:
        return 0
    for kind, status in _STATUSES.items():
        if isinstance(failure, kind):
            return status
    return FAILED
