"""Addresses of the second implementation of bpipe's protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from typing import Any


def resolve(text: str) -> tuple[int, Any]:
    """Return the family of an address, and where it leads."""
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:]
    host, _, port = text.rpartition(":")
    info = socket.getaddrinfo(host.strip("[]") or "127.0.0.1", port, type=socket.SOCK_STREAM)[0]
    return info[0], info[4]


def listen(family: int, address: Any) -> socket.socket:
    """Return a socket that listens there."""
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_UNIX:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(address).st_mode):
                os.unlink(address)
        os.umask(0o177)
    sock.bind(address)
    sock.listen(64)
    sock.setblocking(False)
    if family != socket.AF_UNIX:
        host, port = sock.getsockname()[:2]
        print(f"listening {host}:{port}", file=sys.stderr, flush=True)
    return sock
