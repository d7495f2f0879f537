"""The lines for programs that call ssh, as they stand, over an ssh that goes nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.as_ssh import AsSsh
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import Shell, need, recipe, typed

pytestmark = pytest.mark.slow

# With borg and restic: test_ssh_tools.py, which takes long enough.
LINES = {tool: typed(recipe(tool)[-1]) for tool in ("rsync", "git")}
BEFORE = {"rsync": "true", "git": "git -C far init -q --bare project.git"}
AFTER = {"rsync": "diff -r src far/dst", "git": "test -d project"}


@pytest.fixture
def environment(shell: Shell) -> dict[str, str]:
    """Of somebody who has a folder to save."""
    (shell.folder / "src").mkdir()
    (shell.folder / "src" / "file").write_bytes(bytes(range(256)) * 5000)
    return {
        "HOME": str(shell.folder),
        "SHELL": "/bin/sh",
    }


@pytest.mark.parametrize("tool", LINES)
def test_a_program_that_calls_ssh(
    start: Start, shell: Shell, environment: dict[str, str], tool: str
) -> None:
    line = LINES[tool].replace("/src", "src").replace(":/dst", ":dst")
    need(tool)
    ssh = AsSsh(shell.folder)
    for each in (BEFORE[tool], line, AFTER[tool]):
        program = shell.enter(each, environment)
        assert program.wait() == 0, program.lines
        assert not [said for said in program.lines if said.startswith("bpipe: ")]
    assert all(call.endswith("-- far.example python3 -ISm code -q") for call in ssh.calls)
    assert ssh.calls


def test_a_folder_where_ssh_goes(shell: Shell, environment: dict[str, str], tmp_path: Path) -> None:
    AsSsh(shell.folder)
    line, *_ = recipe("Where ssh goes")
    there = line.replace("/src", "src").replace("/dst", str(tmp_path))
    assert there != line
    program = shell.enter(there, environment)
    assert program.wait() == 0
    assert (tmp_path / "file").read_bytes() == (shell.folder / "src" / "file").read_bytes()
