"""The README's lines for programs that call ssh, as they stand, over an ssh that goes nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.as_ssh import AsSsh
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import MANUAL, README, Shell, need, recipe

pytestmark = pytest.mark.slow

TOOL = r"(?:^|' )(borg|rsync|git|restic) "
TOOLS = [
    line
    for line in re.findall("^    (.*bpipe ssh.*)$", README.read_text(), re.M)
    if re.search(TOOL, line)
]
BEFORE = {
    "borg": "BORG_RSH='bpipe ssh' borg init -e none ssh://far.example/./repo",
    "rsync": "true",
    "git": "git -C far init -q --bare project.git",
    "restic": "restic -q -o sftp.command='bpipe ssh far.example -s sftp'"
    " -r sftp:far.example:restic init",
}
AFTER = {
    "borg": "borg list far/repo::now",
    "rsync": "diff -r src far/dst",
    "git": "test -d project",
    "restic": "restic -q -r far/restic ls latest /",
}


def name(line: str) -> str:
    """The program that is called."""
    found = re.search(TOOL, line)
    assert found is not None
    return found[1]


@pytest.fixture
def environment(shell: Shell) -> dict[str, str]:
    """Of somebody who has a folder to save."""
    (shell.folder / "src").mkdir()
    (shell.folder / "src" / "file").write_bytes(bytes(range(256)) * 5000)
    return {
        "HOME": str(shell.folder),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "RESTIC_PASSWORD": "x",
        "SHELL": "/bin/sh",
    }


def test_the_manual_has_the_same_lines() -> None:
    assert sorted(map(name, TOOLS)) == sorted(BEFORE)
    manual = re.sub(r" \\e\n +", " ", MANUAL.read_text())
    for line in TOOLS:
        assert line.replace("far.example", "far") in manual


# With borg and restic: test_ssh_tools.py, which takes long enough.
QUICK = [line for line in TOOLS if name(line) in ("rsync", "git")]


@pytest.mark.parametrize("line", QUICK, ids=map(name, QUICK))
def test_a_program_that_calls_ssh(
    start: Start, shell: Shell, environment: dict[str, str], line: str
) -> None:
    tool = name(line)
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
    there = line.replace("/dst", str(tmp_path))
    assert there != line
    program = shell.enter(f"cd src && {there}", environment)
    assert program.wait() == 0
    assert (tmp_path / "file").read_bytes() == (shell.folder / "src" / "file").read_bytes()
