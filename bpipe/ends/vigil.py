"""What the guard's process does: it holds the stdin of each program until bpipe lets go, or dies.

It is started without bpipe's modules but those that it needs (see ``guard``), so it is small. It
waits for records on a socket, and wakes up for nothing else. When the socket ends, so has bpipe,
and what was not let go is cut short.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from bpipe.ends.kin import Program, kin_of
from bpipe.net.processes import has_ended

RECORD: Final = struct.Struct("=cxxxii48s")  # what, the key of a program, its pid, its mark

PIPE: Final = b"P"  # one is about to start; its mark, with the descriptor of its stdin
STARTED: Final = b"S"  # it has; its pid, with a pidfd if there is one
ENDED: Final = b"E"  # it has ended by itself
LET_GO: Final = b"L"  # its stream has ended: close it. The answer is the same record


class Held:
    """One program, as far as it has been told of."""

    def __init__(self, stdin: int, mark: bytes = b"") -> None:
        self.stdin = stdin
        self._mark = mark
        self._pid = 0
        self._handle = -1
        self._ended = False

    def started(self, pid: int, handle: int) -> None:
        """It has this number, and perhaps this pidfd."""
        self._pid = pid
        self._handle = handle

    def note_end(self) -> None:
        """It has ended by itself."""
        self._ended = True

    def close(self) -> None:
        """Let it see the end of its stream, as far as this process is concerned."""
        os.close(self.stdin)
        if self._handle >= 0:
            os.close(self._handle)

    def cut_short(self) -> Iterator[float]:
        """End it, and what it has started; yields the seconds after which to go on."""
        found = os.fstat(self.stdin)
        pipe = (found.st_dev, found.st_ino)
        return kin_of(Program(self._pid, self._handle, pipe, self._gone, self._mark)).steps()

    def _gone(self) -> bool:
        if self._ended or not self._pid:
            return True
        if self._handle >= 0:
            return has_ended(self._handle)
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it is another user's by now
            return False
        return False


def main() -> None:
    """The whole life of the guard's process; its socket is descriptor 0."""
    os.chdir("/")  # what lies elsewhere may be unmounted
    with socket.socket(fileno=os.dup(0)) as sock:
        with open(os.devnull) as null:
            os.dup2(null.fileno(), 0)
        held = watch(sock)
    cut_short(list(held.values()))


def watch(sock: socket.socket) -> dict[int, Held]:
    """Do what the records say; at the end of the socket, what is still held, by keys."""
    held: dict[int, Held] = {}
    while True:
        try:
            record, descriptors, _, _ = socket.recv_fds(sock, RECORD.size, 1)
        except OSError:
            return held
        if len(record) < RECORD.size:
            return held
        what, key, pid, mark = RECORD.unpack(record)
        if what == PIPE:
            held[key] = Held(descriptors[0], mark.rstrip(b"\0"))
        elif what == STARTED:
            held[key].started(pid, descriptors[0] if descriptors else -1)
        elif what == ENDED:
            held[key].note_end()
        elif what == LET_GO:
            held.pop(key).close()
            try:
                sock.sendall(record)
            except OSError:  # bpipe has died meanwhile; its records are read to their end
                continue


def cut_short(held: list[Held]) -> None:
    """End them all, each with what it has started, and only then let go of its stdin."""
    ending = [(each, each.cut_short()) for each in held]
    while ending:
        delays = []
        for pair in ending.copy():
            each, steps = pair
            delay = next(steps, None)
            if delay is None:
                each.close()
                ending.remove(pair)
            else:
                delays.append(delay)
        time.sleep(min(delays, default=0))
