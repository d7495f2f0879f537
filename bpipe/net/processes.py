"""What the system tells of other processes, and how one of them is held, so that no other is hit.

A process is held by a descriptor (pidfd), where there is such a thing, and known by its pid and the
time of its start.

The guard's process runs this module, too: it imports nothing of bpipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
from typing import Final, NamedTuple

DEAD: Final = b"ZX"  # states of processes that have ended


def open_handle(pid: int) -> int:
    """A descriptor of the process with this number; -1 where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, a filter, a limit, or nobody has this number
        return -1


def has_ended(handle: int, within: float = 0.0) -> bool:
    """Whether the process behind this descriptor has: a zombie, too. Blocks for so many seconds."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(1000 * within))


class Process(NamedTuple):
    """What the system tells of a process."""

    pid: int
    state: bytes
    parent: int
    group: int
    session: int
    start: int  # ticks since the system's start: with the pid it names one process for ever


def look(pid: int) -> Process | None:
    """The process with this number now; None if there is none for us.

    OSError if that cannot be known.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last with "hidepid"
        return None
    parent, group, session = map(int, fields[1:4])
    return Process(pid, fields[0], parent, group, session, int(fields[19]))


def numbers() -> list[int]:
    """The numbers of all processes but this one."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def reads(pid: int, pipe: tuple[int, int]) -> bool:
    """Whether this pipe (device and inode) is its stdin."""
    try:
        found = os.stat(f"/proc/{pid}/fd/0")
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == pipe


def writes(pid: int, pipe: tuple[int, int]) -> bool:
    """Whether it can write to this pipe (device and inode), as far as we may know."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found = os.stat(f"{folder}/{name}")
                link = os.lstat(f"{folder}/{name}")  # its mode tells how it was opened
                if (found.st_dev, found.st_ino) == pipe and link.st_mode & stat.S_IWUSR:
                    return True
    return False


def name_of(pid: int) -> str:
    """What it is called; "?" if it has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).decode(errors="replace").strip()
    except OSError:
        return "?"


def carries(pid: int, mark: bytes) -> bool:
    """Whether it was started with this in its environment: ``NAME=VALUE``."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def ignores(pid: int, number: int) -> bool:
    """Whether it ignores this signal."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigIgn:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


class Member:
    """One process that is to end."""

    def __init__(self, process: Process, handle: int, *, lent: bool = False) -> None:
        self.process = process
        self.immune = False  # it may not be signalled by us
        self._handle = handle  # or -1
        self._lent = lent  # else it is ours to close

    def gone(self) -> bool:
        """Whether it has ended: a zombie reads nothing any more."""
        if self._handle >= 0:
            return has_ended(self._handle)
        try:
            now = look(self.process.pid)
        except OSError:  # as far as is known
            return False
        return now is None or now.start != self.process.start or now.state in DEAD

    def send(self, number: int) -> None:
        """Signal it, if it is still there."""
        try:
            if self._handle >= 0:
                signal.pidfd_send_signal(self._handle, number)
            elif not self.gone():
                os.kill(self.process.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            self.immune = True

    def close(self) -> None:
        """It is not needed any more."""
        if self._handle >= 0 and not self._lent:
            os.close(self._handle)


def hold(process: Process) -> Member | None:
    """Hold it, if it is still there. OSError if that cannot be known."""
    member = Member(process, open_handle(process.pid))
    now = None
    try:
        now = look(process.pid)
    finally:
        if now is None or now.start != process.start:  # its number may be another's by now
            member.close()
    return member if now is not None and now.start == process.start else None
