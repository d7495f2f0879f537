"""borg, restic, rsync, git and scp with ``bpipe ssh`` in the place of ssh, through cuts."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import Shell, need
from tests.end_to_end.sshd import Near, Sshd, client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PATIENCE = 120.0  # seconds for one command
BORG_ASKS = "RELOCATED_REPO", "UNKNOWN_UNENCRYPTED_REPO"
SIZES = (4 * MIB, 2 * MIB, 1 * MIB, 100, 0)
UP = [Cut(Fault.RESET, True, 60_000), *[Cut(Fault.EOF, True, n * 300_000) for n in (3, 5)]]
DOWN = [cut._replace(upward=False) for cut in UP[1:]]


class Tool:
    """A program which uses ``bpipe ssh``, and a folder that it works on."""

    def __init__(self, start: Start, shell: Shell, sshd: Sshd) -> None:
        self.near = Near(shell, sshd)
        self.far = sshd.far()
        self.data = shell.folder / "data"
        self.data.mkdir()
        rng = random.Random(8)
        for number, size in enumerate(SIZES):
            (self.data / f"file {number}").write_bytes(rng.randbytes(size))
        self._start = start
        shell.script("remote", f'exec {" ".join(client())} "$@"')

    def run(self, *command: str, cuts: list[Cut] | None = None) -> str:
        """Run it in the near folder, through these cuts; returns what it says."""
        folder = self.near.shell.folder
        proxy = self.near.through(self._start, cuts or [])
        variables = {
            **{name: str(folder / "remote") for name in ("BORG_RSH", "RSYNC_RSH")},
            **{"GIT_SSH_COMMAND": "remote", "GIT_SSH_VARIANT": "ssh", "BORG_PASSPHRASE": "a"},
            **{f"BORG_{each}_ACCESS_IS_OK": "yes" for each in BORG_ASKS},
            **{"RESTIC_PASSWORD": "a", "HOME": str(folder)},
        }
        program = self.near.shell.run(*command, environment=variables)
        assert program.wait(PATIENCE) == 0, program.text
        assert len(proxy.faults.made) == len(cuts or []), proxy.faults.made
        return program.text

    def same(self, copy: Path) -> None:
        """Compare a copy of the folder."""
        assert sorted(os.listdir(copy)) == sorted(os.listdir(self.data))
        for each in self.data.iterdir():
            assert (copy / each.name).read_bytes() == each.read_bytes()


@pytest.fixture
def tool(start: Start, shell: Shell, sshd: Sshd) -> Tool:
    """Each has its own far side."""
    return Tool(start, shell, sshd)


@pytest.fixture(autouse=True)
def _nothing_is_left(tool: Tool) -> Iterator[None]:
    yield
    tool.far.wait_no_process()


def test_borg(tool: Tool) -> None:
    need("borg")
    there = tool.far.home / "repository"
    where = f"ssh://{tool.far}/./repository"
    tool.run("borg", "init", "-e", "none", str(there))
    tool.far.own(there)
    tool.run("borg", "create", f"{where}::one", "data", cuts=UP)
    tool.run("borg", "check", "--verify-data", str(there))
    tool.far.own(there)
    (tool.near.shell.folder / "copy").mkdir()
    tool.run("sh", "-c", f"cd copy && borg extract {where}::one", cuts=DOWN)
    tool.same(tool.near.shell.folder / "copy" / "data")


def test_restic(tool: Tool) -> None:
    need("restic")
    there = tool.far.home / "repository"
    tool.run("restic", "-r", str(there), "init")
    tool.far.own(there)
    remote = "-r", f"sftp:{tool.far}:repository", "-o", f"sftp.command=remote {tool.far} -s sftp"
    tool.run("restic", *remote, "backup", "data", cuts=UP)
    tool.run("restic", "-r", str(there), "check", "--read-data")


def test_rsync(tool: Tool) -> None:
    need("rsync")
    tool.run("rsync", "-a", "data/", f"{tool.far}:copy", cuts=UP)
    tool.same(tool.far.home / "copy")
    assert tool.run("rsync", "-nia", "--checksum", "data/", f"{tool.far}:copy") == ""


def test_git(tool: Tool) -> None:
    need("git")
    who = "-c", "user.name=a", "-c", "user.email=a@example.org"
    tool.run("git", "init", "-q", "data")
    tool.run("git", "-C", "data", "add", ".")
    tool.run("git", "-C", "data", *who, "commit", "-qm", "all")
    there = tool.far.home / "there"
    tool.run("git", "init", "-q", "--bare", str(there))
    tool.far.own(there)
    tool.run("git", "-C", "data", "push", "-q", f"{tool.far}:there", "HEAD:main", cuts=UP)
    tool.run("git", "clone", "-qb", "main", f"ssh://{tool.far}/~/there", "here", cuts=DOWN)
    tool.run("git", "-C", "here", "fsck", "--strict")
    assert (tool.near.shell.folder / "here" / "file 0").read_bytes() == (
        tool.data / "file 0"
    ).read_bytes()


def test_scp(tool: Tool) -> None:
    need("scp")
    remote = str(tool.near.shell.folder / "remote")
    tool.run("scp", "-qr", "-S", remote, "data", f"{tool.far}:copy", cuts=UP)
    tool.same(tool.far.home / "copy")
    tool.run("scp", "-qrO", "-S", remote, f"{tool.far}:copy", "back", cuts=DOWN)
    tool.same(tool.near.shell.folder / "back")
