"""The recipes of services, as systemd runs them: backups of many senders, and never a part of one;
and a file that is sent every night.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, PATIENCE, pattern, until
from tests.end_to_end.helpers import Program, Start
from tests.end_to_end.recipes import RECIPES, Shell, blocks, listening, other

pytestmark = pytest.mark.slow


DATA = bytes(pattern(0, 1_000_000)) + bytes(pattern(1_000_000, MIB - 1_000_000))


Settings = dict[str, str]


def units(title: str) -> list[Settings]:
    """What stands in each file of this recipe; nothing is set twice in one."""
    texts = [block.replace(r"\e", "\\") for block in blocks(title, RECIPES)]
    files = [text.splitlines() for text in texts if text.startswith("[")]
    return [dict(line.split("=", 1) for line in file if "=" in line) for file in files]


class Unit:
    """What runs the unit, with files in the shell's folder."""

    def __init__(self, shell: Shell) -> None:
        folder = shell.folder
        (self.settings,) = units("A systemd service")
        assert self.settings["RuntimeDirectory"] == "bpipe"
        self.address = str(folder / "bpipe.run" / "in")
        Path(self.address).parent.mkdir()
        command = self.settings["ExecStart"].replace("%t/bpipe", str(Path(self.address).parent))
        words = shlex.split(command.replace("%%", "%").replace("$$", "$"))
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(PATIENCE)
        told = {"NOTIFY_SOCKET": str(folder / "notify")}
        self.process = shell.run(*words, environment=told)

    def hear(self) -> str:
        """The first line of what systemd is told next."""
        return self.manager.recv(1000).decode().splitlines()[0]

    def given_up(self) -> bool:
        """Whether it has ended; it is asked to, as ten minutes are too long for a test."""
        self.process.signal(signal.SIGINT)  # no effect on one that was waited for
        return not self.process.running


def send(start: Start, unit: Unit) -> Program:
    """Somebody who sends a backup."""
    return start.bpipe("connect", unit.address, "--send-only", stdin=PIPE)


def parts(folder: Path) -> list[Path]:
    """The backups that have begun and have not ended, of which something is there."""
    return [each for each in folder.glob("*.part") if each.stat().st_size > MIB]


def sizes(folder: Path) -> list[int]:
    """How large those are that have their name, which begin with what was sent."""
    named = list(folder.glob("*.tar"))
    assert all(each.read_bytes()[:MIB] == DATA for each in named)
    return sorted(each.stat().st_size for each in named)


def test_what_has_a_name_is_whole(start: Start, shell: Shell) -> None:
    unit = Unit(shell)
    with unit.manager:
        assert unit.settings["Type"] == "notify"
        assert unit.hear() == "READY=1"
        killed = send(start, unit)
        killed.feed(None)
        until(lambda: parts(shell.folder), "some of the first backup")
        killed.signal(signal.SIGKILL)  # and keeps its place
        late, other = send(start, unit), send(start, unit)
        producer = late.feed(None)
        other.feed(MIB)
        assert other.wait() == 0
        assert sizes(shell.folder) == [MIB]
        until(lambda: len(parts(shell.folder)) == 2, "some of the last backup")

        assert unit.settings["KillMode"] == "mixed"  # so the programs are not sent it
        unit.process.signal(signal.SIGTERM)
        assert unit.hear() == "STOPPING=1"
        producer.finish()
        assert late.wait() == 0
        whole = sorted([MIB, producer.written])
        assert sizes(shell.folder) == whole
        until(unit.given_up, "its end")
        assert unit.process.wait() == -signal.SIGINT
        assert sizes(shell.folder) == whole
        assert len(parts(shell.folder)) == 1


def test_a_file_that_is_sent_every_night(start: Start, shell: Shell, tmp_path: Path) -> None:
    key, disk = tmp_path / "key", tmp_path / "disk"
    assert start.bpipe("keygen", str(key)).wait() == 0
    listens, sends, _ = units("A file every night, by systemd")
    secrets = [each["Environment"].split("=", 1) for each in (listens, sends)]
    assert [name for name, _ in secrets] == ["BPIPE_SECRET_FILE"] * 2
    secret = {"BPIPE_SECRET_FILE": str(key)}
    command = other(listens["ExecStart"], {":7000": ":0"})
    listener = shell.run(*shlex.split(command), environment=secret)
    there = f"localhost:{listening(listener)}"
    command = other(sends["ExecStart"], {"far.example:7000": there})
    assert sends["StandardInput"].startswith("file:")
    for night in (DATA, DATA[:-1] + b"!"):
        disk.write_bytes(night)
        with disk.open("rb") as stdin:  # and one file for stdout and stderr, as the journal is
            sender = shell.enter(f"exec {command} >&2", secret, stdin=stdin)
            assert sender.wait() == 0
        assert "bpipe: sent" in sender.text
        assert (shell.folder / "night.img").read_bytes() == night
    assert listener.running


@pytest.mark.parametrize("title", ["A file every night, by systemd", "A systemd service"])
def test_systemd_takes_the_units(title: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for block in blocks(title, RECIPES):
        text = block.replace(r"\e", "\\").replace("ExecStart=bpipe", "ExecStart=/bin/true")
        file = tmp_path / f"night.{'timer' if '[Timer]' in text else 'service'}"
        if text.startswith("["):
            file.write_text(text)
            verify = ["systemd-analyze", "verify", str(file)]
            run = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE)
            assert (run.returncode, run.stderr) == (0, "")
