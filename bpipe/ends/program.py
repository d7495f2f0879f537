"""A program as both ends of a pipe: its stdin takes the peer's stream, its stdout is the one sent.

It is started when the session is established, so a listener starts nothing for somebody who may
not be there.

A program never sees a false end of file. Its stdin is closed only after a stream that has come to
its end, and whose producer has not failed. In any other case the program is ended first, with all
that it has started (``child.py``), also if this process dies (``guard.py``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from bpipe.ends.child import MARK, Child
from bpipe.ends.guard import Guard
from bpipe.ends.program_streams import Input, Output, Started
from bpipe.engine import Engine
from bpipe.errors import explain
from bpipe.protocol.ending import MOVING, Phase
from bpipe.protocol.wire import Finish, Reason

# What starts it: with which environment, what to call when it has ended, and who watches over it.
Launch = Callable[[Sequence[str], Mapping[str, str], Callable[[], None], Guard], Started]


class Written(Protocol):
    """What a program writes; see ``Output``."""

    def look(self) -> None:
        """There may be space again, or nobody may want more."""

    def exited(self, how: Finish, *, cut: bool) -> None:
        """The program has ended; ``cut``: that was our doing."""


class Program:
    """One program, started when the session is established. See ``Ends``.

    ``guard`` is that of other programs, too; without one it has its own. ``result`` is how it has
    ended; None if it was never started, or still runs.
    """

    sends: Final = True
    receives: Final = True
    outcome: Final = None

    def __init__(
        self, argv: Sequence[str], guard: Guard | None = None, launch: Launch = Child
    ) -> None:
        self._argv = argv
        self._launch = launch
        self._guard = guard or Guard()
        self._shared = guard is not None
        self._engine: Engine
        self._child: Started | None = None
        self._output: Written
        self._input: Input
        self._asked = False  # to be started
        self._cut = False  # it is being ended
        self._hurried = False
        self._over = asyncio.Event()

    @property
    def result(self) -> Finish | None:
        """How it has ended."""
        return None if self._child is None else self._child.result

    def start(self, engine: Engine) -> None:
        """From now on it may be started, as soon as the session is established."""
        self._engine = engine
        engine.observe(self._look)
        self._look()

    def hurry(self) -> bool:
        """It and all that it has started get SIGKILL, without being asked before; only once."""
        child = self._child
        if child is None or self._hurried or self._over.is_set():
            return False
        self._hurried = True
        self._cut_short()
        child.kill_now()
        return True

    async def wait(self) -> None:
        """Wait until it has ended, if it was started."""
        if self._child is not None:
            await self._over.wait()
        if not self._shared:
            self._guard.close()

    # --- what the engine tells ---

    def _look(self) -> None:
        """Something has happened: what follows is done outside of this call."""
        session, child = self._engine.session, self._child
        if child is None:
            heard = session.established and self._engine.link is not None  # whom: see BPIPE_PEER
            if heard and not self._asked and session.phase is Phase.UP:
                self._asked = True
                self._engine.call(self._begin)
        elif self._stream_is_cut():
            self._engine.call(self._cut_short)
        else:
            self._output.look()
            if self._input.wanting:
                self._engine.call(self._input.move)

    def _stream_is_cut(self) -> bool:
        """Whether what it reads has no right end, and it is to be ended for that."""
        assert self._child is not None
        if self._cut or self._child.result is not None:
            return False
        return self._engine.session.phase not in MOVING or self._input.is_cut

    # --- its life ---

    def _begin(self) -> None:
        engine = self._engine
        if engine.session.phase is not Phase.UP:
            return  # it has ended meanwhile
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # then nobody tells how it ends
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            environment = self._environment()
            self._child = self._launch(self._argv, environment, self._exited, self._guard)
        except OSError as error:
            engine.abort(Reason.LOCAL_ERROR, f"cannot start {self._argv[0]}: {explain(error)}")
            return
        self._output, self._input = self._streams(engine, self._child)
        engine.drive()

    def _streams(self, engine: Engine, child: Started) -> tuple[Written, Input]:
        """What moves the bytes that it writes, and those that it reads."""
        return Output(engine, child), Input(engine, child)

    def _environment(self) -> dict[str, str]:
        """Ours, without what is meant for us, and with who is at the other end."""
        session = self._engine.session
        assert session.id is not None
        return {
            **{name: value for name, value in os.environ.items() if not _is_ours(name)},
            "BPIPE_PEER": self._engine.status().peer,
            MARK: session.id.hex(),
        }

    def _cut_short(self) -> None:
        if not self._cut and self._child is not None:
            self._cut = True
            self._input.halt()
            self._child.cut_short(self._over.set)

    def _exited(self) -> None:
        """It has ended, and is known to have read, and written, nothing more."""
        result = self.result
        assert result is not None
        self._output.exited(result, cut=self._cut)
        whole = self._input.exited()
        if whole and not self._cut:
            self._over.set()
        elif not self._cut:
            self._cut_short()  # who has its stdin, although it is gone itself


def _is_ours(name: str) -> bool:
    """Whether this variable of the environment is about bpipe alone."""
    return name.startswith(("BPIPE_", "LISTEN_")) or name == "NOTIFY_SOCKET"
