"""The README's file that goes on: the lines as they stand, after the death of both ends."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest

from tests.end_to_end.as_ssh import AsSsh
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import README, Shell, listening, other, recipe, typed

pytestmark = pytest.mark.slow

LISTEN, CONNECT, SSH = map(typed, recipe("A file that goes on"))
SIZE = 8 * MIB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What is to be saved."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(SIZE))
    return source


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_what_is_to_be_expected_of_it_is_told() -> None:
    assert "--output" in README.read_text().partition("## What to expect")[2]


def test_a_backup_goes_on_after_both_ends_were_killed(
    start: Start, shell: Shell, source: Path, key: Path
) -> None:
    secret = {"BPIPE_SECRET_FILE": str(key)}
    part, backup = (shell.folder / name for name in ("backup.tar.part", "backup.tar"))
    send = other(CONNECT, {"/src": str(source)})
    listen = other(LISTEN, {":7000": ":0"})

    first = shell.enter(listen, secret)
    proxy = start.proxy(f"127.0.0.1:{listening(first)}")
    sender = shell.enter(other(send, {"far.example:7000": proxy.address}), secret)
    until(lambda: size(part) > MIB, "a part")
    proxy.freeze()
    for each in (sender, first):
        os.killpg(each.pid, signal.SIGKILL)
        each.wait_whatever()
    lies = size(part)
    assert not backup.exists()

    receiver = shell.enter(listen, secret)
    there = f"localhost:{listening(receiver)}"
    sender = shell.enter(other(send, {"far.example:7000": there}), secret)
    assert (sender.wait(), receiver.wait()) == (0, 0)
    assert size(backup) == len(tar(shell, source))
    assert backup.read_bytes() == tar(shell, source)
    assert not part.exists()
    assert re.search(
        rf"^bpipe: backup.tar: {lies / MIB:.1f} MiB are here already;", receiver.text, re.M
    )
    moved = re.search(r"received .*\((\d[\d,]*) bytes\) of .*, as the rest was here", receiver.text)
    assert moved is not None
    assert int(moved[1].replace(",", "")) <= size(backup) - lies + 2 * 262_144


def tar(shell: Shell, source: Path) -> bytes:
    """What is to come out."""
    made = shell.folder / "made.tar"
    assert shell.enter(f"tar c -C {source} . > {made}").wait() == 0
    return made.read_bytes()


@pytest.mark.parametrize("status", [0, 3])
def test_a_dump_over_ssh_has_its_name_only_if_it_is_whole(shell: Shell, status: int) -> None:
    AsSsh(shell.folder)
    (shell.folder / "shop.sql").write_text("of yesterday")
    shell.script("pg_dump", f'echo "dump of $1"; exit {status}')
    program = shell.enter(SSH)
    assert program.wait() == status
    made = (shell.folder / "shop.sql").read_text()
    assert made == ("of yesterday" if status else "dump of shop\n")
    kept = shell.folder / "shop.sql.part"
    assert kept.exists() is bool(status)
    assert program.text == (
        "bpipe: the command exited with status 3; what has come stays in shop.sql.part;"
        " the same command goes on from there"
        if status
        else ""
    )
