"""What is to run on other machines one day runs on Python 3.9, with the standard library only."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import bpipe

PACKAGE = Path(bpipe.__file__).parent
HERE = Path(__file__).parent
OLDEST = (3, 9)
AT_HOME = {"cli", "demo", "report", "run", "__main__"}  # only where bpipe is installed
SEALING = {"bpipe.protocol.noise", "bpipe.protocol.sealed"}  # they need `cryptography`


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


FILES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).with_suffix("").parts[0] not in AT_HOME
}


def works(python: str) -> bool:
    """Whether this is the oldest Python; pyenv(1) leaves names that lead nowhere."""
    program = f"import sys; sys.exit(sys.version_info[:2] != {OLDEST})"
    return subprocess.run([python, "-c", program], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def python() -> str:
    found = [
        shutil.which("python3.9"),
        *map(str, Path.home().glob(".pyenv/versions/3.9*/bin/python")),
    ]
    for each in found:
        if each is not None and works(each):
            return each
    pytest.skip("there is no Python 3.9")


def run(python: str, *arguments: str) -> None:
    """Without installed packages, and without a warning."""
    done = subprocess.run(
        [python, "-S", "-W", "error", *arguments],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", FILES)
def test_its_grammar_is_the_old_one(name: str) -> None:
    ast.parse(FILES[name].read_text(), feature_version=OLDEST)


def test_every_module_can_be_imported(python: str) -> None:
    names = sorted(FILES.keys() - SEALING)
    run(python, "-c", "\n".join(f"import {name}" for name in names))


def test_a_session_survives_a_cut(python: str) -> None:
    run(python, str(HERE / "support/far_side.py"))


def test_the_command_line_tells_it_that_it_is_too_old(python: str) -> None:
    """Where nobody asked before: out of a single file."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-S", "-m", "bpipe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    told = "bpipe: needs Python 3.11 or later, and this is 3.9\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
