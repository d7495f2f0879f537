"""One run of ``connect`` or ``listen``: from stdin and stdout to the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from bpipe.ends.pumps import Pump, StdinPump, StdoutPump
from bpipe.ends.scheduling import Turns
from bpipe.ends.streams import (
    Directions,
    Streams,
    reads_stdin,
    silence_stderr_within_data,
    take_streams,
)
from bpipe.engine import Engine
from bpipe.errors import AddressError, SessionEnded
from bpipe.net.clock import clock
from bpipe.pipe import BackedPipe
from bpipe.protocol.wire import Reason
from bpipe.report.settings import Level, Settings
from bpipe.report.terminal import STDERR
from bpipe.report.watch import LogError, Watch
from bpipe.run.exits import FAILED, USAGE, exit_status
from bpipe.run.limits import LACKING, code, describe, require_descriptors, shortage
from bpipe.status import State

HINT_AFTER: Final = 2.0  # seconds that stdin stays open after the peer has finished
LATE: Final = 0.1  # seconds after which a timer comes too late: this process was stopped, perhaps

# Seconds after a deadly signal, before which another one is not impatience.
_PATIENCE: Final = {signal.SIGINT: 0.1, signal.SIGTERM: 1.0, signal.SIGHUP: 1.0}

_DEADLY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPORTING: Final = [getattr(signal, s) for s in ("SIGUSR1", "SIGINFO") if hasattr(signal, s)]


def run_session(
    open_pipe: Callable[[], Awaitable[BackedPipe]],
    directions: Directions,
    settings: Settings,
    name: str,
    *,
    listens: bool,
) -> int:
    """Wire stdin and stdout to the pipe until it is over; returns the exit status.

    ``name`` is the address, for people. Does not return if a signal ended the session: then
    this process dies by it.
    """
    try:
        streams = take_streams()
        if not directions.send_only:  # then stdout carries nothing
            silence_stderr_within_data(streams)
        require_descriptors()
        watch = Watch(settings, streams, directions)
    except LACKING as error:
        with contextlib.suppress(OSError):
            os.write(STDERR, f"bpipe: {describe(error)}\n".encode())
        return FAILED
    runner = _Runner(streams, directions, watch)
    try:
        watch.open(name, listens=listens)
        status = asyncio.run(runner.run(open_pipe, name, listens=listens))
    except LogError as error:
        status = watch.refuse(USAGE, str(error), error.code)
    except LACKING as error:
        status = watch.refuse(FAILED, describe(error), code(error))
    finally:
        watch.close()
    if runner.deadly is not None:
        _die_by(runner.deadly)
    return status


class _Runner:
    """What belongs to one run."""

    def __init__(self, streams: Streams, directions: Directions, watch: Watch) -> None:
        self.deadly: int | None = None  # the signal to die by
        self._interrupted = 0.0  # when the first one came
        self._streams = streams
        self._directions = directions
        self._watch = watch
        self._stdin: Pump | None = None
        self._hint: asyncio.TimerHandle | None = None

    async def run(
        self, open_pipe: Callable[[], Awaitable[BackedPipe]], name: str, *, listens: bool
    ) -> int:
        """Open the pipe, run it, and say how it ended; returns the exit status."""
        try:
            pipe = await open_pipe()
        except AddressError as error:
            return self._watch.refuse(USAGE, str(error), error.code)
        except (*LACKING, ImportError) as error:
            reason = describe(error)
            if listens and isinstance(error, OSError) and shortage(error) is None:
                reason = f"cannot listen at {name}: {reason}; choose another address"
            return self._watch.refuse(FAILED, reason, code(error))
        engine = pipe.engine
        asyncio.get_running_loop().set_exception_handler(partial(_fail, engine))
        threading.excepthook = partial(_fail_in_thread, engine)
        self._handle_signals(engine)
        self._choose_directions(engine)
        self._watch.begin(engine, listens=listens)
        with contextlib.suppress(SessionEnded):
            await pipe.connect()
            try:
                self._start_pumps(engine)
            except LACKING as error:
                engine.abort(Reason.LOCAL_ERROR, describe(error))
        await pipe.wait_closed()
        _ignore_signals()  # what is going to be reported does not change any more
        if engine.failure is None:
            self.deadly = None  # all was done when the signal came
        status = exit_status(engine.failure) if self.deadly is None else 128 + self.deadly
        self._watch.conclude(engine, status, interrupted=self.deadly is not None)
        return status

    def _choose_directions(self, engine: Engine) -> None:
        """Say at once what is not going to be used, so that the peer never waits for it."""
        if self._directions.send_only:
            engine.stop()
        if reads_stdin(self._streams, self._directions):
            engine.begin()
        else:
            engine.finish()

    def _start_pumps(self, engine: Engine) -> None:
        if engine.writer.producing:
            self._stdin = StdinPump(engine, self._streams.stdin)
            if not self._directions.send_only:  # who says that needs no hint at the other option
                engine.observe(partial(self._consider_hint, engine))
        else:
            os.close(self._streams.stdin)
        if engine.reader.stopped is None:
            StdoutPump(engine, self._streams.stdout, self._watch.make_way)
        engine.observe(Turns(lambda: engine.writer.sent + engine.reader.received).look)

    def _consider_hint(self, engine: Engine) -> None:
        """Somebody may wait for an end that will not come, because stdin stays open."""
        if self._hint is None and engine.reader.done:
            self._hint = self._hint_later(engine)

    def _hint_later(self, engine: Engine) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        due = loop.time() + HINT_AFTER
        return loop.call_at(due, self._give_hint, engine, engine.writer.written, due)

    def _give_hint(self, engine: Engine, written: int, due: float) -> None:
        if self._stdin is None or self._stdin.ended or engine.refusing:
            return
        stopped = asyncio.get_running_loop().time() - due > LATE
        if engine.writer.written > written or stopped or not (engine.connected and engine.spacious):
            self._hint = self._hint_later(engine)  # it is busy, or cannot be
            return
        self._watch.waiting_for_stdin()

    # --- signals ---

    def _handle_signals(self, engine: Engine) -> None:
        """Not the event loop's handlers: it would put others in their place when it ends."""

        def handle(number: int, action: Callable[[], None]) -> None:
            signal.signal(number, lambda number, frame: engine.call(action))

        for number in _DEADLY:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                handle(number, partial(self._interrupt, engine, number))
        for number in _REPORTING:
            handle(number, partial(self._watch.report, engine, Level.QUIET))
        handle(signal.SIGUSR2, engine.force_reconnect)
        if self._watch.draws and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            handle(signal.SIGTSTP, self._suspend)

    def _interrupt(self, engine: Engine, number: int) -> None:
        """Tell the peer, and end; if that takes too long for somebody, end at once.

        Of a window that is closed the shell tells and the system, and timeout(1) tells the process
        and its group, so a repeat of the first moment means nothing.
        """
        if self.deadly is None:
            self._interrupted = clock()
            if engine.status().state is not State.OVER:
                self.deadly = number
                engine.abort(Reason.INTERRUPTED, f"interrupted by {signal.Signals(number).name}")
        elif clock() - self._interrupted > _PATIENCE[signal.Signals(number)]:
            self._watch.clear()
            _die_by(number)

    def _suspend(self) -> None:
        """^Z: erase the status line and stop; it is drawn again when this goes on."""
        self._watch.clear()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)


def _fail(engine: Engine, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback has failed: for want of something, which ends the session, or of sense."""
    error = context.get("exception")
    missing = None if error is None else shortage(error)
    if missing is None:
        loop.default_exception_handler(context)
    else:
        engine.abort(Reason.LOCAL_ERROR, missing)


def _fail_in_thread(engine: Engine, failed: threading.ExceptHookArgs) -> None:
    """A thread has failed: without a pump the session cannot go on, without its words it can."""
    error = failed.exc_value
    if error is not None and failed.thread is not None and failed.thread.name.endswith("Pump"):
        reason = shortage(error) or f"an error in bpipe itself: {error!r}"
        engine.call(partial(engine.abort, Reason.LOCAL_ERROR, reason))


def _ignore_signals() -> None:
    for number in (*_DEADLY, *_REPORTING, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _die_by(number: int) -> None:
    """End this process by a signal, so that a shell's loop ends with it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
