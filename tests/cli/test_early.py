"""ssh is started first, where that may be; and it is never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpipe.cli import early

SSH = """\
#!/bin/sh
echo $$ "$@" > {folder}/called
exec sleep 100
"""
PROGRAM = """
import os, select, signal, sys
from bpipe.cli import early
assert not {{"asyncio", "typer", "bpipe.engine"}} & set(sys.modules)
begun = early.begin(["far", "true"])
while not os.path.exists({called!r}) or not os.path.getsize({called!r}): pass
os.kill(os.getpid(), signal.{name})
signal.pause()
"""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an ssh that comes first in PATH says how it was called."""
    (tmp_path / "ssh").write_text(SSH.format(folder=tmp_path))
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "called"


@pytest.mark.parametrize(
    "words",
    [
        ["--status", "never", "far", "true"],
        ["--help"],
        ["-h"],
        ["-V"],
        ["-G", "far"],
        ["far"],
        ["-t", "far", "true"],
        ["far\0", "true"],
        [],
    ],
)
def test_what_has_to_be_looked_at_first_starts_nothing(called: Path, words: list[str]) -> None:
    assert early.begin(words) is None


@pytest.mark.parametrize(
    ("name", "value", "at_once"),
    [
        ("BPIPE_STATUS", "never", False),
        ("BPIPE_STATUS", "", True),
        ("BPIPE_SECRET_FILE", "/key", True),
        ("BPIPE_SESSION", "1", True),
    ],
)
def test_an_option_in_the_environment_has_to_be_looked_at_first(
    called: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, at_once: bool
) -> None:
    monkeypatch.setenv(name, value)
    begun = early.begin(["far", "true"])
    assert (begun is not None) == at_once
    if begun is not None:
        begun.abandon()


def test_where_there_is_no_ssh_that_is_said_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert early.begin(["far", "true"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_that_comes_too_early_ends_both(called: Path, name: str) -> None:
    program = PROGRAM.format(called=str(called), name=name)
    run = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n" + program
    done = subprocess.run([sys.executable, "-c", run], stderr=subprocess.PIPE, timeout=30)
    assert (done.returncode, done.stderr) == (-signal.Signals[name], b"")
    pid, *words = called.read_text().split()
    assert words[-6:] == ["--", "far", "python3", "-ISm", "code", "-q"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
