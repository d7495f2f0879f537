"""Starting a process that has nothing of ours but what it is given, and learning how it ends.

posix_spawn, because it does not copy this process, as a fork does: the event loop stands still for
a millisecond, until the program has been loaded, however much memory is ours. ``subprocess`` is as
quick, but cannot give default signals and an empty mask to the new process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bpipe.net.processes import has_ended, open_handle
from bpipe.protocol.wire import UNTOLD, Ended, Finish

_NEVER_OURS: Final = {signal.SIGKILL, signal.SIGSTOP}  # whose handling nobody may set


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    standard: tuple[int, int, int],
    blocked: Iterable[int] = (),
    *,
    apart: bool = True,
) -> int:
    """Start a program, looked for in PATH; returns its pid. OSError if that cannot be.

    ``standard`` become its descriptors 0 to 2, and there are no others. Every signal has its
    default effect, and only ``blocked`` are. ``apart``: it leads a session of its own, and so has
    no terminal; else it stays in our session and group, and may ask there as we may.
    """
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(standard)
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()]
    settings: dict[str, Any] = {
        "file_actions": actions,
        "setsigmask": blocked,
        "setsigdef": signal.valid_signals() - _NEVER_OURS,
    }
    if not apart:
        return os.posix_spawnp(argv[0], list(argv), environment, **settings)
    try:
        return os.posix_spawnp(argv[0], list(argv), environment, setsid=True, **settings)
    except NotImplementedError:  # not on this system: at least a group
        return os.posix_spawnp(argv[0], list(argv), environment, setpgroup=0, **settings)


def _inherited() -> list[int]:
    """Descriptors that this process was started with, and that a program would have, too."""
    found = []
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the one of the folder is closed by now
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return found


class Exit:
    """The end of one child of this process.

    ``told`` is called once, in the event loop, when it has ended and ``result`` is known. Its
    number stays its own until ``reap``.
    """

    def __init__(self, pid: int, told: Callable[[], None]) -> None:
        self.result: Finish | None = None
        self.handle = open_handle(pid)
        self._pid = pid
        self._told = told
        import asyncio  # takes long: who only starts something may be in a hurry

        self._loop = asyncio.get_running_loop()
        if self.handle >= 0:
            self._loop.add_reader(self.handle, self.look)
        else:
            threading.Thread(target=self._wait, name="bpipe exit", daemon=True).start()

    def look(self) -> None:
        """Has it ended?"""
        if self.result is None and (result := _ended(self._pid, os.WNOHANG)) is not None:
            self._note(result)

    def wait(self, seconds: float) -> None:
        """Block until it has ended, at most so long; not at all where that cannot be waited for."""
        if self.handle >= 0:
            has_ended(self.handle, seconds)

    def reap(self) -> None:
        """It has ended, and nobody will signal it any more."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def _wait(self) -> None:
        """In a thread of its own, where there is no descriptor that tells."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        result = _ended(self._pid, 0) or UNTOLD
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._note, result)

    def _note(self, result: Finish) -> None:
        if self.result is None:
            self.result = result
            if self.handle >= 0:
                self._loop.remove_reader(self.handle)
            self._told()


def _ended(pid: int, flags: int) -> Finish | None:
    """How it has ended, None if it has not; it stays a zombie, where there is waitid(2)."""
    try:
        if not hasattr(os, "waitid"):
            found, status = os.waitpid(pid, flags)
            return _decoded(os.waitstatus_to_exitcode(status)) if found else None
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | flags)
    except ChildProcessError:  # SIGCHLD is ignored, so that nobody is told
        return UNTOLD
    if info is None:
        return None
    return _decoded(info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)


def _decoded(code: int) -> Finish:
    return Finish(Ended.EXITED, code) if code >= 0 else Finish(Ended.KILLED, -code)


def stopped(pid: int) -> int | None:
    """The signal that has stopped this child; None while it runs, or when it has ended."""
    with contextlib.suppress(ChildProcessError, AttributeError):
        info = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG)
        return None if info is None else info.si_status
    return None
