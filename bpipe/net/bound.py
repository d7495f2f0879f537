"""Sockets that listen at one address, and the file that one of them has."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import NamedTuple


class Bound(NamedTuple):
    """Sockets that listen at one address."""

    sockets: list[socket.socket]
    name: str  # of the address, with the port that was really chosen
    exposed: bool = False  # other machines can reach it
    path: str | None = None  # of a Unix socket,
    identity: tuple[int, int] | None = None  # and which file that is

    def close(self) -> None:
        """Listen no more; what lies at the path is removed if it is still ours."""
        for sock in self.sockets:
            sock.close()
        if self.path is not None and identity(self.path) == self.identity:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def identity(path: str) -> tuple[int, int] | None:
    """Which file lies there, in numbers of the system; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
