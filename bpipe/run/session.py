"""A process with one pipe, and what is joined to it: our stdin and stdout, or something else."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bpipe.ends.local import Ends
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams, silence_stderr_within_data, take_streams
from bpipe.net.address import Address
from bpipe.pipe import BackedPipe
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Settings
from bpipe.run.exits import decide, decide_command
from bpipe.run.join import Join, Outcome
from bpipe.run.limits import LACKING, require_descriptors
from bpipe.run.process import (
    AS_SSH,
    CANNOT_OPEN,
    Manner,
    Process,
    cannot_begin,
    tell_manager,
)

if TYPE_CHECKING:
    from bpipe.ends.guard import Guard
    from bpipe.ends.notices import Tell

Hear = Callable[[str], None]  # a line that a command has said whose run is the connection
OpenPipe = Callable[[Hear], Awaitable[BackedPipe]]


class Wanted(NamedTuple):
    """What is joined to the pipe: our stdin and stdout, or something that takes their place."""

    directions: Directions
    program: Sequence[str] | None = None  # and its arguments
    service: Address | None = None  # where it listens
    host: str = ""  # stdin, stdout and stderr are those of a command there, as under ssh

    @property
    def seen(self) -> Directions:
        """What is to be seen of our own stdin and stdout: nothing, if they are not joined."""
        return self.directions if self._ours else Directions(recv_only=True)

    @property
    def writes_stdout(self) -> bool:
        """Whether our own stdout carries data."""
        return self._ours and not self.directions.send_only

    @property
    def _ours(self) -> bool:
        return self.program is None and self.service is None

    def ends(self, streams: Streams, watch: PipeWatch) -> Ends:
        """The same as ends."""
        if self._ours:
            return Stdio(streams, self.directions, watch.make_way)
        for descriptor in streams[:2]:
            os.close(descriptor)
        return self.apart(tell=watch.tell_of_program)()

    def apart(self, guard: Guard | None = None, tell: Tell = lambda *_: None) -> Callable[[], Ends]:
        """What makes these ends, which are not our own stdin and stdout, as often as it is called.

        Programs share the guard, if there is one; ``tell`` is told what is odd about one.
        """
        if self.program is not None:
            from bpipe.ends.notices import NoticedChild
            from bpipe.ends.program import Program

            return partial(Program, self.program, guard, partial(NoticedChild, tell=tell))
        from bpipe.ends.sockets import Dialled

        assert self.service is not None
        return partial(Dialled, self.service)


def run_session(
    open_pipe: OpenPipe, wanted: Wanted, settings: Settings, name: str, *, listens: bool
) -> int:
    """Wire the ends to the pipe until it is over; returns the exit status.

    ``open_pipe`` is given what is to be called with each line that a carrier says. ``name`` is the
    address, for people. Does not return if a signal ended the session: then this process dies by
    it.
    """
    manner = AS_SSH if wanted.host else Manner()
    try:
        streams = take_streams()
        if wanted.writes_stdout and not wanted.host:  # else what the command says goes there, too
            silence_stderr_within_data(streams)
        require_descriptors()
        watch = _watch(settings, streams, wanted)
    except LACKING as error:
        return cannot_begin(error, manner.failed)
    process = Process(watch, manner=manner)
    ends = wanted.ends(streams, watch)

    async def main() -> int:
        try:
            pipe = await open_pipe(watch.tell_of_carrier)
        except CANNOT_OPEN as error:
            return process.refuse(error, name, listens=listens)
        process.begin()
        process.take(pipe.engine, ends)
        join = Join(pipe, ends, process.scheduling)
        watch.begin(pipe.engine, listens=listens)
        if listens:
            tell_manager("READY=1", f"listening on {pipe.status().peer}")
        outcome = await join.run()
        process.finish()
        return _conclude(process, watch, outcome, wanted.host)

    return process.run(main(), name, listens=listens)


def _watch(settings: Settings, streams: Streams, wanted: Wanted) -> PipeWatch:
    if not wanted.host:
        return PipeWatch(settings, streams, wanted.seen)
    from bpipe.report.command import CommandWatch

    return CommandWatch(settings, streams, wanted.seen)


def _conclude(process: Process, watch: PipeWatch, outcome: Outcome, host: str) -> int:
    """Say how it ended; returns the exit status."""
    status, failure = decide_command(outcome, host) if host else decide(outcome)
    if outcome.failure is None:
        process.pardon()
    interrupted = process.deadly is not None
    status = status if process.deadly is None else 128 + process.deadly
    watch.conclude(failure, outcome.status, status, interrupted=interrupted)
    return status
