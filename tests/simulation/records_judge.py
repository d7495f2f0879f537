"""What must hold where the streams are records, beside what must hold anywhere."""

from __future__ import annotations

from bpipe.errors import PipeClosed
from bpipe.net.farewell import CLOSE_TIMEOUT
from bpipe.protocol.wire import Stop
from bpipe.run.exits import OF_BPIPE, PIPE_CLOSED, decide_command, program_status
from tests.simulation.ends import End
from tests.simulation.judge import Judge, Wrong
from tests.simulation.program_judge import look_at_the_end, look_for_what_is_left
from tests.simulation.remote_ends import RemoteProgramEnd, SshEnd

ENDED_WITHIN = 1.0  # seconds: over a good path, when the command has ended and all is taken


class RecordsJudge(Judge):
    """Who wants no more of a stream asks nobody whether that was all."""

    def _judge_success(self, near: End, far: End) -> None:
        if not _unwanted(far):
            super()._judge_success(near, far)

    def _is_cut_short(self, near: End, far: End) -> bool:
        return super()._is_cut_short(near, far) and not _unwanted(far)


class RemoteJudge(RecordsJudge):
    """Looks at what is told of the command, and at what is here of its streams."""

    def look(self) -> None:
        super().look()
        for near, far in self._directions:
            if isinstance(near, RemoteProgramEnd):
                look_at_the_end(near, far)

    def finish(self) -> None:
        super().finish()
        for near, far in self._directions:
            if isinstance(near, RemoteProgramEnd):
                if near.outcome is not None:
                    look_for_what_is_left(near)
            elif near.outcome is not None:
                assert isinstance(near, SshEnd)
                assert isinstance(far, RemoteProgramEnd)
                self._judge_command(near, far)

    def _judge_success(self, near: End, far: End) -> None:
        """The exit status tells more, and is judged in any case."""

    def _is_cut_short(self, near: End, far: End) -> bool:
        """A command may leave its stdin as it likes."""
        return not isinstance(near, SshEnd) and super()._is_cut_short(near, far)

    def _judge_command(self, near: SshEnd, far: RemoteProgramEnd) -> None:
        """What its user is told."""
        assert near.outcome is not None
        status, failure = decide_command(near.outcome, "simulated")
        wrong = Wrong(f"{near.name} exits with status {status}: {failure}")
        true = None if far.program is None else far.program.true
        if near.outcome.failure is not None:  # that is judged
            if status != (PIPE_CLOSED if isinstance(failure, PipeClosed) else OF_BPIPE):
                raise wrong
            return
        if status == OF_BPIPE and not near.outcome.far.final:
            if far.program is None or not far.program.was_cut:
                raise wrong
            return
        if true is None or status != program_status(true):
            raise wrong
        wanted = near.session.reader.stopped is None
        if wanted and (far.kept or near.taken < far.total):
            raise Wrong(f"{near.name} misses something that the command has said")
        self._judge_time(near, far)

    def _judge_time(self, near: SshEnd, far: RemoteProgramEnd) -> None:
        """Nobody waits for anything when it has ended, and what it has said was taken."""
        program, manner = far.program, far.plan.manner
        assert program is not None
        assert manner is not None
        if not self.smooth or self.paused or manner.heir or self._reason is not None:
            return
        if near.linked_at >= program.died_at:  # there was no link for a while
            return
        ended = max(program.died_at, near.took_at) + 1.5 * near.plan.produce_every
        if near.session.terms.slots > 1:  # one may be silent, and is seen off
            ended += CLOSE_TIMEOUT
        if near.over_at is not None and near.over_at > ended + ENDED_WITHIN:
            raise Wrong(f"{near.name} ended {near.over_at - ended:.1f} s after the command")

    def _left_early(self) -> bool:
        """There was more for a stdout that was closed."""
        return any(end.left for end in self._ends)


def _unwanted(end: End) -> bool:
    """Whether this end has said that it wants no more."""
    reader = end.session.reader
    return reader.stopped is not None and reader.why is Stop.UNWANTED
