"""The manual's examples, as typed: one key file serves many listeners at once, each by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.data import pattern
from tests.end_to_end.helpers import finish
from tests.end_to_end.recipes import Shell, blocks, typed

pytestmark = pytest.mark.slow

OURS = {"/src": "src", "/dst": "dst", "/dev/sd": "sd"}  # in a folder of the test
SIZE = 3_000_001  # bytes of a disk


def example(name: str) -> tuple[str, str]:
    """What is typed on the far machine, and on the near one, in the example with this name."""
    [block] = [block for block in blocks("EXAMPLES") if f"--name {name} " in block]
    for real, ours in OURS.items():
        block = block.replace(real, ours)
    commands = re.sub(r"\n +", " ", block).splitlines()
    there = [typed(line) for line in commands if line.startswith("far")]
    here = [typed(line) for line in commands if not line.startswith("far")]
    return "\n".join(there), "\n".join(here)


def test_one_key_serves_a_folder_a_disk_and_a_program(shell: Shell, key: Path) -> None:
    folder = shell.folder
    for name in ("src", "dst"):
        (folder / name).mkdir()
    (folder / "src" / "file").write_bytes(pattern(0, 1000))
    (folder / "sdb").write_bytes(pattern(0, SIZE))
    (folder / "words").write_text("gamma\nalpha\nbeta\n")

    examples = {name: example(name) for name in ("src", "disk", "sort")}
    far = {
        name: shell.enter(there.replace(":7000", ":0"), BPIPE_SECRET_FILE=str(key))
        for name, (there, _) in examples.items()
    }
    near = []
    for name, (_, here) in examples.items():
        invited = far[name].wait_line("bpipe connect HOST:")
        assert invited.endswith(f" --name {name}")
        port = re.search(r"HOST:(\d+) ", invited)
        assert port is not None
        here = here.replace("far:7000", f"localhost:{port[1]}")
        near.append(shell.enter(here, BPIPE_SECRET_FILE=str(key)))

    assert finish(*near, *far.values()) == [0] * 6
    assert (folder / "dst" / "file").read_bytes() == pattern(0, 1000)
    assert (folder / "sdc").read_bytes() == pattern(0, SIZE)
    assert (folder / "words.sorted").read_text() == "alpha\nbeta\ngamma\n"
