"""Commands that carry a connection, well or badly."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from bpipe.net.carrier import Grace
from bpipe.net.command import Command
from bpipe.net.launch import MARK
from bpipe.net.processes import DEAD, look, numbers
from bpipe.net.schedule import CARRIER

BRISK: Final = CARRIER._replace(apart=0.0, first_pause=0.01, longest_pause=0.05)
SHORT: Final = Grace(moment=0.05, patience=0.2)

# Joins stdin and stdout to the Unix socket whose path is the first argument. With another one it
# kills itself when so many bytes have gone up.
RELAY: Final = """
import os, signal, socket, sys, threading
left = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 60
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
def up():
    global left
    while data := os.read(0, min(left, 65536)):
        sock.sendall(data)
        left -= len(data)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    sock.shutdown(socket.SHUT_WR)
def down():
    while data := sock.recv(65536):
        while data:
            data = data[os.write(1, data):]
def run(what):
    try:
        what()
    except OSError:
        pass
threading.Thread(target=run, args=[up], daemon=True).start()
run(down)
"""


def relay(path: object, limit: int | None = None) -> list[str]:
    """The command that leads to the Unix socket at this path; it dies after so many bytes."""
    words = [sys.executable, "-ISc", RELAY, str(path)]
    return words if limit is None else [*words, str(limit)]


class InTurn(Command):
    """Another command for each run: these, and then the last one again and again."""

    def __init__(self, commands: list[list[str]], tell: Callable[[str], None], **more: Any) -> None:
        super().__init__(commands[-1], tell, name="in turn", **more)
        self._commands = iter(commands)
        self.runs = 0

    def argv_of(self, turn: int) -> list[str]:
        self.runs += 1
        return next(self._commands, list(self.argv))


def carriers() -> Iterator[int]:
    """The processes that carriers of this process are, or have left behind, in any session."""
    mark = f"{MARK}=".encode()
    for number in numbers():
        process = look(number)
        if process is not None and process.state not in DEAD and _has(number, mark):
            yield number


def _has(number: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{number}/environ", "rb") as file:
            found = file.read().split(b"\0")
    except OSError:
        return False
    ours = f"TEST_OF_BPIPE={os.getpid()}".encode()
    return ours in found and any(each.startswith(mark) for each in found)
