"""What CONTRIBUTING.md names is there, and the parts that it lists are all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_imports import LAYERS

HERE = Path(__file__).parents[1]
TEXT = (HERE / "CONTRIBUTING.md").read_text()
PLACES = sorted(set(re.findall(r"`([\w.]+/[\w./]*)`", TEXT)))
VERBS = re.findall(r"^([a-z]+):", (HERE / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_there(place: str) -> None:
    if "x/" not in place:  # which stands for any
        assert (HERE / place).exists() or (HERE / "bpipe" / place).exists()


@pytest.mark.parametrize("folder", ["protocol", "net"])
def test_every_part_is_listed(folder: str) -> None:
    table = TEXT.partition(f"| of `bpipe/{folder}/` |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[1:]]
    listed = re.findall(r"`(\w+)`", " ".join(cells))
    modules = {path.stem for path in (HERE / "bpipe" / folder).glob("*.py")} - {"__init__"}
    assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize("folder", ["ends", "report", "run", "remote", "cli"])
def test_every_part_above_them_is_listed(folder: str) -> None:
    table = TEXT.partition("| above them |")[2].partition("\n\n")[0]
    modules = {path.stem for path in (HERE / "bpipe" / folder).glob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", table)) == set()


def test_every_layer_is_drawn_in_its_order() -> None:
    drawn = TEXT.partition("```\n")[2].partition("```")[0]
    rows = re.findall(r"^[a-z, ]+?(?=  |$)", drawn, re.MULTILINE)
    assert [name for row in reversed(rows) for name in row.split(", ")] == LAYERS


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"`make (\w+)", TEXT))))
def test_every_verb_can_be_made(verb: str) -> None:
    assert verb in VERBS
