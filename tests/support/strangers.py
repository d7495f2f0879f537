"""Who is at the other side of a socket: ourselves, or a process of another user, if we are root."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

NOBODY = 65534  # its user

needs_abstract = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has abstract Unix sockets"
)
needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root can be somebody else"
)

# It says the port, then what it hears when it says what comes on stdin; and ends with that.
_PROGRAM = f"""
import os, socket, sys, threading
family, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
where = chr(0) + host[1:] if host.startswith("@") else (host, port)
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
if port:
    sock = socket.socket(family)
    sock.connect(where)
    print(port, flush=True)
else:
    server = socket.socket(family)
    server.bind(where)
    server.listen()
    print(0 if family == socket.AF_UNIX else server.getsockname()[1], flush=True)
    sys.stdin.buffer.read(1)
    sock = server.accept()[0]
try:
    sock.sendall(sys.stdin.buffer.read())
    print(sock.recv(1000).hex(), flush=True)
except ConnectionError:
    print("", flush=True)
"""


def joined(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    """A caller, and what its listener has accepted."""
    with socket.create_server((host, 0), family=family) as server:
        caller = socket.create_connection(server.getsockname()[:2])
        return caller, server.accept()[0]


class Stranger:
    """He calls this port, or, at port 0, listens; ``accept`` lets him take his first caller.

    A host with an @ before it is the name of an abstract Unix socket; any port but 0 calls it.
    """

    def __init__(self, family: socket.AddressFamily, host: str, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(int(family)), host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            part = self._process.stdout.read(1)
            assert part
            line += part
        return line.decode().strip()

    def accept(self) -> None:
        """Take a caller who waits, and stay."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\0")

    def hear(self, said: bytes) -> bytes:
        """Say this, and return what is answered; nothing if the connection is closed."""
        assert self._process.stdin is not None
        self._process.stdin.write(said)
        self._process.stdin.close()
        return bytes.fromhex(self._line())

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout):
            assert file is not None
            file.close()


@contextlib.contextmanager
def stranger(family: socket.AddressFamily, host: str, port: int = 0) -> Iterator[Stranger]:
    """One who is ended with the test."""
    one = Stranger(family, host, port)
    try:
        yield one
    finally:
        one.end()


def abstract_name() -> str:
    """The name of an abstract Unix socket that nobody else has, with the @ before it."""
    return f"@bpipe-test-{uuid4().hex}"


def has_ipv6() -> bool:
    """Whether ::1 is there."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


LOOPBACK = [
    pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
    pytest.param(
        socket.AF_INET6,
        "::1",
        id="IPv6",
        marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"),
    ),
]
