"""A program of ``kills``, as its consumer or its producer: it counts, and kills at a chosen byte.

It is run by itself, without the tests, and imports little, so that it starts quickly:
``kills_actor.py FOLDER ROLE MANNER AMOUNT AT KILLS``. In the folder it leaves files: ``begun.PID``,
which has the count of bytes that were read, in binary and up to date, so that it also tells what
one has read that was killed; ``whole.PID`` once it saw the end; ``ended.PID`` as its last act.
AT is the byte at which it kills; ``end``: after the end. KILLS is like ``listener:9,caller:15``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import time

STEP = 1 << 16  # bytes at once
PIECE = b"7 bytes" * STEP


class Killer:
    """Sends its signals, once, when a byte is reached."""

    def __init__(self, folder: str, at: str, kills: str) -> None:
        self._folder = folder
        self._at = at
        self._kills = [each.split(":") for each in kills.split(",") if each]

    def reach(self, count: int) -> int:
        """So many bytes have passed; returns how many may follow until it kills."""
        if not self._kills or self._at == "end":
            return STEP
        if count >= int(self._at):
            self._kill()
            return STEP
        return min(int(self._at) - count, STEP)

    def end(self) -> None:
        """The end has come, at the latest."""
        if self._kills:
            self._kill()

    def _kill(self) -> None:
        kills, self._kills = self._kills, []
        for name, number in kills:
            pid = self._find(name)
            if pid is not None:
                with open(f"{self._folder}/killed", "a") as file:
                    file.write(f"{name}:{number}\n")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, int(number))

    def _find(self, name: str) -> int | None:
        """The process with this name, in one run."""
        if name == "reader":
            return os.getpid()
        if name == "program":
            return program_of(self._told("listener"))
        if name == "producer":
            return program_of(self._told("caller"))
        return self._told(name)

    def _told(self, name: str) -> int:
        while not os.path.exists(f"{self._folder}/{name}.pid"):
            time.sleep(0.001)
        with open(f"{self._folder}/{name}.pid") as file:
            return int(file.read())


def program_of(parent: int) -> int | None:
    """The program of this bpipe, if it has one by now; its guard has no such variable."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{parent}/task/{parent}/children") as file:
            children = [int(each) for each in file.read().split()]
        for pid in children:
            with open(f"/proc/{pid}/environ") as file:
                if "BPIPE_SESSION=" in file.read():
                    return pid
    return None


def mark(folder: str, name: str) -> None:
    """Make an empty file."""
    open(f"{folder}/{name}", "w").close()


def consume(folder: str, answer: int, killer: Killer) -> None:
    """Read until the end, and answer with so many bytes."""
    path = f"{folder}/begun.{os.getpid()}"
    with open(path + ".new", "w+b") as file:
        file.truncate(mmap.PAGESIZE)
        read = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    os.rename(path + ".new", path)
    count = 0
    while data := os.read(0, killer.reach(count)):
        count += len(data)
        read[:8] = count.to_bytes(8, "little")
    mark(folder, f"whole.{os.getpid()}")
    killer.end()
    while answer:
        answer -= os.write(1, PIECE[: min(answer, STEP)])


def produce(descriptor: int, amount: int, killer: Killer) -> None:
    """Write so many bytes."""
    count = 0
    while count < amount:
        count += os.write(descriptor, PIECE[: min(amount - count, killer.reach(count))])
    killer.end()


def main() -> None:
    """Play one of the two roles."""
    folder, role, manner, amount, at, kills = sys.argv[1:]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if manner == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if manner == "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: None)
    if manner == "forks":
        for _ in range(3):
            if not os.fork():
                kills = ""
                break
    killer = Killer(folder, at, kills)
    if role == "consumer":
        consume(folder, int(amount), killer)
    else:
        produce(1, int(amount), killer)
    if manner == "fails":
        os._exit(1)
    mark(folder, f"ended.{role}.{os.getpid()}")
    os._exit(0)


if __name__ == "__main__":
    main()
