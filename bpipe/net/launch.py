"""The start of a command whose stdin and stdout are a connection; no event loop is needed for that.

Who is in a hurry starts one before all else is loaded, and a ``Carrier`` takes it later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from typing import Final

from bpipe.net import spawn
from bpipe.net.processes import has_ended, open_handle

BUFFER: Final = 256 << 10  # bytes in the kernel, for each direction
MARK: Final = "BPIPE_CARRIER"  # the variable that has another value for each of them
OF_PROGRAMS: Final = ("BPIPE_PEER", "BPIPE_SESSION")  # we may run as one, see ``ends/program.py``
RESTORING: Final = 0.3  # seconds to leave the terminal as it was
# What a terminal sends to all of our group is not for it: it is ours to end it, in order. Ignored,
# which a new program inherits; some shells clear what is only blocked.
_SHIELD: Final = ("sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh")
_BLOCKED: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)  # until that is said


class Launched:
    """A command that runs from now on; OSError if it cannot.

    ``apart``: it has a session of its own and no terminal. Else it may ask on ours, where ^C does
    not reach it. ``sock`` is our end of the connection, ``stderr`` that of a pipe, and ``value``
    what is in its mark. All that belongs to who says ``take``.
    """

    def __init__(self, argv: Sequence[str], *, apart: bool) -> None:
        self.value = os.urandom(8).hex()
        self._taken = False
        with contextlib.ExitStack() as its, contextlib.ExitStack() as ours:
            self.sock, far = socket.socketpair()
            its.enter_context(far)
            ours.enter_context(self.sock)
            self.stderr, stderr = os.pipe()
            its.callback(os.close, stderr)
            ours.callback(os.close, self.stderr)
            for each in (self.sock, far):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            environment = {**_environment(), MARK: self.value}
            standard = (far.fileno(), far.fileno(), stderr)
            if apart:
                self.pid = spawn.start(argv, environment, standard)
            else:
                words = (*_SHIELD, _found(argv[0]), *argv[1:])
                self.pid = spawn.start(words, environment, standard, _BLOCKED, apart=False)
            self.sock.setblocking(False)
            os.set_blocking(self.stderr, False)
            ours.pop_all()

    def take(self) -> Launched:
        """From now on somebody sees to it."""
        self._taken = True
        return self

    def abandon(self) -> None:
        """Nobody needs it; no effect if somebody has taken it. May be called again.

        It has a moment in which to leave the terminal as it was, if it has asked there already.
        """
        if not self._taken:
            self._taken = True
            os.kill(self.pid, signal.SIGTERM)
            if (handle := open_handle(self.pid)) >= 0:
                has_ended(handle, RESTORING)
                os.close(handle)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.sock.close()
            os.close(self.stderr)


def _environment() -> dict[str, str]:
    """Ours, without our options: what runs may be a bpipe, too. It is found by some that stay."""
    theirs = [name for name in os.environ if not name.startswith("BPIPE_") or name in OF_PROGRAMS]
    return {name: os.environ[name] for name in theirs}


def _found(name: str) -> str:
    """Where this command is; FileNotFoundError if it is nowhere in PATH."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return path
