"""A Python that has nothing runs the single file, and all that it starts of itself.

Making it takes an index and some seconds, so that is not done here: PYZ names one, as for make.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

import bpipe

HERE = Path(__file__).parents[2]
FILE = HERE / os.environ.get("PYZ", "dist/bpipe.pyz")
PINS = dict(re.findall(r"^([\w-]+)==(\S+) ", (HERE / "pack" / "pins.txt").read_text(), re.M))
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]

if_made = pytest.mark.skipif(not FILE.exists(), reason="there is no single file: make pyz")


class Run:
    """Processes of the single file: what is given to all of them, and where they unpack it."""

    def __init__(self, python: Path, cache: Path, folder: Path) -> None:
        self.python = python
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "SHIV_ROOT": str(cache)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, FILE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )

    def __call__(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Status, stdout, stderr."""
        with self.start(*arguments) as process:
            out, err = process.communicate(given, timeout=60)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing but its library, and the place for what is unpacked."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder


@pytest.fixture
def run(shared: Path, tmp_path: Path) -> Run:
    return Run(shared / "bin" / "python", shared / "cache", tmp_path)


@if_made
def test_it_runs_twice_at_once_for_the_first_time(run: Run) -> None:
    run.environment["SHIV_ROOT"] = str(run.folder)
    both = [run.start("--version") for _ in range(2)]
    assert [each.communicate(timeout=60) for each in both] == [
        (f"bpipe {bpipe.__version__}\n", "")
    ] * 2


@if_made
def test_a_session_is_sealed_and_ends_in_a_program(run: Run) -> None:
    assert run("keygen", "key")[0] == 0
    where = (f"unix:{run.folder}/s", "--secret", "key")
    listener = run.start("listen", *where, "--", "sh", "-c", "cat; exit 3")
    assert run("connect", *where, given="hello")[:2] == (3, "hello")
    with listener:
        listener.communicate(timeout=60)
    assert listener.returncode == 3


@if_made
def test_a_command_is_run_where_there_is_no_bpipe(run: Run) -> None:
    status, out, err = run("run", "--via", "env", "--", "sh", "-c", "cat; exit 4", given="hello")
    assert (status, out, err) == (4, "hello", "")


@if_made
@pytest.mark.parametrize("command", ["", "listen", "ssh", "demo"])
def test_help_needs_nothing_that_was_left_out(run: Run, command: str) -> None:
    status, out, err = run(*command.split(), "--help")
    assert (status, err) == (0, "")
    assert "--help" in out


def test_it_is_for_every_python_that_an_index_is_told_of() -> None:
    told = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if ":: 3." in each]
    pythons = re.findall(r"^PYTHONS = (.*)", (HERE / "Makefile").read_text(), re.M)[0].split()
    assert set(told) <= set(pythons)
    pins = (HERE / "pack" / "pins.txt").read_text()
    (cffi,) = re.findall(r"^cffi==(?:.*\\\n)+.*", pins, re.M)
    assert cffi.count("--hash") == 2 * len(pythons)  # for two kinds of machine


def test_what_bpipe_asks_for_is_pinned_high_enough() -> None:
    for each in PROJECT["dependencies"]:
        name, _, lowest = each.partition(">=")
        assert numbers(PINS[name]) >= numbers(lowest)


def test_what_the_tests_have_is_pinned_there() -> None:
    """A version of a tool that the tests do not have is in no file that is given to people."""
    exact = dict(each.split("==") for each in PROJECT["optional-dependencies"]["test"])
    assert {PINS[name] for name in PINS if name in exact} == {exact["typer"]}


def numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".")]
