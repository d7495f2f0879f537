"""A process and the pipes in it: its event loop, its signals, its errors, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple

from bpipe.ends.local import Ends
from bpipe.ends.pumps import Pump
from bpipe.ends.scheduling import LoopScheduling
from bpipe.engine import Engine
from bpipe.errors import AddressError, TargetError
from bpipe.net.clock import clock
from bpipe.protocol.rate import Bucket
from bpipe.protocol.wire import Reason
from bpipe.report.output import LogError
from bpipe.report.settings import Level
from bpipe.report.terminal import STDERR
from bpipe.report.watch import Watch
from bpipe.run.exits import FAILED, OF_BPIPE, USAGE
from bpipe.run.limits import LACKING, code, describe, shortage
from bpipe.status import State

# Why a pipe, or a server, cannot begin.
CANNOT_OPEN: Final = (AddressError, TargetError, *LACKING, ImportError)

# Seconds after a deadly signal, before which another one is not impatience.
_PATIENCE: Final = {signal.SIGINT: 0.1}
_LONGER: Final = 1.0  # the same for the others

_DEADLY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPORTING: Final = [getattr(signal, s) for s in ("SIGUSR1", "SIGINFO") if hasattr(signal, s)]


class Manner(NamedTuple):
    """How a process ends that has failed, or that is signalled."""

    failed: int = FAILED
    usage: int = USAGE
    deadly: tuple[int, ...] = _DEADLY


# Who starts ssh, as rsync does, may end it by any signal that ends ssh.
AS_SSH: Final = Manner(OF_BPIPE, OF_BPIPE, (*_DEADLY, signal.SIGUSR1))


class Process:
    """Whatever becomes of this process concerns all the pipes that it has taken.

    ``interrupted`` is called with the first deadly signal, in place of ``end_all``. ``rate``: what
    its pipes share.
    """

    def __init__(
        self,
        watch: Watch,
        interrupted: Callable[[int], None] | None = None,
        manner: Manner = Manner(),  # noqa: B008 - immutable
        rate: Bucket | None = None,
    ) -> None:
        self.deadly: int | None = None  # the signal to die by
        self.scheduling = LoopScheduling()
        self._end = interrupted or self.end_all
        self._interrupted = 0.0  # when the last signal of those came
        self._watch = watch
        self._manner = manner
        self._rate = rate
        self._engines: dict[Engine, Ends | None] = {}

    def run(self, main: Coroutine[Any, Any, int], name: str, *, listens: bool) -> int:
        """Run this in an event loop; returns the exit status, or dies by a signal.

        ``name`` is the address, for people.
        """
        watch = self._watch
        try:
            watch.open(name, listens=listens)
            status = asyncio.run(main)
        except LogError as error:
            status = watch.refuse(self._manner.usage, str(error), error.code)
        except LACKING as error:
            status = watch.refuse(self._manner.failed, describe(error), code(error))
        finally:
            main.close()
            watch.close()
        if self.deadly is not None:
            _die_by(self.deadly)
        return status

    def refuse(self, error: BaseException, name: str, *, listens: bool) -> int:
        """Say why it cannot begin: one of CANNOT_OPEN. Returns the exit status."""
        if isinstance(error, AddressError | TargetError):
            usage = isinstance(error, AddressError) or error.usage
            status = self._manner.usage if usage else self._manner.failed
            return self._watch.refuse(status, str(error), error.code)
        reason = describe(error)
        if listens and isinstance(error, OSError) and shortage(error) is None:
            reason = f"cannot listen at {name}: {reason}; choose another address"
        return self._watch.refuse(self._manner.failed, reason, code(error))

    # --- in the event loop ---

    def begin(self) -> None:
        """From now on signals and errors are handled, and a rate is followed that is in a file."""
        asyncio.get_running_loop().set_exception_handler(self._fail)
        threading.excepthook = _fail_in_thread
        self._handle_signals()
        if self._rate is not None:
            from bpipe.run.rate import follow

            follow(self._rate, self._watch, self._drive)

    def finish(self) -> None:
        """All is over: what is going to be said changes no more."""
        tell_manager("STOPPING=1")
        for number in (*self._manner.deadly, *_REPORTING, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def take(self, engine: Engine, ends: Ends | None = None) -> None:
        """From now on, signals and errors concern this pipe as well, and what it is joined to."""
        self._engines[engine] = ends

    def release(self, engine: Engine) -> None:
        """This pipe is over."""
        del self._engines[engine]

    def _drive(self) -> None:
        for engine in list(self._engines):
            engine.drive()

    def end_all(self, number: int) -> None:
        """End every pipe by this signal, and tell the peers; then die by it, if there was one.

        Of a pipe that is over, what it is joined to may still be there; that ends at once.
        """
        for engine, ends in list(self._engines.items()):
            if engine.status().state is not State.OVER:
                self.die_by(number)
                reason = f"interrupted by {signal.Signals(number).name}"
                engine.abort(Reason.INTERRUPTED, reason)
            elif ends is not None and ends.hurry():
                self.die_by(number)

    def die_by(self, number: int) -> None:
        """When all is over."""
        self.deadly = number

    def pardon(self) -> None:
        """All was done when the signal came: do not die by it."""
        self.deadly = None

    def _fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback has failed: for want of something, which ends the sessions, or of sense."""
        error = context.get("exception")
        missing = None if error is None else shortage(error)
        if missing is None:
            loop.default_exception_handler(context)
            return
        for engine in list(self._engines):
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

        for number in _REPORTING:
            handle(number, partial(self._watch.report, Level.QUIET))
        for number in self._manner.deadly:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                handle(number, partial(self._interrupt, number))
        handle(signal.SIGUSR2, self._force_reconnect)
        if signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:
            handle(signal.SIGQUIT, partial(self._die_now, signal.SIGQUIT))
        if self._watch.draws and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            handle(signal.SIGTSTP, self._suspend)

    def _force_reconnect(self) -> None:
        for engine in self._engines:
            engine.force_reconnect()

    def _interrupt(self, number: int) -> None:
        """Tell the peers, and end; if that takes too long for somebody, end at once.

        But programs that run are killed before: the third signal ends this process then.

        Of a window that is closed the shell tells and the system, and timeout(1) tells the process
        and its group, so a repeat of the first moment means nothing.
        """
        patience = _PATIENCE.get(signal.Signals(number), _LONGER)
        if self._interrupted and clock() - self._interrupted < patience:
            return
        self._interrupted = clock()
        if self.deadly is None:
            tell_manager("STOPPING=1", f"interrupted by {signal.Signals(number).name}")
            self._end(number)
        elif not self._hurry():
            self._die_now(number)

    def _die_now(self, number: int) -> None:
        for engine in self._engines:
            engine.source.abandon()
        self._watch.clear()
        _die_by(number)

    def _hurry(self) -> bool:
        """Whether there is anything in the ends that now ends at once, and has not before."""
        return any([ends.hurry() for ends in self._engines.values() if ends is not None])

    def _suspend(self) -> None:
        """^Z: erase the status line and stop; it is drawn again when this goes on."""
        self._watch.clear()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)


def tell_manager(state: str, status: str = "") -> None:
    """The same as ``notify``, which is loaded only where somebody has asked to be told."""
    if "NOTIFY_SOCKET" in os.environ:
        from bpipe.run.notify import notify

        notify(state, status)


def _fail_in_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread has failed: without a pump its session cannot go on, without its words it can."""
    if isinstance(failed.thread, Pump) and failed.exc_value is not None:
        error = failed.exc_value
        failed.thread.end.give_up(shortage(error) or f"an error in bpipe itself: {error!r}")


def cannot_begin(error: BaseException, status: int = FAILED) -> int:
    """Say so, where not even a watch could be made; returns the exit status."""
    with contextlib.suppress(OSError):
        os.write(STDERR, f"bpipe: {describe(error)}\n".encode())
    return status


def _die_by(number: int) -> None:
    """End this process by a signal, so that a shell's loop ends with it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
