"""Programs that say, by files in a folder, that they read, and that they saw the end of it."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bpipe.ends.child import Child
from bpipe.ends.guard import Guard
from bpipe.net.processes import DEAD, look

# deaf: ignores SIGTERM; stubborn: handles it, and reads on; forks: has new children all the time,
# which read, too.
_READER: Final = """\
import os, signal, sys, time
folder, manner = sys.argv[1:]
if manner == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if manner == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: open(folder + "/asked", "w").close())
open(f"{folder}/reads.{os.getpid()}", "w").close()
for _ in range(2000 if manner == "forks" else 0):
    if not os.fork():
        open(f"{folder}/reads.{os.getpid()}", "w").close()
        break
    time.sleep(0.001)
while os.read(0, 65536):
    pass
open(folder + "/whole", "w").close()
"""


KINDS: Final = (
    "plain",
    "behind cat",
    "setsid behind cat",
    "left by its parent",
    "timeout",
    "setsid",
    "setsid --wait",
    "deaf",
    "deaf behind cat",
    "forks",
)


def reader(folder: Path, manner: str = "plain") -> list[str]:
    """It makes ``reads.PID`` in the folder when it begins, and ``whole`` when it sees the end."""
    return [sys.executable, "-I", "-S", "-c", _READER, str(folder), manner]


def behind_cat(folder: Path, manner: str = "plain", before: str = "") -> list[str]:
    """Something else reads what bpipe writes, and the reader what that writes."""
    return ["sh", "-c", f"cat | {before}{shlex.join(reader(folder, manner))}"]


def left_by_its_parent(folder: Path) -> list[str]:
    """The reader has a parent that has nothing to do with bpipe, and another stdin."""
    left = f"(cat <&3 | {shlex.join(reader(folder))} & )"
    return ["sh", "-c", f"exec 3<&0; {left}; exec cat <&3 > /dev/null"]


def cases(folder: Path) -> dict[str, list[str]]:
    """Programs of every kind, each with a folder of its own, which is made."""
    for name in KINDS:
        (folder / name).mkdir()
    return {
        "plain": reader(folder / "plain"),
        "behind cat": behind_cat(folder / "behind cat"),
        "setsid behind cat": behind_cat(folder / "setsid behind cat", before="setsid --wait "),
        "left by its parent": left_by_its_parent(folder / "left by its parent"),
        "timeout": ["timeout", "99", *reader(folder / "timeout")],
        "setsid": ["setsid", *reader(folder / "setsid")],  # it ends, and what it started reads on
        "setsid --wait": ["setsid", "--wait", *reader(folder / "setsid --wait")],
        "deaf": reader(folder / "deaf", "deaf"),
        "deaf behind cat": behind_cat(folder / "deaf behind cat", "deaf"),
        "forks": reader(folder / "forks", "forks"),
    }


def readers(folder: Path) -> list[int]:
    """The pids of those that have begun to read."""
    return [int(path.suffix[1:]) for path in folder.glob("reads.*")]


def alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    process = look(pid)
    return process is not None and process.state not in DEAD


def saw_the_end(folder: Path) -> bool:
    """Whether one of them did; to be asked when none of them runs any more."""
    assert not any(map(alive, readers(folder)))
    return (folder / "whole").exists()


class Story:
    """A program, as its pipe sees it."""

    def __init__(self, argv: list[str], guard: Guard | None = None, patience: float = 5.0) -> None:
        self.told: list[str] = []
        self.child = Child(argv, os.environ, lambda: self.told.append("ended"), guard, patience)

    def done(self) -> None:
        """To be called when it has been cut short."""
        self.told.append("done")

    async def output(self) -> str:
        """All that it writes."""
        found = b""
        while True:
            try:
                data = os.read(self.child.stdout, 65536)
            except BlockingIOError:
                await asyncio.sleep(0.005)
                continue
            if not data:
                return found.decode()
            found += data


def open_descriptors(pid: int | str = "self") -> list[str]:
    """What they lead to."""
    folder = f"/proc/{pid}/fd"
    found = []
    for name in sorted(os.listdir(folder)):
        try:
            found.append(os.readlink(f"{folder}/{name}"))
        except OSError:  # the one that has listed them
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of the readers, none of which is left behind."""
    yield tmp_path
    for pid in [each for path in tmp_path.rglob("reads.*") for each in readers(path.parent)]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
