"""A process with one pipe, and what is joined to it: our stdin and stdout, or something else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bpipe.ends.local import Ends
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import (
    Directions,
    Streams,
    holds_something,
    silence_stderr_within_data,
    take_streams,
)
from bpipe.net.address import Address
from bpipe.pipe import BackedPipe
from bpipe.protocol.wire import FILE, RECORDS
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
    from bpipe.ends.part import Target
    from bpipe.protocol.ring import Views
    from bpipe.run.succession import Succession

Hear = Callable[[str], None]  # a line that a command has said whose run is the connection
OpenPipe = Callable[[Hear], Awaitable[BackedPipe]]


class Wanted(NamedTuple):
    """What is joined to the pipe: our stdin and stdout, or something that takes their place."""

    directions: Directions
    program: Sequence[str] | None = None  # and its arguments
    service: Address | None = None  # where it listens
    host: str = ""  # stdin, stdout and stderr are those of a command there, as under ssh
    output: str | None = None  # the path of a file that takes what comes
    whole: bool = False  # of what goes to a file: all, also what lies there already
    anybody: bool = False  # may be at the other end, and it is not asked who is

    @property
    def needs(self) -> int:
        """What the session has to have for this; see ``protocol/terms.py``."""
        return 0 if self.output is None else RECORDS | FILE

    @property
    def seen(self) -> Directions:
        """What is to be seen of our own stdin and stdout: nothing, if they are not joined."""
        if self.output is not None:
            return Directions(send_only=True, recv_only=True)
        return self.directions if self._ours else Directions(recv_only=True)

    @property
    def writes_stdout(self) -> bool:
        """Whether our own stdout carries data."""
        return self._ours and not self.directions.send_only

    def tells(self, *, exposed: bool) -> bool | None:
        """Whether the other end hears what lies in the file; None: that depends on who it is.

        ``exposed``: it may be on another machine, and nothing tells who it is.
        """
        if self.whole or exposed:
            return False
        return None if self.anybody else True

    @property
    def _ours(self) -> bool:
        return self.program is None and self.service is None and self.output is None

    @contextlib.contextmanager
    def target(self) -> Iterator[Target | None]:
        """The file that takes what comes, if there is one: open, and locked. TargetError."""
        if self.output is None:
            yield None
            return
        from bpipe.ends.part import Target

        with contextlib.closing(Target.open(self.output)) as target:
            yield target

    def ends(self, streams: Streams, watch: PipeWatch, target: Target | None = None) -> Ends:
        """The same as ends."""
        if self._ours:
            return Stdio(streams, self.directions, watch.make_way)
        unread = self.output is not None and not self.directions.recv_only
        if unread and holds_something(streams.stdin):
            watch.tell_of_stdin_unread()
        for descriptor in streams[:2]:
            os.close(descriptor)
        if target is not None:
            return self.ends_at(target, watch.make_way_for_errors)
        return self.apart(tell=watch.tell_of_program)()

    def ends_at(
        self,
        target: Target,
        before: Callable[[Views], None] = lambda data: None,
        *,
        more: bool = False,
    ) -> Ends:
        """Those of one session that writes to this, which stays open.

        ``before`` is called with what a far program says, and what is about to be said. ``more``:
        there is always going to be another session.
        """
        from bpipe.ends.files import FileEnds

        return FileEnds(target, before=before, whole=self.whole, more=more)

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
        require_descriptors()
        watch = _watch(settings, streams, wanted)
        if wanted.writes_stdout and not wanted.host:  # else what the command says goes there, too
            watch.keep_aside(silence_stderr_within_data(streams))
    except LACKING as error:
        return cannot_begin(error, manner.failed)
    process = Process(watch, manner=manner, rate=settings.rate)
    only = Only(wanted, watch, process, listens=listens)
    return process.run(only.run(open_pipe, streams, name), name, listens=listens)


class Only:
    """The pipe of a process that has one, and what is joined to it."""

    def __init__(
        self, wanted: Wanted, watch: PipeWatch, process: Process, *, listens: bool
    ) -> None:
        self._wanted = wanted
        self._watch = watch
        self._process = process
        self._listens = listens

    async def run(self, open_pipe: OpenPipe, streams: Streams, name: str) -> int:
        """Open it, and wait until it is over; returns the exit status. ``name`` is for people."""
        watch, process, listens = self._watch, self._process, self._listens
        with contextlib.ExitStack() as stack:
            try:
                target = stack.enter_context(self._wanted.target())
                ends = self._wanted.ends(streams, watch, target)
                pipe = await open_pipe(watch.tell_of_carrier)
            except CANNOT_OPEN as error:
                return process.refuse(error, name, listens=listens)
            if self._wanted.whole:
                pipe.engine.session.terms.send_whole()
            process.begin()
            join = self._join(pipe, ends, target)
            watch.begin(pipe.engine, listens=listens)
            if target is not None:
                told = self._wanted.tells(exposed=pipe.exposed)
                base, device = target.base, target.device
                watch.tell_of_file(target.path, base, in_place=device, told=told)
            if listens:
                tell_manager("READY=1", f"listening on {pipe.status().peer}")
            outcome = await join.run()
            process.finish()
            return self._conclude(outcome)

    def _join(self, pipe: BackedPipe, ends: Ends, target: Target | None) -> Join | Succession:
        """Where a file is received by who listens, one sender may come after the other."""
        if target is None or not self._listens:
            self._process.take(pipe.engine, ends)
            return Join(pipe, ends, self._process.scheduling)
        from bpipe.run.succession import Succession  # with all that listens

        again = partial(self._wanted.ends_at, target, self._watch.make_way_for_errors)
        return Succession(pipe, ends, self._process, self._watch, again)

    def _conclude(self, outcome: Outcome) -> int:
        """Say how it ended; returns the exit status."""
        process, host = self._process, self._wanted.host
        status, failure = decide_command(outcome, host) if host else decide(outcome)
        if outcome.failure is None or failure is None:
            process.pardon()
        interrupted, file = process.deadly is not None, outcome.file
        status = status if process.deadly is None else 128 + process.deadly
        self._watch.conclude(failure, outcome.status, status, interrupted=interrupted, filed=file)
        return status


def _watch(settings: Settings, streams: Streams, wanted: Wanted) -> PipeWatch:
    if not wanted.host:
        return PipeWatch(settings, streams, wanted.seen)
    from bpipe.report.command import CommandWatch

    return CommandWatch(settings, streams, wanted.seen)
