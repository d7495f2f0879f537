"""What a shell is told about how a session ended."""

from __future__ import annotations

import pytest

from bpipe.ends.file_sink import FileOutcome
from bpipe.errors import (
    Busy,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.wire import UNTOLD, Ended, Finish
from bpipe.run.exits import decide, decide_command, exit_status
from bpipe.run.join import Outcome
from tests.support.statuses import BEFORE


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


LOST, CLOSED = SessionLost("gave up"), PipeClosed("head")
NOT_TOLD = "nobody has told how the program at the other end has ended"
EXITED, KILLED, GOOD = Finish(Ended.EXITED, 3), Finish(Ended.KILLED, 15), Finish(Ended.EXITED)


@pytest.mark.parametrize(
    ("failure", "far", "near", "left_early", "status", "why"),
    [
        (None, GOOD, GOOD, False, 0, None),
        (None, EXITED, KILLED, False, 3, "the program at the other end exited with status 3"),
        (None, GOOD, KILLED, False, 143, "the program was killed by SIGTERM"),
        (None, UNTOLD, Finish(Ended.KILLED, 64), True, 192, "the program was killed by SIGRTMAX"),
        (None, UNTOLD, Finish(Ended.KILLED, 99), True, 227, "the program was killed by signal 99"),
        (LOST, EXITED, EXITED, False, 4, "gave up"),
        (CLOSED, EXITED, UNTOLD, False, 3, "the program at the other end exited with status 3"),
        (CLOSED, GOOD, UNTOLD, False, 141, "head"),
        (None, UNTOLD, GOOD, True, 141, "the program has not taken everything"),
        (None, Finish(Ended.CUT), UNTOLD, False, 0, None),
        (None, Finish(Ended.RUNNING), KILLED, True, 4, NOT_TOLD),
        (CLOSED, Finish(Ended.RUNNING), GOOD, False, 4, NOT_TOLD),
        (PeerAborted("why"), Finish(Ended.RUNNING), GOOD, False, 1, "why"),
    ],
)
def test_which_of_several_that_have_failed_is_told(
    failure: SessionEnded | None,
    far: Finish,
    near: Finish,
    left_early: bool,
    status: int,
    why: str | None,
) -> None:
    found = decide(Outcome(failure, BEFORE, far, near, left_early))
    assert (found[0], found[1] and str(found[1])) == (status, why)


FORGOTTEN = SessionLost("the peer no longer knows this session; 5 bytes are confirmed")
GONE = (
    "what held the command on far is gone: it was killed, or the machine was started anew, or the"
    " end of a login has ended it (KillUserProcesses in logind.conf); 5 bytes are confirmed"
)
COMMAND_NOT_TOLD = "nobody has told how the command has ended"


@pytest.mark.parametrize(
    ("failure", "far", "status", "why"),
    [
        (None, GOOD, 0, None),
        (None, Finish(Ended.EXITED, 1), 1, "the command exited with status 1"),
        (None, Finish(Ended.EXITED, 255), 255, "the command exited with status 255"),
        (None, KILLED, 143, "the command was killed by SIGTERM"),
        (None, UNTOLD, 255, COMMAND_NOT_TOLD),
        (None, Finish(Ended.CUT), 255, COMMAND_NOT_TOLD),
        (None, Finish(Ended.RUNNING), 255, COMMAND_NOT_TOLD),
        (CLOSED, GOOD, 141, "head"),
        (CLOSED, EXITED, 141, "head"),
        (CLOSED, Finish(Ended.RUNNING), 141, "head"),
        (LOST, EXITED, 255, "gave up"),
        (FORGOTTEN, UNTOLD, 255, GONE),
        (NotConnected("nobody"), UNTOLD, 255, "nobody"),
        (PeerAborted("why"), EXITED, 255, "why"),
        (LocalAbort("why"), GOOD, 255, "why"),
    ],
)
def test_of_a_command_its_own_status_tells_and_all_else_is_one(
    failure: SessionEnded | None, far: Finish, status: int, why: str | None
) -> None:
    for left_early in (False, True):  # whether the command has taken all says its own status
        found = decide_command(Outcome(failure, BEFORE, far, left_early=left_early), "far")
        assert (found[0], found[1] and str(found[1])) == (status, why)


NAMED = FileOutcome(named=True, file="a.tar")
FULL = FileOutcome(kept=True, why="the disk is full", file="a.tar")
NOT_NAMED = FileOutcome(file="a.tar")


@pytest.mark.parametrize(
    ("failure", "far", "file", "statuses", "why"),
    [
        (None, UNTOLD, NAMED, (0, 0), None),
        (LOST, GOOD, NAMED, (0, 0), None),
        (PeerAborted("why"), Finish(Ended.RUNNING), NAMED, (0, 0), None),
        (LOST, GOOD, FULL, (4, 255), "gave up"),
        (LocalAbort("the disk is full"), UNTOLD, FULL, (1, 255), "the disk is full"),
        (None, GOOD, FULL, (1, 255), "the disk is full"),
        (None, GOOD, NOT_NAMED, (1, 255), "a.tar is not written"),
    ],
)
def test_a_file_that_has_its_name_is_a_success_and_nothing_else_is(
    failure: SessionEnded | None,
    far: Finish,
    file: FileOutcome,
    statuses: tuple[int, int],
    why: str | None,
) -> None:
    outcome = Outcome(failure, BEFORE, far, file=file)
    for found, status in zip(
        (decide(outcome), decide_command(outcome, "far")), statuses, strict=True
    ):
        assert (found[0], found[1] and str(found[1])) == (status, why)


def test_the_status_of_a_program_tells_why_its_file_has_no_name() -> None:
    outcome = Outcome(None, BEFORE, EXITED, file=FULL)
    for status, failure in (decide(outcome), decide_command(outcome, "far")):
        assert status == 3
        assert str(failure).endswith(" exited with status 3")
