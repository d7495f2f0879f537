"""One run of a command whose stdin and stdout are a connection: how it lives, and how it ends.

It has one end of a socketpair, so what it carries is a socket like any other. Nothing else of ours
is given to it but its stderr, which is read and told. It is ended when its connection is, and so is
what it has left behind: where it has a session of its own, that is whoever is in its group; where
it has ours, whoever is in our group and has its mark in the environment. Who leaves the group (a
daemon, as ssh's ControlPersist makes one) is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bpipe.net import spawn
from bpipe.net.launch import BUFFER, MARK, RESTORING, Launched
from bpipe.net.processes import DEAD, Member, Process, carries, hold, look, numbers
from bpipe.net.utterance import Utterance
from bpipe.protocol.wire import Ended, Finish

_QUESTION: Final = 0.5  # seconds after which a line without an end is a question
_LOOK: Final = 0.02  # seconds between two looks at what was left behind


class Grace(NamedTuple):
    """How long a carrier has, in seconds."""

    moment: float = 0.25  # to end by itself, when its connection has ended
    patience: float = 0.5  # from SIGTERM to SIGKILL


class Fate(NamedTuple):
    """How a carrier has ended."""

    finish: Finish
    words: str  # the same for people: "ssh exited with status 255"
    said: Sequence[str]  # the lines that it has said on stderr, told or not

    @property
    def why(self) -> str:
        """Why it has failed: what it has said last, if it has said anything, else the words."""
        failed = self.finish.how is Ended.EXITED and self.finish.status != 0
        return self.said[-1].strip() if failed and self.said else self.words


class Carrier:
    """A command that runs from now on; OSError if it cannot. To be made within a running loop.

    ``apart``: it has a session of its own and no terminal. Else it may ask on ours, where ^C does
    not reach it. ``sock`` is our end of the connection, and belongs to who takes it. ``launched``:
    it was started already, in just that way.
    """

    def __init__(
        self,
        argv: Sequence[str],
        utterance: Utterance,
        *,
        apart: bool,
        grace: Grace,
        launched: Launched | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = os.path.basename(argv[0]) or argv[0]
        self._utterance = utterance
        self._apart = apart
        self._grace = grace
        self._question: asyncio.TimerHandle | None = None
        self._last = 0  # the signal that it was sent; then how it ends tells nothing
        self._reaped = False
        launched = (launched or Launched(argv, apart=apart)).take()
        self.pid, self.sock, self._stderr = launched.pid, launched.sock, launched.stderr
        self._value = launched.value  # of its mark
        self._exited = self._loop.create_future()
        self._released = self._loop.create_future()
        self._exit = spawn.Exit(self.pid, lambda: self._exited.set_result(None))
        self._loop.add_reader(self._stderr, self._hear)
        self.gone = self._loop.create_task(self._live())  # done when nothing of it is left

    def release(self) -> None:
        """Its connection has ended: so has it, in a moment. May be called again."""
        if not self._released.done():
            self._released.set_result(None)

    def kill(self) -> None:
        """End it, and what it has left behind, at once. May be called again.

        One that may be asking on the terminal is asked to end before: it has put that into a state
        in which nobody else wants it. That blocks for a moment.
        """
        self.release()
        if not self._reaped:
            if not self._apart and self._exit.result is None:
                self._send(signal.SIGTERM)
                self._exit.wait(RESTORING)
            self._send(signal.SIGKILL)
            for member in self._left():
                member.send(signal.SIGKILL)
                member.close()

    async def fate(self) -> Fate | None:
        """How it has ended, if it has, or does within a moment; None, too, if it was we."""
        await asyncio.wait([self._exited], timeout=self._grace.moment)
        result = self._exit.result
        if result is None or self._last:
            return None
        self._hear_all()
        return Fate(result, _words(self._name, result), tuple(self._utterance.lines))

    # --- its life ---

    async def _live(self) -> None:
        try:
            await self._see_it_through()
        except asyncio.CancelledError:  # this process, or its event loop, ends
            self.kill()
            raise

    async def _see_it_through(self) -> None:
        await asyncio.wait([self._exited, self._released], return_when=asyncio.FIRST_COMPLETED)
        if not self._exited.done():
            await self._end()
        self._hear_all()
        with contextlib.suppress(OSError):  # nobody else is to hold the connection open
            self.sock.shutdown(socket.SHUT_RDWR)
        await self._clear_away()
        self._reap()

    async def _end(self) -> None:
        """It is no longer needed: wait for its end, and see to it."""
        moment, patience = self._grace
        for seconds, number in ((moment, signal.SIGTERM), (patience, signal.SIGKILL)):
            await asyncio.wait([self._exited], timeout=seconds)
            if self._exited.done():
                return
            self._send(number)
        await asyncio.wait([self._exited])

    async def _clear_away(self) -> None:
        """End what it has left behind."""
        until = self._loop.time() + self._grace.patience
        polite = () if self._last == signal.SIGKILL else (signal.SIGTERM,)
        for number in (*polite, signal.SIGKILL):
            members = list(self._left())
            for member in members:
                member.send(number)
                member.send(signal.SIGCONT)
            while not all(each.gone() for each in members) and self._loop.time() < until:
                await asyncio.sleep(_LOOK)
            for member in members:
                member.close()
            if not members:
                return

    def _reap(self) -> None:
        self._reaped = True
        self._exit.reap()

    def _send(self, number: int) -> None:
        """Signal it, and its group, if that is not ours. One that is stopped goes on, to end."""
        self._last = number
        signals = os.killpg if self._apart else os.kill
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signals(self.pid, number)
            signals(self.pid, signal.SIGCONT)

    def _left(self) -> Iterator[Member]:
        """What it has left behind and still runs, where the system tells of that."""
        with contextlib.suppress(OSError):
            for number in numbers():
                process = look(number)
                if process is not None and self._is_ours(process):
                    member = hold(process)
                    if member is not None:
                        yield member

    def _is_ours(self, process: Process) -> bool:
        if process.state in DEAD or process.pid == self.pid:
            return False
        if self._apart:
            return process.group == self.pid
        mark = os.fsencode(f"{MARK}={self._value}")
        return process.group == os.getpgrp() and carries(process.pid, mark)

    # --- what it says ---

    def _hear(self) -> None:
        """There is something on its stderr, or the end of it."""
        try:
            data = os.read(self._stderr, 1 << 16)
        except BlockingIOError:
            return
        if self._question is not None:
            self._question.cancel()
        if not data:
            self._close_stderr()
            return
        self._utterance.heard(data)
        if not self._apart:
            self._question = self._loop.call_later(_QUESTION, self._utterance.flush)

    def _hear_all(self) -> None:
        """It has ended: what it has said is there."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(BUFFER >> 16):
                if self._stderr >= 0:
                    self._utterance.heard(os.read(self._stderr, 1 << 16))
        self._close_stderr()

    def _close_stderr(self) -> None:
        if self._question is not None:
            self._question.cancel()
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
            self._utterance.flush()


def _words(name: str, finish: Finish) -> str:
    if finish.how is Ended.EXITED:
        return f"{name} exited with status {finish.status}"
    if finish.how is Ended.KILLED:
        known = finish.status in set(signal.Signals)
        what = signal.Signals(finish.status).name if known else f"signal {finish.status}"
        return f"{name} was ended by {what}"
    return f"{name} has ended"
