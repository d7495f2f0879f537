"""``python -m tests.bench.hostile KIND PORT``: one caller of a listener for many, without manners.

``frames``: the smallest frames, as fast as they are taken. ``errors``: it is let in, says what is
no frame, and comes back at once. ``stall``: it pushes, and takes nothing. It runs until it is
ended. ``busy`` calls nobody, and takes as much of a processor as it gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import sys
import threading
from typing import Final

from bpipe.protocol.wire import (
    HEADER_SIZE,
    VERDICT_SIZE,
    Answer,
    Hello,
    Kind,
    Opening,
    Position,
    pack_frame,
    pack_hello,
)
from tests.bench.peers import LOOPBACK
from tests.end_to_end.callers import calling, stall

KINDS: Final = ("busy", "frames", "errors", "stall")
_START: Final = Position(0, 0, 1 << 16)


def enter(port: int, hello: Hello) -> socket.socket:
    """A connection over which this session is up; OSError if it is refused."""
    sock = socket.create_connection((LOOPBACK, port))
    sock.sendall(pack_hello(hello))
    if sock.recv(VERDICT_SIZE, socket.MSG_WAITALL)[:1] != bytes([Answer.ACCEPT]):
        sock.close()
        raise ConnectionRefusedError
    sock.sendall(pack_frame(Kind.CONFIRM, 0))
    sock.recv(HEADER_SIZE, socket.MSG_WAITALL)
    sock.sendall(pack_frame(Kind.ACK, 0))
    return sock


def fresh() -> Hello:
    """The first message of a new session."""
    return Hello(Opening.OPEN, secrets.token_bytes(16), 1, _START)


def busy(port: int) -> None:
    """Compute."""
    while True:
        pass


def frames(port: int) -> None:
    """Say again what is known, and take what is said."""
    with enter(port, fresh()) as sock:
        threading.Thread(target=_discard, args=(sock,), daemon=True).start()
        many = pack_frame(Kind.ACK, 0) * 1000
        while True:
            sock.sendall(many)


def _discard(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 16):
            pass


def errors(port: int) -> None:
    """Come back to the session as long as that is there, and then begin another one."""
    hello = fresh()
    while True:
        try:
            with enter(port, hello) as sock:
                sock.sendall(b"\xff" * HEADER_SIZE)
                while sock.recv(1 << 16):
                    pass
            hello = hello._replace(opening=Opening.RESUME, epoch=hello.epoch + 1)
        except ConnectionRefusedError:
            hello = fresh()
        except ConnectionResetError:
            hello = hello._replace(opening=Opening.RESUME, epoch=hello.epoch + 1)


async def stalled(port: int) -> None:
    """Push, and take nothing."""
    async with calling(f"{LOOPBACK}:{port}", 1, insecure=True) as pipes:
        await stall(pipes)
        await asyncio.Event().wait()


def main() -> None:
    """Parse the command line, and go on."""
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "stall":
        asyncio.run(stalled(port))
    else:
        {"busy": busy, "frames": frames, "errors": errors}[kind](port)


if __name__ == "__main__":
    main()
