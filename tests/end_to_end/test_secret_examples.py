"""Recipes, as typed: one key file serves many listeners at once, each by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.data import pattern
from tests.end_to_end.helpers import finish
from tests.end_to_end.recipes import Shell, recipe, typed

pytestmark = pytest.mark.slow

RECIPES = {"folder": "A folder", "image": "A disk image", "sort": "A program that answers"}
OURS = {"/src": "src", "/dst": "dst", "/dev/sd": "sd"}  # in a folder of the test
SIZE = 3_000_001  # bytes of a disk


def ours(title: str) -> list[str]:
    """The two lines of a recipe, for a folder of the test."""
    lines = recipe(title)
    for real, here in OURS.items():
        lines = [line.replace(real, here) for line in lines]
    there, here = map(typed, lines)
    return [there, here]


def test_one_key_serves_a_folder_a_disk_and_a_program(shell: Shell, key: Path) -> None:
    folder, secret = shell.folder, {"BPIPE_SECRET_FILE": str(key)}
    for name in ("src", "dst"):
        (folder / name).mkdir()
    (folder / "src" / "file").write_bytes(pattern(0, 1000))
    (folder / "sdb").write_bytes(pattern(0, SIZE))
    (folder / "src" / "words").write_text("gamma\nalpha\nbeta\n")

    examples = {name: ours(title) for name, title in RECIPES.items()}
    far = {
        name: shell.enter(there.replace(":7000", ":0"), secret)
        for name, (there, _) in examples.items()
    }
    near = []
    for name, (_, here) in examples.items():
        invited = far[name].wait_line("bpipe connect HOST:")
        assert invited.endswith(f" --name {name}")
        port = re.search(r"HOST:(\d+) ", invited)
        assert port is not None
        here = here.replace("far.example:7000", f"localhost:{port[1]}")
        near.append(shell.enter(here, secret))

    assert finish(*near, *far.values()) == [0] * 6
    assert (folder / "dst" / "file").read_bytes() == pattern(0, 1000)
    assert (folder / "disk.img").read_bytes() == pattern(0, SIZE)
    assert (folder / "words.sorted").read_text() == "alpha\nbeta\ngamma\n"
