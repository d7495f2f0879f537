"""The process around the pipes: its event loop, its signals, its errors, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from bpipe.ends.local import Ends
from bpipe.ends.pumps import Pump
from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams, silence_stderr_within_data, take_streams
from bpipe.engine import Engine
from bpipe.errors import AddressError
from bpipe.net.clock import clock
from bpipe.pipe import BackedPipe
from bpipe.protocol.wire import Reason
from bpipe.report.output import LogError
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Level, Settings
from bpipe.report.terminal import STDERR
from bpipe.run.exits import FAILED, USAGE, decide
from bpipe.run.join import Join, Outcome
from bpipe.run.limits import LACKING, code, describe, require_descriptors, shortage
from bpipe.status import State

OpenPipe = Callable[[], Awaitable[BackedPipe]]

# Seconds after a deadly signal, before which another one is not impatience.
_PATIENCE: Final = {signal.SIGINT: 0.1, signal.SIGTERM: 1.0, signal.SIGHUP: 1.0}

_DEADLY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPORTING: Final = [getattr(signal, s) for s in ("SIGUSR1", "SIGINFO") if hasattr(signal, s)]


class Wanted(NamedTuple):
    """What is joined to the pipe: our stdin and stdout, or this program and its arguments."""

    directions: Directions
    program: Sequence[str] | None = None

    @property
    def seen(self) -> Directions:
        """What is to be seen of our own stdin and stdout: nothing, where a program has both."""
        return self.directions if self.program is None else Directions(recv_only=True)

    @property
    def writes_stdout(self) -> bool:
        """Whether our own stdout carries data."""
        return self.program is None and not self.directions.send_only

    def ends(self, streams: Streams, watch: PipeWatch) -> Ends:
        """The same as ends."""
        if self.program is None:
            return Stdio(streams, self.directions, watch.make_way)
        from bpipe.ends.program import Program

        for descriptor in streams[:2]:
            os.close(descriptor)
        return Program(self.program)


def run_session(
    open_pipe: OpenPipe, wanted: Wanted, settings: Settings, name: str, *, listens: bool
) -> int:
    """Wire the ends to the pipe until it is over; returns the exit status.

    ``name`` is the address, for people. Does not return if a signal ended the session: then
    this process dies by it.
    """
    try:
        streams = take_streams()
        if wanted.writes_stdout:
            silence_stderr_within_data(streams)
        require_descriptors()
        watch = PipeWatch(settings, streams, wanted.seen)
    except LACKING as error:
        with contextlib.suppress(OSError):
            os.write(STDERR, f"bpipe: {describe(error)}\n".encode())
        return FAILED
    process = Process(watch)
    ends = wanted.ends(streams, watch)
    try:
        watch.open(name, listens=listens)
        status = asyncio.run(process.run(open_pipe, ends, name, listens=listens))
    except LogError as error:
        status = watch.refuse(USAGE, str(error), error.code)
    except LACKING as error:
        status = watch.refuse(FAILED, describe(error), code(error))
    finally:
        watch.close()
    if process.deadly is not None:
        _die_by(process.deadly)
    return status


class Process:
    """Whatever becomes of this process concerns all the pipes that it has taken."""

    def __init__(self, watch: PipeWatch) -> None:
        self.deadly: int | None = None  # the signal to die by
        self._interrupted = 0.0  # when the first one came
        self._watch = watch
        self._engines: list[Engine] = []
        self._scheduling = LoopScheduling()

    async def run(self, open_pipe: OpenPipe, ends: Ends, name: str, *, listens: bool) -> int:
        """Open the pipe, join it to its ends, say how it ended; returns the exit status."""
        try:
            pipe = await open_pipe()
        except AddressError as error:
            return self._watch.refuse(USAGE, str(error), error.code)
        except (*LACKING, ImportError) as error:
            reason = describe(error)
            if listens and isinstance(error, OSError) and shortage(error) is None:
                reason = f"cannot listen at {name}: {reason}; choose another address"
            return self._watch.refuse(FAILED, reason, code(error))
        self.take(pipe.engine)
        join = Join(pipe, ends, self._scheduling)
        self._watch.begin(pipe.engine, listens=listens)
        outcome = await join.run()
        self.release(pipe.engine)
        return self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> int:
        status, failure = decide(outcome)
        if outcome.failure is None:
            self.deadly = None  # all was done when the signal came
        interrupted = self.deadly is not None
        status = status if self.deadly is None else 128 + self.deadly
        self._watch.conclude(failure, outcome.status, status, interrupted=interrupted)
        return status

    # --- in the event loop ---

    def take(self, engine: Engine) -> None:
        """From now on, signals and errors concern this pipe as well."""
        self._engines.append(engine)
        if len(self._engines) == 1:
            asyncio.get_running_loop().set_exception_handler(self._fail)
            threading.excepthook = _fail_in_thread
            self._handle_signals()

    def release(self, engine: Engine) -> None:
        """This pipe is over; after the last one, what is going to be said changes no more."""
        self._engines.remove(engine)
        if not self._engines:
            for number in (*_DEADLY, *_REPORTING, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)

    def _fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has failed: for want of something, which ends the sessions, or of sense."""
        error = context.get("exception")
        missing = None if error is None else shortage(error)
        if missing is None:
            loop.default_exception_handler(context)
            return
        for engine in self._engines:
            engine.abort(Reason.LOCAL_ERROR, missing)

    # --- signals ---

    def _handle_signals(self) -> None:
        """Not the event loop's handlers: it would put others in their place when it ends."""
        loop = asyncio.get_running_loop()

        def handle(number: int, action: Callable[[], None]) -> None:
            def tell(number: int, frame: object) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(action)

            signal.signal(number, tell)

        for number in _DEADLY:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                handle(number, partial(self._interrupt, number))
        for number in _REPORTING:
            handle(number, partial(self._watch.report, Level.QUIET))
        handle(signal.SIGUSR2, self._force_reconnect)
        if self._watch.draws and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            handle(signal.SIGTSTP, self._suspend)

    def _force_reconnect(self) -> None:
        for engine in self._engines:
            engine.force_reconnect()

    def _interrupt(self, number: int) -> None:
        """Tell the peers, and end; if that takes too long for somebody, end at once.

        Of a window that is closed the shell tells and the system, and timeout(1) tells the process
        and its group, so a repeat of the first moment means nothing.
        """
        if self.deadly is None:
            self._interrupted = clock()
            for engine in self._engines:
                if engine.status().state is not State.OVER:
                    self.deadly = number
                    reason = f"interrupted by {signal.Signals(number).name}"
                    engine.abort(Reason.INTERRUPTED, reason)
        elif clock() - self._interrupted > _PATIENCE[signal.Signals(number)]:
            self._watch.clear()
            _die_by(number)

    def _suspend(self) -> None:
        """^Z: erase the status line and stop; it is drawn again when this goes on."""
        self._watch.clear()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)


def _fail_in_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread has failed: without a pump its session cannot go on, without its words it can."""
    if isinstance(failed.thread, Pump) and failed.exc_value is not None:
        error = failed.exc_value
        failed.thread.end.give_up(shortage(error) or f"an error in bpipe itself: {error!r}")


def _die_by(number: int) -> None:
    """End this process by a signal, so that a shell's loop ends with it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
