"""The single file is made of what is pinned, and twice the same."""

from __future__ import annotations

import os
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from pack import single

HERE = Path(__file__).parents[2]
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
PINS = dict(
    re.findall(r"^([\w-]+)==(\S+) ", "".join(each.read_text() for each in single.PINS), re.M)
)


def test_the_same_sources_are_the_same_bytes(tmp_path: Path) -> None:
    files = {f"package/{number}.py": bytes(100 * number) for number in range(20)}
    compiled = {"here": {"a.so": b"a", "b.so": b"b"}}
    single.write(tmp_path / "first", files, compiled)
    mask = os.umask(0o077)
    try:
        compiled = {"here": {"b.so": b"b", "a.so": b"a"}}
        single.write(tmp_path / "second" / "file", dict(reversed(files.items())), compiled)
    finally:
        os.umask(mask)
    first, second = tmp_path / "first", tmp_path / "second" / "file"
    assert first.read_bytes() == second.read_bytes()
    assert os.access(first, os.X_OK)
    assert os.access(second, os.X_OK)


def test_another_source_is_unpacked_to_another_place(tmp_path: Path) -> None:
    starts = []
    for content in (b"one", b"two"):
        single.write(tmp_path / "file", {"package.py": content}, {})
        with zipfile.ZipFile(tmp_path / "file") as archive:
            starts.append(archive.read("__main__.py").decode())
    keys = [re.findall(r'^KEY = "([0-9a-f]{16})"', start, re.M) for start in starts]
    assert len(keys[0]) == len(keys[1]) == 1
    assert keys[0] != keys[1]


def test_only_wheels_that_are_pinned_get_in(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other-1-py3-none-any.whl", "w") as archive:
        archive.writestr("other.py", "")
    assert list(single.pinned(tmp_path, "any", single.PYTHONS)) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rich/console.py", True),
        ("rich-15.0.0.dist-info/licenses/LICENSE", True),
        ("rich-15.0.0.dist-info/METADATA", False),
        ("cffi/api.py", False),
        ("_cffi_backend.cpython-311-x86_64-linux-gnu.so", True),
    ],
)
def test_of_a_wheel_is_kept_what_runs_and_its_license(name: str, wanted: bool) -> None:
    assert single.wanted(name) == wanted


def test_what_bpipe_asks_for_is_pinned_high_enough() -> None:
    for each in PROJECT["dependencies"]:
        name, _, lowest = each.partition(">=")
        assert numbers(PINS[name]) >= numbers(lowest)


def test_what_the_tests_have_is_pinned_there() -> None:
    """A version of a tool that the tests do not have is in no file that is given to people."""
    exact = dict(each.split("==") for each in PROJECT["optional-dependencies"]["test"])
    assert {PINS[name] for name in PINS if name in exact} == {exact["typer"]}


def test_there_is_cryptography_for_every_python_that_an_index_is_told_of() -> None:
    told = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if ":: 3." in each]
    assert told
    assert set(told) <= set(single.PYTHONS)
    wheels = len(single.PYTHONS) * len(single.MACHINES)
    assert single.PINS[1].read_text().count("--hash=sha256:") == wheels


def numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".")]
