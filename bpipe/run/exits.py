"""The exit statuses, beside 0 and signals."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from bpipe.errors import (
    LocalAbort,
    NotConnected,
    PipeClosed,
    ProgramFailed,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.wire import Ended, Finish

if TYPE_CHECKING:
    from bpipe.run.join import Outcome

FAILED: Final = 1
USAGE: Final = 2
NOT_CONNECTED: Final = 3
LOST: Final = 4
PIPE_CLOSED: Final = 141  # as a shell reports a death by SIGPIPE
OF_BPIPE: Final = 255  # whatever has failed, under a command that takes the place of ssh

HOLDER_GONE: Final = (
    "what held the command on {} is gone: it was killed, or the machine was started anew, or the"
    " end of a login has ended it (KillUserProcesses in logind.conf)"
)

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


def program_status(finish: Finish) -> int:
    """What a shell is told of a program that ended like this; 0 where nobody knows."""
    return finish.status + (128 if finish.how is Ended.KILLED else 0)


def decide(outcome: Outcome) -> tuple[int, SessionEnded | None]:
    """The exit status of a run, and why it is that.

    Where a file is written, nothing counts any more when it has its name, and nothing is a success
    before.
    """
    if outcome.file is not None and outcome.file.named:
        return 0, None
    status, failure = _decide(outcome)
    return (FAILED, _unwritten(outcome)) if not status and outcome.file else (status, failure)


def _unwritten(outcome: Outcome) -> SessionEnded:
    assert outcome.file is not None
    return LocalAbort(outcome.file.why or f"{outcome.file.file} is not written")


def _decide(outcome: Outcome) -> tuple[int, SessionEnded | None]:
    """The same for other ends: the session's failure comes first.

    Then come the program at the far end and that at the near one. Of a consumer that has not taken
    everything its own status tells, if that is not 0. What the far program did after its output
    has to be known.
    """
    failure = outcome.failure
    if outcome.far.how is Ended.RUNNING and (failure is None or isinstance(failure, PipeClosed)):
        failure = SessionLost("nobody has told how the program at the other end has ended")
    status = exit_status(failure)
    if status not in (0, PIPE_CLOSED):
        return status, failure
    programs = ("the program at the other end", outcome.far), ("the program", outcome.near)
    for where, finish in programs:
        if (number := program_status(finish)) != 0:
            return number, ProgramFailed(f"{where} {_words(finish)}")
    if failure is None and outcome.left_early:
        failure = PipeClosed("the program has not taken everything")
    return exit_status(failure), failure


def decide_command(outcome: Outcome, host: str) -> tuple[int, SessionEnded | None]:
    """The same for a command that runs on this host, as under ssh: its status tells, alone.

    A failure of our own is always the same status; so it is if nobody knows how the command has
    ended. But where the reader of our stdout has left, that is told as if we had died of it.
    """
    from bpipe.protocol.caller import FORGOTTEN  # whose module not every command loads

    failure, far = outcome.failure, outcome.far
    if outcome.file is not None and outcome.file.named:
        return 0, None
    if isinstance(failure, PipeClosed):
        return PIPE_CLOSED, failure
    if isinstance(failure, SessionLost) and str(failure).startswith(FORGOTTEN):
        why = str(failure).replace(FORGOTTEN, HOLDER_GONE.format(host), 1)
        failure = SessionLost(why, "holder-gone")
    if failure is None and not far.final:
        failure = SessionLost("nobody has told how the command has ended")
    if failure is not None:
        return OF_BPIPE, failure
    if (number := program_status(far)) != 0:
        return number, ProgramFailed(f"the command {_words(far)}")
    return (0, None) if outcome.file is None else (OF_BPIPE, _unwritten(outcome))


def _words(finish: Finish) -> str:
    if finish.how is not Ended.KILLED:
        return f"exited with status {finish.status}"
    try:
        return f"was killed by {signal.Signals(finish.status).name}"
    except ValueError:
        return f"was killed by signal {finish.status}"
