"""What is installed: whatever the manual has, and the words that an index shows."""

from __future__ import annotations

import email.message
import email.parser
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import bpipe

HERE = Path(__file__).parents[2]


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
    pages = {name.rpartition("/data/")[2] for name in wheel.namelist() if "/share/man/" in name}
    here = [page for page in (HERE / "man").iterdir() if page.suffix[1:].isdigit()]
    assert HERE / "man" / "bpipe.1" in here
    assert pages == {f"share/man/man{page.suffix[1:]}/{page.name}" for page in here}


def test_an_index_is_told_our_name_and_version(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "bpipe-net"
    assert metadata["Version"] == bpipe.__version__
