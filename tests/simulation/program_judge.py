"""What must hold where programs are the ends, beside what must hold anywhere."""

from __future__ import annotations

from bpipe.protocol.ending import MOVING
from bpipe.protocol.wire import Ended, Stop
from bpipe.run.exits import LOST, PIPE_CLOSED, decide, program_status
from tests.simulation.ends import End
from tests.simulation.judge import Judge, Wrong
from tests.simulation.program_ends import ProgramEnd

UNENDED = -1  # as the status of a program that runs


class ProgramJudge(Judge):
    """Looks at what is said of the programs, too, and at the exit statuses."""

    def look(self) -> None:
        super().look()
        for near, far in self._directions:
            if isinstance(near, ProgramEnd):
                look_at_the_end(near, far)

    def finish(self) -> None:
        super().finish()
        for near, far in self._directions:
            if near.outcome is None:
                continue
            if isinstance(near, ProgramEnd):
                look_for_what_is_left(near)
                self._look_for_one_that_went_on(near)
            if near.session.done:
                self._judge_what_is_told(near, far)
            _judge_status(near, far)

    def _look_for_one_that_went_on(self, near: ProgramEnd) -> None:
        """A program whose session has failed is not left to itself."""
        failed = near.outcome is not None and near.outcome.failure is not None
        if failed and near.goes_on_unharmed and not self.paused:
            raise Wrong(f"{near.name}: the program went on when its session had failed")

    def _judge_what_is_told(self, near: End, far: End) -> None:
        """Where both streams are delivered, each end knows how both programs have ended."""
        outcome = near.outcome
        assert outcome is not None
        if isinstance(near, ProgramEnd) and near.program and outcome.near != near.program.true:
            raise Wrong(f"{near.name} says that its program has ended: {outcome.near}")
        if not isinstance(far, ProgramEnd) or far.program is None:
            return
        how = outcome.far.how
        cut = how is Ended.CUT and near.session.reader.stopped is not None
        unheard = (cut or how is Ended.RUNNING) and (
            self.broken or not near.session.ending.peer_bye
        )
        ended_for_its_stream = how is Ended.CUT and far.program.was_cut
        if outcome.far != far.program.true and not (unheard or ended_for_its_stream):
            raise Wrong(f"{near.name} says that the far program has ended: {outcome.far}")

    def _left_early(self) -> bool:
        """Nobody waits for long for a program that may have no more for who has gone."""
        cut = any(end.session.writer.ended.how is Ended.CUT for end in self._ends)
        return cut or super()._left_early()

    def _judge_success(self, near: End, far: End) -> None:
        """Its exit status tells more, and is judged in any case."""


def look_at_the_end(near: ProgramEnd, far: End) -> None:
    """What FIN, and later BYE, says of the program is so, and arrives."""
    writer, program = near.session.writer, near.program
    how, true = writer.ended.how, None if program is None else program.true
    if writer.mark is None or near.session.phase not in MOVING:
        return
    if how is Ended.RUNNING:
        right = program is not None and program.goes_on
    elif how is Ended.CUT:
        right = writer.stopped is not None or (program is not None and program.was_cut)
    else:
        right = writer.ended == true
    if not right or (writer.exit.how is not Ended.UNKNOWN and writer.exit != true):
        raise Wrong(f"{near.name}: {writer.ended}, {writer.exit}: the program has ended: {true}")
    reader = far.session.reader
    if reader.mark is not None and reader.ended != writer.ended:
        raise Wrong(f"{far.name} hears that the program has ended: {reader.ended}, not {true}")


def look_for_what_is_left(near: ProgramEnd) -> None:
    """Nobody who may have read a part is left, when the process has ended."""
    program = near.program
    if program is None:
        return
    if program.true is None:
        raise Wrong(f"{near.name} has left a program behind")
    if not (program.stdin.broken or near.is_given_everything()):
        raise Wrong(f"{near.name} has left somebody behind who reads a part")


def _misses(near: End, far: End) -> bool:
    """Whether there was more for this end, which has wanted it."""
    reader = near.session.reader
    unwanted = reader.stopped is not None and reader.why is Stop.UNWANTED
    return near.accepted < far.total and (isinstance(near, ProgramEnd) or not unwanted)


def _judge_status(near: End, far: End) -> None:
    """The exit status is 0 only if nothing has failed, and else that of what has."""
    assert near.outcome is not None
    status, failure = decide(near.outcome)
    wrong = Wrong(f"{near.name} exits with status {status}: {failure}")
    programs = [
        each.program.true
        for each in (near, far)
        if isinstance(each, ProgramEnd) and each.program is not None
    ]
    statuses = [UNENDED if true is None else program_status(true) for true in programs]
    how = near.outcome.far.how
    if status == 0:
        unheard = how is Ended.CUT and not near.session.ending.peer_bye
        failed = any(statuses) and not unheard
        if failed or _misses(near, far) or _misses(far, near):
            raise wrong
    elif near.outcome.failure is None:
        left = status == PIPE_CLOSED and (near.taken < far.total or how is Ended.CUT)
        untold = status == LOST and how is Ended.RUNNING
        if status not in statuses and not (left or untold):
            raise wrong
