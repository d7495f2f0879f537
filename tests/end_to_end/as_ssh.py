"""An ssh that goes nowhere: the words of the command run here, in a folder. All else is real."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from tests.end_to_end.data import until

SCRIPT: Final = """#!/bin/sh
case $1 in -G) exit 0 ;; esac
printf '%s ' "$@" >> {folder}/called
echo >> {folder}/called
while [ "$1" != -- ]; do shift; done
shift 2
echo $$ >> {folder}/pids
cd {folder}/far
exec sh -c "exec $*"
"""


class AsSsh:
    """Such an ssh, in a folder that has to come first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.far = folder / "far"  # where a login is
        self.far.mkdir()
        (folder / "ssh").write_text(SCRIPT.format(folder=folder))
        (folder / "ssh").chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The words of each call."""
        with contextlib.suppress(FileNotFoundError):
            return [line.strip() for line in (self.folder / "called").read_text().splitlines()]
        return []

    @property
    def pids(self) -> list[int]:
        """The processes, also of those that have ended."""
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in (self.folder / "pids").read_text().split()]
        return []

    def kill(self, number: int) -> None:
        """Kill the n-th connection, from 1 on, once it was begun."""
        until(lambda: len(self.pids) >= number, lambda: f"{number} calls: {self.calls}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[number - 1], signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def holders(mark: str) -> list[int]:
    """The holders that have this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (folder / "comm").read_text().strip()
            if name == "bpipe-holder" and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return [pid for pid in found if alive(pid)]
