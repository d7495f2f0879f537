"""What a process has, by /proc: its descriptors, its children, its threads and its memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.data import until

_GUARD = b"bpipe-guard"  # an argument of one


class Has(NamedTuple):
    """What one process has."""

    descriptors: int
    children: int  # also those that have ended, and were not waited for
    threads: int
    guard: int  # descriptors of its guard; 0: it has none

    def besides(self, other: Has) -> tuple[int, int]:
        """How many descriptors and children more than another one."""
        return self.descriptors - other.descriptors, self.children - other.children


GUARD = 2, 1  # what a process has besides, once it has one: a socket, a pidfd; and a child


def children(pid: int) -> list[int]:
    """The processes that it has started, and has not waited for."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]


def has(pid: int) -> Has:
    """What this process has now."""
    below = children(pid)
    guards = [each for each in below if _GUARD in Path(f"/proc/{each}/cmdline").read_bytes()]
    return Has(
        descriptors=_descriptors(pid),
        children=len(below),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        guard=sum(map(_descriptors, guards)),
    )


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """The bytes of memory that it has, and that are no file's."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def wait_nothing_left(pid: int, before: Has) -> None:
    """Wait until it has no more than it had before, and no fewer."""
    until(lambda: has(pid) == before, lambda: f"{before}, not {has(pid)}")
