"""A program and all that it has started: how they are ended before their stream is.

Theory of operation. A program whose stream is cut short must not see the end of it, or it would
take a part for the whole. So whoever may read is ended first. That is the program, what descends
from it, what is in a session that one of these leads (a parent may have left), what has the mark of
the program in its environment (the same, in a session of its own), and whoever has the stream as
its stdin (``setsid PROGRAM`` leaves one behind that is related to nobody). Each of them may read
what another one writes, so none may run on when another one dies: all are stopped first, and looked
for again until there is no new one. Then each gets SIGTERM, and only when all have it, SIGCONT. One
that ignores SIGTERM stays as it is, and so never misses what fed it. What is left after some
seconds is stopped once more and killed; or asked by another signal first, if there is more than one
to ask with.

The time that this takes belongs to others: ``steps`` yields the seconds after which to go on.

The guard's process runs this module, too: of bpipe it imports only `net/processes`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, NamedTuple

from bpipe.net.processes import (
    DEAD,
    Member,
    Process,
    carries,
    hold,
    ignores,
    look,
    numbers,
    reads,
)

PATIENCE: Final = 5.0  # seconds from SIGTERM to SIGKILL
_STOPPING: Final = 1.0  # seconds until one that does not stop, as in a wait for a disk, is let be
_AT_ONCE: Final = 100  # processes that are looked at between two steps: some milliseconds
_FIRST, _LONGEST = 0.002, 0.1  # seconds between two looks
_STILL: Final = b"TtZX"  # states of processes that do nothing


class Program(NamedTuple):
    """What was started."""

    pid: int
    handle: int  # see `open_handle`; it stays the caller's
    pipe: tuple[int, int]  # its stdin: device and inode
    ended: Callable[[], bool]  # whether it has; the number may be another's then
    mark: bytes = b""  # what only it, and what it starts, has in its environment, if anything
    asks: Sequence[int] = (signal.SIGTERM,)  # what they are asked to end with, one after the other


class Kin:
    """A program and all that it has started, on Linux.

    If it has ended by itself, nobody counts unless somebody still reads its stdin.
    """

    def __init__(self, program: Program, patience: float = PATIENCE) -> None:
        self._pid = program.pid
        self._pipe = program.pipe
        self._mark = program.mark
        self._asks = program.asks
        self._patience = patience
        self._hurried = False
        self._members: dict[int, Member] = {}
        self._calm = False  # whether all members were still when they were last looked at
        if not program.ended():
            root = Process(program.pid, b"R", 0, program.pid, program.pid, 0)
            process = root if program.handle >= 0 else look(program.pid)
            if process is not None:
                self._members[program.pid] = Member(process, program.handle, lent=True)

    def hurry(self) -> None:
        """Waste no time with asking; to be noticed at the next step, which may be taken now."""
        self._hurried = True

    @property
    def immune(self) -> list[int]:
        """The numbers of those that live, and that we may not signal: they are waited for."""
        return [pid for pid, each in self._members.items() if each.immune]

    def steps(self) -> Iterator[float]:
        """End them all. Yields the seconds after which to go on, and returns when all are gone."""
        for number in self._asks:
            yield from self._stop()
            if not self._hurried:
                yield from self._ask(number)
        delay = _FIRST
        while self._members:
            yield from self._stop()
            self._send(signal.SIGKILL)
            yield delay
            delay = min(2 * delay, _LONGEST)
            yield from self._sweep()

    def _ask(self, number: int) -> Iterator[float]:
        """Ask them to end, by this signal, and wait for a while."""
        deaf = {pid for pid in self._members if ignores(pid, number)}
        self._send(number)
        for pid, member in self._members.items():
            if pid not in deaf:
                member.send(signal.SIGCONT)
        deadline = time.monotonic() + self._patience
        delay = _FIRST
        while self._members.keys() - deaf and time.monotonic() < deadline and not self._hurried:
            yield delay
            delay = min(2 * delay, _LONGEST)
            yield from self._sweep()

    def _stop(self) -> Iterator[float]:
        """Stop all, until none is new among them since all that were known stood still."""
        self._calm = False
        deadline = time.monotonic() + _STOPPING
        while time.monotonic() < deadline:
            self._stop_groups()
            self._send(signal.SIGSTOP)
            calm = self._calm
            grown = yield from self._sweep()
            if calm and not grown:
                return
            yield 0.0 if self._calm else _FIRST

    def _send(self, number: int) -> None:
        for member in self._members.values():
            member.send(number)

    def _stop_groups(self) -> None:
        """A signal to a group misses none that is being born."""
        led = {self._pid, *self._members}
        for group in {each.process.group for each in self._members.values() if not each.gone()}:
            if group in led:
                with contextlib.suppress(OSError):
                    os.killpg(group, signal.SIGSTOP)

    def _sweep(self) -> Generator[float, None, bool]:
        """Look at all processes; returns whether one of them is new among the members."""
        known = set(self._members)
        while True:
            for pid in [pid for pid, member in self._members.items() if member.gone()]:
                self._members.pop(pid).close()
            try:
                seen, readers, marked = yield from self._look_around()
                self._join(seen, readers, marked)
                break
            except OSError:  # no descriptor is left to look with, for now
                yield _LONGEST
        self._calm = self._members.keys() <= known and all(
            pid not in seen or seen[pid].state in _STILL or member.immune
            for pid, member in self._members.items()
        )
        return not self._members.keys() <= known

    def _look_around(
        self,
    ) -> Generator[float, None, tuple[dict[int, Process], set[int], set[int]]]:
        """All processes but the dead, which of them read the pipe, and which have the mark."""
        seen, readers, marked = {}, set(), set()
        for count, pid in enumerate(numbers(), 1):
            process = look(pid)
            if process is not None and process.state not in DEAD:
                seen[pid] = process
                if reads(pid, self._pipe):
                    readers.add(pid)
                if self._mark and carries(pid, self._mark):
                    marked.add(pid)
            if not count % _AT_ONCE:
                yield 0.0
        return seen, readers, marked

    def _join(self, seen: dict[int, Process], readers: set[int], marked: set[int]) -> None:
        """Add those that belong to the members; who reads the pipe is one in any case."""
        others = {pid: each for pid, each in seen.items() if pid not in self._members}
        while True:
            led = {self._pid, *self._members} - {0}  # the kernel's own are in session 0
            sessions = {each.process.session for each in self._members.values()} & led
            found = [
                each
                for each in others.values()
                if each.pid in readers
                or each.parent in self._members
                or each.session in sessions
                or (each.pid in marked and self._members)
            ]
            if not found:
                return
            for each in found:
                del others[each.pid]
                if (member := hold(each)) is not None:
                    self._members[each.pid] = member


class Group:
    """The same where the system does not tell of processes: the program's group alone."""

    immune: Final[Sequence[int]] = ()

    def __init__(self, program: Program, patience: float = PATIENCE) -> None:
        self._program = program
        self._patience = patience
        self._hurried = False

    def hurry(self) -> None:
        """As of ``Kin``."""
        self._hurried = True

    def steps(self) -> Iterator[float]:
        """As of ``Kin``. Of the others of its group nobody waits for the end."""
        if self._program.ended():
            return
        for number in self._program.asks:
            self._send(number)
            self._send(signal.SIGCONT)
            deadline = time.monotonic() + self._patience
            while not self._hurried and time.monotonic() < deadline and not self._program.ended():
                yield _FIRST
        self._send(signal.SIGKILL)
        while not self._program.ended():
            yield _FIRST

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._program.pid, number)


def kin_of(program: Program, patience: float = PATIENCE) -> Kin | Group:
    """Whoever has to end before the program's stdin does."""
    try:  # in a container of its own it may tell of processes that have other numbers here
        told = os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        told = False
    return Kin(program, patience) if told else Group(program, patience)
