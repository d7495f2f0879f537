"""The process's own stdin, stdout and stderr, as descriptors.

They are inherited, so other processes may share them: their flags are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
from typing import Final, NamedTuple

from bpipe.net.outlet import waiting

PIPE_SIZE: Final = 1 << 20  # bytes: the most that the kernel allows everybody by default


class Directions(NamedTuple):
    """Which of the two streams is not wanted."""

    send_only: bool = False
    recv_only: bool = False


class Streams(NamedTuple):
    """Descriptors of our own for stdin and stdout, whose close is the last one."""

    stdin: int
    stdout: int
    stdin_is_terminal: bool
    stdout_is_terminal: bool


def take_streams() -> Streams:
    """Move stdin and stdout to descriptors of our own, and put /dev/null in their place.

    So closing ours really closes them, and nothing else can read or write them by mistake. A
    missing stdin becomes an empty one; a missing stdout, one that cannot be written. A stdin that
    cannot be read, as nohup(1) leaves it at a terminal, is an empty one, too.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            fcntl.fcntl(descriptor, fcntl.F_GETFD)
        except OSError:
            _put_null(descriptor, flags)
    if fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        _put_null(0, os.O_RDONLY)
    streams = Streams(os.dup(0), os.dup(1), os.isatty(0), os.isatty(1))
    _put_null(0, os.O_RDONLY)
    _put_null(1, os.O_WRONLY)
    for descriptor in streams[:2]:
        _enlarge(descriptor)
    return streams


def silence_stderr_within_data(streams: Streams) -> int | None:
    """Put /dev/null in the place of a stderr that goes where stdout goes, unless to a terminal.

    What is said there, by us or by Python, would be in the midst of the data: ``> file 2>&1`` in a
    crontab means that, and nohup(1) does it by itself. Returns what it was, for the case that there
    is no data; a reader of stdout sees no end before that is closed, too.
    """
    if not stderr_goes_with(streams.stdout):
        return None
    aside = os.dup(2)
    _put_null(2, os.O_WRONLY)
    return aside


def stderr_goes_with(stdout: int) -> bool:
    """Whether what is said on stderr goes where this stdout goes, other than to a terminal."""
    with contextlib.suppress(OSError):  # a descriptor that is missing goes nowhere
        return os.path.sameopenfile(stdout, 2) and not os.isatty(2)
    return False


def _put_null(descriptor: int, flags: int) -> None:
    opened = os.open(os.devnull, flags)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _enlarge(descriptor: int) -> None:
    """Let a pipe hold more, so that fewer and larger reads and writes move the same bytes."""
    with contextlib.suppress(OSError, AttributeError):  # no pipe, or not on this system
        if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def reads_stdin(streams: Streams, directions: Directions) -> bool:
    """Whether stdin is read: not a terminal, unless stdout is one too, or it is asked for."""
    if directions.recv_only:
        return False
    return directions.send_only or streams.stdout_is_terminal or not streams.stdin_is_terminal


def remaining(descriptor: int) -> int | None:
    """How many bytes can be read from a regular file or a disk; None for anything else."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return None
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    end = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, place, os.SEEK_SET)
    return max(0, end - place)


def holds_something(descriptor: int) -> bool:
    """Whether there are bytes to be read already: in a pipe, or of a file that is not at its end.

    Of what a person or the system may be behind, a terminal or a device, nothing is said.
    """
    with contextlib.suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return waiting(descriptor) > 0
        return stat.S_ISREG(mode) and bool(remaining(descriptor))
    return False


def leave_signals_to_the_main_thread() -> None:
    """Block the signals in this thread, so that they wake the one that handles them.

    But not those that stop a background job that touches its terminal: that would get an error.
    """
    ours = signal.valid_signals() - {signal.SIGTTIN, signal.SIGTTOU}
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)
