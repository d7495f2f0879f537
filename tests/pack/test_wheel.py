"""What is installed: whatever the manual has, and the words that an index shows."""

from __future__ import annotations

import email.message
import email.parser
import re
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from typer._completion_shared import get_completion_script

import bpipe

HERE = Path(__file__).parents[2]
SHELLS = {"bash": "bpipe", "zsh": "_bpipe", "fish": "bpipe.fish"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout."""
    folder = str(tmp_path_factory.mktemp("wheel"))
    (file,) = WheelBuilder(str(HERE)).build(directory=folder, versions=["standard"])
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def test_every_page_of_the_manual_is_put_where_man_looks(wheel: zipfile.ZipFile) -> None:
    here = [page for page in (HERE / "man").iterdir() if page.suffix[1:].isdigit()]
    assert HERE / "man" / "bpipe.1" in here
    assert shared(wheel, "man") == {f"man{page.suffix[1:]}/{page.name}" for page in here}


def test_the_completions_are_put_where_the_shells_look(wheel: zipfile.ZipFile) -> None:
    assert shared(wheel, "bash-completion") == {"completions/bpipe"}
    assert shared(wheel, "fish") == {"vendor_completions.d/bpipe.fish"}
    assert shared(wheel, "zsh") == {"site-functions/_bpipe"}


@pytest.mark.parametrize("shell", SHELLS)
def test_they_are_what_the_program_shows(shell: str) -> None:
    script = get_completion_script(prog_name="bpipe", complete_var="_BPIPE_COMPLETE", shell=shell)
    content = (HERE / "pack" / "completion" / SHELLS[shell]).read_text()
    if shell == "zsh":
        content, _, _ = content.partition("\n# This file is the body")
    assert content.strip() == script


def test_an_index_is_told_our_name_and_version(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "bpipe-net"
    assert metadata["Version"] == bpipe.__version__


def test_an_index_is_given_a_text_that_needs_nothing_beside_it(
    metadata: email.message.Message,
) -> None:
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=", str(metadata.get_payload()))
    assert [target for target in targets if not target.startswith(("https:", "#"))] == []


def shared(wheel: zipfile.ZipFile, folder: str) -> set[str]:
    """What is put below share/ and this folder."""
    names = (name.partition(f"/data/share/{folder}/")[2] for name in wheel.namelist())
    return set(filter(None, names))
