"""The manual's examples, as typed: one key file serves many listeners at once, each by its name."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.data import pattern
from tests.end_to_end.helpers import Program, Start, finish

pytestmark = pytest.mark.slow

MANUAL = Path(__file__).parents[2] / "man" / "bpipe.1"
OURS = {"/src": "src", "/dst": "dst", "/dev/sd": "sd"}  # in a folder of the test
SIZE = 3_000_001  # bytes of a disk


def example(name: str) -> tuple[str, str]:
    """What is typed on the far machine, and on the near one, in the example with this name."""
    examples = MANUAL.read_text().partition(".Sh EXAMPLES\n")[2].partition("\n.Sh ")[0]
    blocks = re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", examples, re.MULTILINE)
    [block] = [block for block in blocks if f"--name {name} " in block]
    for real, ours in OURS.items():
        block = block.replace(real, ours)
    commands = re.sub(r"\n +", " ", block).splitlines()
    there = [line[5:] for line in commands if line.startswith(("far$ ", "far# "))]
    here = [line[2:] for line in commands if line.startswith(("$ ", "# "))]
    assert len(there) + len(here) == len(commands)
    return "\n".join(there), "\n".join(here)


@pytest.fixture
def enter(start: Start, path: Path, key: Path) -> Iterator[Callable[[str], Program]]:
    """Runs a line in a shell, in the folder of the path; its environment names the key."""
    folder, entered = path.parent, []
    bpipe = folder / "bpipe"
    bpipe.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bpipe "$@"\n')
    bpipe.chmod(0o700)

    def enter(line: str) -> Program:
        environment = f"PATH={folder}:/usr/bin:/bin", f"BPIPE_SECRET_FILE={key}"
        command = "setsid", "env", f"-C{folder}", *environment, "sh", "-c", line
        entered.append(start.program(*command))
        return entered[-1]

    yield enter
    for each in entered:
        if each.running:  # after a failure; what it has started is in its process group
            os.killpg(each.pid, signal.SIGKILL)


def test_one_key_serves_a_folder_a_disk_and_a_program(
    enter: Callable[[str], Program], path: Path
) -> None:
    folder = path.parent
    for name in ("src", "dst"):
        (folder / name).mkdir()
    (folder / "src" / "file").write_bytes(pattern(0, 1000))
    (folder / "sdb").write_bytes(pattern(0, SIZE))
    (folder / "words").write_text("gamma\nalpha\nbeta\n")

    examples = {name: example(name) for name in ("src", "disk", "sort")}
    far = {name: enter(there.replace(":7000", ":0")) for name, (there, _) in examples.items()}
    near = []
    for name, (_, here) in examples.items():
        invited = far[name].wait_line("bpipe connect HOST:")
        assert invited.endswith(f" --name {name}")
        port = re.search(r"HOST:(\d+) ", invited)
        assert port is not None
        near.append(enter(here.replace("far:7000", f"localhost:{port[1]}")))

    assert finish(*near, *far.values()) == [0] * 6
    assert (folder / "dst" / "file").read_bytes() == pattern(0, 1000)
    assert (folder / "sdc").read_bytes() == pattern(0, SIZE)
    assert (folder / "words.sorted").read_text() == "alpha\nbeta\ngamma\n"
