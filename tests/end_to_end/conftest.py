"""The fixtures of the end-to-end tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bpipe.cli.keys import write_key
from tests.end_to_end.console import Console
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import Shell
from tests.end_to_end.screen import BASH, Far, Open, Screen
from tests.end_to_end.sshd import Near, Sshd, serve


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes and proxies, and ends them after the test."""
    with Start() as start:
        yield start


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a Unix socket can be made: a short path, in a folder that is empty."""
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        yield Path(folder, "s")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file of a fresh key."""
    path = tmp_path / "key"
    write_key(path)
    return path


@pytest.fixture
def shell(start: Start, path: Path) -> Iterator[Shell]:
    """Runs lines in the folder of the path, and ends what they have started."""
    shell = Shell(start, path.parent)
    yield shell
    shell.end()


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """One server for all that do not ask for more."""
    with serve() as sshd:
        yield sshd


@pytest.fixture
def near(shell: Shell, sshd: Sshd) -> Near:
    """Who calls it."""
    return Near(shell, sshd)


@pytest.fixture
def console() -> Iterator[Console]:
    """A terminal on which a secret can be asked for, hung up in the end."""
    console = Console()
    yield console
    console.close()


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Opens terminals, and closes them after the test."""
    opened: list[Screen] = []

    def open_one(
        width: int = 80,
        shell: Sequence[str] = BASH,
        folder: Path | None = None,
        **environment: str,
    ) -> Screen:
        opened.append(Screen(width, environment, shell, folder))
        return opened[-1]

    yield open_one
    for screen in opened:
        screen.end()


@pytest.fixture
def far(start: Start, tmp_path: Path) -> Far:
    """The other side."""
    return Far(start, tmp_path)
