"""What the far side does before the session is established: see to it that there is a holder.

The holder is who listens at the abstract socket whose name is in the parcel. Who can bind that
starts the holder, with that socket; so there is one at most, however many attempts are made at
once, and a command is never started twice.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import marshal
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

PATIENCE = 10.0  # seconds for another starter to listen at the name that it has bound
LOOK = 0.01  # seconds between two looks at that
_CODE = """\
import marshal, sys
sys.modules["ssl"] = None  # asyncio does without, and starts sooner
import asyncio
try:
    with open(0, "rb", closefd=False) as stream:
        parcel = marshal.load(stream)
except EOFError:
    sys.exit()
exec(parcel["boot"], parcel)
parcel["hold"](parcel)
"""
_FOR_HOLDER = ("token", "errand")


def connect(address: str) -> tuple[socket.socket, socket.socket | None]:
    """A connection to who listens there; and if a holder was started for it, what to ``equip``.

    Raises RuntimeError with a text for people if there can be no holder, OSError if there is none
    now.
    """
    holder = None
    until = time.monotonic() + PATIENCE
    while True:
        listening = _bind(address)
        if listening is not None:
            with listening:
                holder = _start(listening)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
            return sock, holder
        except ConnectionRefusedError:
            sock.close()
            if time.monotonic() > until:
                raise
        time.sleep(LOOK)


def _bind(address: str) -> socket.socket | None:
    """A socket that listens there; None if somebody else has the name."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    sock.listen()
    return sock


def _start(listening: socket.socket) -> socket.socket:
    """Start the holder: in a session of its own, with nothing of ours but this and stderr.

    Returns what it waits at for its parcel.
    """
    if importlib.util.find_spec("asyncio") is None:
        raise RuntimeError("its python3 has no asyncio: is it a minimal one?")
    restore_locale()
    ours, its = socket.socketpair()
    argv = [sys.executable, "-I", "-S", "-c", _CODE, "bpipe-holder"]
    actions = [(os.POSIX_SPAWN_DUP2, each.fileno(), at) for at, each in enumerate((its, listening))]
    settings: dict[str, Any] = {
        "file_actions": [*actions, *((os.POSIX_SPAWN_CLOSE, each) for each in _inherited())],
        "setsigmask": (),
        "setsigdef": signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    }
    with its:
        try:
            os.posix_spawn(sys.executable, argv, os.environ, setsid=True, **settings)
        except NotImplementedError:  # it does that itself, a moment later
            os.posix_spawn(sys.executable, argv, os.environ, **settings)
    return ours


def equip(holder: socket.socket, parcel: Mapping[str, Any]) -> None:
    """Give it the code that it needs, and what it is to do. OSError if it has gone.

    While we compile it loads what it needs of Python.
    """
    names = parcel["modules"]
    memory = parcel["Memory"](names)
    code = {
        **{name: parcel[name] for name in _FOR_HOLDER},
        "boot": compile(parcel["boot"], "<boot>", "exec", dont_inherit=True),
        "modules": {name: memory.get_code(name) for name in names},
    }
    with holder:
        holder.sendall(marshal.dumps(code))


def restore_locale() -> None:
    """Have LC_CTYPE in the environment be what it was: Python changes that of the C locale.

    It means that for itself, but whoever it starts would have it, too (PEP 538).
    """
    name = b"LC_CTYPE="
    with contextlib.suppress(OSError), open("/proc/self/environ", "rb") as file:
        given = [each for each in file.read().split(b"\0") if each.startswith(name)]
        os.environb.pop(b"LC_CTYPE", None)
        if given:
            os.environb[b"LC_CTYPE"] = given[0][len(name) :]


def _inherited() -> list[int]:
    """Descriptors that this process was started with, beside the first three."""
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    return [each for each in found if each > 2 and _is_inheritable(each)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # that of the folder, which is closed by now
        return False
