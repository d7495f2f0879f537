"""How a connection deals with congestion: the names that this machine has for that."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable
from typing import Final

_AVAILABLE: Final = "/proc/sys/net/ipv4/tcp_available_congestion_control"


def require_congestion(name: str) -> None:
    """ValueError, which has the names that are allowed, if this is none of them."""
    if not hasattr(socket, "TCP_CONGESTION"):
        raise ValueError("this system cannot choose how to deal with congestion")
    try:
        _try(name)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = "is not allowed to you here" if number == errno.EPERM else "is not known here"
        there = f": choose one of {', '.join(names)}" if (names := allowed()) else ""
        raise ValueError(f"{name!r} {why}{there}") from None


def allowed() -> list[str]:
    """The names that this user may choose; none, if nothing tells."""
    names = []
    with contextlib.suppress(OSError), open(_AVAILABLE) as file:
        for name in file.read().split():
            with contextlib.suppress(OSError):
                _try(name)
                names.append(name)
    return sorted(names)


def use_congestion(name: str, sockets: Iterable[socket.socket]) -> None:
    """Have these deal with it so; what comes in at one that listens is like that."""
    for sock in sockets:
        with contextlib.suppress(OSError):  # it was possible at the start
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, os.fsencode(name))


def _try(name: str) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, os.fsencode(name))
