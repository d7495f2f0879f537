"""A program that was started for a pipe: its two pipes, how it ends, and how it is ended.

It leads a session of its own and has no terminal, so it asks nobody for a password; and as nobody
could let it go on, the system never stops it with SIGTTIN, SIGTTOU or SIGTSTP. Its stdin and stdout
are pipes; our ends of them do not block, its own do. Its stderr is ours, or a pipe as well.

Its pid belongs to it until nobody will signal it any more: only then is it reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from bpipe.ends.guard import Guard
from bpipe.ends.kin import PATIENCE, Group, Kin, Program, kin_of
from bpipe.net import spawn
from bpipe.net.outlet import waiting
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Finish

MARK: Final = "BPIPE_SESSION"  # the variable that has another value for each program


class Child:
    """A program that runs from now on; OSError if it cannot. To be made within a running loop.

    ``ended`` is called once, in the loop, when it has ended by itself or otherwise. ``patience`` is
    the time in seconds that it has from SIGTERM to SIGKILL. What it starts is also known by its
    BPIPE_SESSION, if that is in the ``environment``.
    """

    asks: ClassVar[Sequence[int]] = (signal.SIGTERM,)  # what it is asked to end with
    stderr = -1  # our end of its stderr, where that is a pipe

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended: Callable[[], None],
        guard: Guard | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._guard = guard
        self._key: int | None = None  # by which the guard knows it, while it holds something
        self._patience = patience
        session = environment.get(MARK)
        self._mark = b"" if session is None else os.fsencode(f"{MARK}={session}")
        self._closing = False  # stdin: being closed, or closed
        self._anything = -1  # what the guard holds in its place
        self._kin: Kin | Group | None = None  # whom it is cut short with
        self._steps: Iterator[float] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self._cut = False  # it has been cut short, and all are gone
        self._reaped = False
        self._done: list[Callable[[], None]] = []
        self.pid = self._start(argv, environment)
        found = os.fstat(self.stdin)
        self._pipe = (found.st_dev, found.st_ino)
        self._exit = spawn.Exit(self.pid, self._note_end)
        if guard is not None:
            self._tell_guard(guard)

    def _start(self, argv: Sequence[str], environment: Mapping[str, str]) -> int:
        with contextlib.ExitStack() as its, contextlib.ExitStack() as ours:
            stdin, self.stdin = open_pipe()
            its.callback(os.close, stdin)
            ours.callback(os.close, self.stdin)
            self.stdout, stdout = open_pipe()
            its.callback(os.close, stdout)
            ours.callback(os.close, self.stdout)
            stderr = self._make_stderr(its, ours)
            if self._guard is not None:
                self._key = self._guard.hold(self.stdin, self._mark)
                ours.callback(self._let_go, lambda: None)
            pid = spawn.start(argv, environment, (stdin, stdout, stderr))
            for descriptor in (self.stdin, self.stdout, self.stderr):
                if descriptor >= 0:
                    os.set_blocking(descriptor, False)
            ours.pop_all()
            return pid

    def _make_stderr(self, its: contextlib.ExitStack, ours: contextlib.ExitStack) -> int:
        """What is to be its stderr; a pipe's ends are closed by these."""
        return 2

    @property
    def result(self) -> Finish | None:
        """EXITED and its status, or KILLED and the signal; None while it runs.

        UNKNOWN where this process was started with SIGCHLD ignored: then the system tells nobody.
        """
        return self._exit.result

    @property
    def stopped(self) -> int | None:
        """SIGSTOP if somebody has stopped it with that, else None. Nothing else can."""
        return None if self._reaped else spawn.stopped(self.pid)

    @property
    def immune(self) -> Sequence[int]:
        """Of those that are cut short: the pids that we may not signal, and wait for."""
        return () if self._kin is None else self._kin.immune

    @property
    def ending(self) -> bool:
        """Whether it is being cut short, and not all are gone."""
        return self._kin is not None and not self._cut

    def read(self, views: Views) -> int:
        """Take what it has written, as far as there is room; 0 at its end.

        BlockingIOError while there is nothing.
        """
        return os.readv(self.stdout, views)

    def write(self, views: Views) -> int:
        """Let it read this, as far as its pipe takes it.

        BlockingIOError while that is full, BrokenPipeError when nobody reads it any more.
        """
        return os.writev(self.stdin, views)

    @property
    def unread(self) -> int:
        """The bytes that it has not read, and that lie in its pipe."""
        return waiting(self.stdin)

    @property
    def deserted(self) -> bool:
        """Whether nobody can read them any more: it has closed its stdin, and so have others."""
        poll = select.poll()
        poll.register(self.stdin, 0)
        return bool(poll.poll(0))

    @property
    def untaken(self) -> int:
        """The bytes that it has written, or who has its output now, and that lie there."""
        return waiting(self.stdout)

    def close_stdin(self) -> None:
        """The stream that it reads has ended, and is whole. The guard closes it first, then we."""
        if self._closing:
            return
        self._closing = True
        self._let_go(self._close_stdin)

    def close_stdout(self) -> None:
        """Nothing more of what it writes is wanted."""
        if self.stdout >= 0:
            os.close(self.stdout)
            self.stdout = -1

    def cut_short(self, done: Callable[[], None]) -> None:
        """The stream that it reads will not be whole: end it, and what it has started, first.

        Then its stdin is closed, and ``done`` is called, after ``ended``. If it has ended by
        itself, only those are ended that it has left behind with its stdin, and those that are in
        its session with one.
        """
        self._done.append(done)
        if self._kin is None:
            self._begin()
            self._step()
        else:
            self._settle()

    def kill_now(self, done: Callable[[], None] = lambda: None) -> None:
        """The same, without asking them to end; also while it is being cut short."""
        kin = self._begin() if self._kin is None else self._kin
        kin.hurry()
        self._done.append(done)
        if self._timer is not None:
            self._timer.cancel()
        self._step()

    # --- within ---

    def _begin(self) -> Kin | Group:
        """Cut it short from now on."""
        self._hold_again()
        ended = lambda: self._exit.result is not None  # noqa: E731
        program = Program(self.pid, self._exit.handle, self._pipe, ended, self._mark, self.asks)
        self._kin = kin_of(program, self._patience)
        self._steps = self._kin.steps()
        return self._kin

    def _tell_guard(self, guard: Guard) -> None:
        if self._key is not None:
            guard.started(self._key, self.pid, self._exit.handle)

    def _hold_again(self) -> None:
        """Its stdin may be closed; but if we are killed now, it must not be left behind."""
        guard = self._guard
        if guard is None or self._key is not None or self.result is not None:
            return
        with contextlib.suppress(OSError):
            reading, self._anything = os.pipe()
            os.close(reading)
            self._key = guard.hold(self._anything, self._mark)
            self._tell_guard(guard)

    def _let_go(self, closed: Callable[[], None]) -> None:
        """The guard first; ``closed`` is called when it holds nothing of this program."""
        key, self._key = self._key, None
        if self._guard is None or key is None:
            closed()
        else:
            self._guard.let_go(key, closed)

    def _step(self) -> None:
        """Go on cutting short."""
        self._timer = None
        delay = next(self._steps, None)
        if delay is not None:
            self._timer = self._loop.call_later(delay, self._step)
            return
        self._cut = True
        self._closing = True
        self._let_go(lambda: None)
        self._close_stdin()
        if self._anything >= 0:
            os.close(self._anything)
            self._anything = -1
        self._exit.look()
        self._settle()

    def _close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def _note_end(self) -> None:
        if self._guard is not None and self._key is not None and self._kin is None:
            self._guard.ended(self._key)
        self._ended()
        self._settle()

    def _settle(self) -> None:
        """Nobody is signalled any more: reap it, and say so."""
        if self.result is None or (self._kin is not None and not self._cut):
            return
        if not self._reaped:
            self._reaped = True
            self._exit.reap()
        if self._cut:
            for done in self._done:
                self._loop.call_soon(done)
            self._done.clear()


def open_pipe() -> tuple[int, int]:
    """A pipe, neither of whose ends is one of the descriptors 0 to 2."""
    reader, writer = os.pipe()
    if min(reader, writer) > 2:
        return reader, writer
    try:
        above = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 3) for each in (reader, writer)]
        return above[0], above[1]
    finally:
        os.close(reader)
        os.close(writer)
