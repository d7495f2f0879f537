"""A starter: there is one holder, whoever asks for it, and it is nobody's."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.far import Far, Token, alive, gone, holders
from tests.support.remote import NEWEST, OLDEST, python


@pytest.fixture(params=[OLDEST, NEWEST], ids=["3.9", "3.13"])
def folder(request: pytest.FixtureRequest) -> Path:
    return python(request.param)


@pytest.fixture
def token() -> Iterator[Token]:
    """Whose holders do not outlive the test."""
    token = Token()
    yield token
    for pid in holders(token.name):
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)


def begin(far: Far, token: Token) -> dict[str, Any]:
    """What is answered where no session is established."""
    return far.answer(token.starter("true"), token.words["nonce"])


def test_the_first_starts_a_holder_and_the_next_finds_it(folder: Path, token: Token) -> None:
    with Far(folder) as first, Far(folder) as second:
        assert begin(first, token)["holder"] == "new"
        assert begin(second, token)["holder"] == "there"
        assert len(set(holders(token.name))) == 1


def test_of_two_at_once_one_starts_it(folder: Path, token: Token) -> None:
    with Far(folder) as first, Far(folder) as second:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda far=far: found.append(begin(far, token)["holder"]))
            for far in (first, second)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        assert sorted(found) == ["new", "there"]


def test_the_holder_has_nothing_of_the_relay(folder: Path, token: Token, tmp_path: Path) -> None:
    inherited = os.open(tmp_path, os.O_RDONLY)
    with Far(folder, cwd=tmp_path, pass_fds=[inherited]) as far:
        os.close(inherited)
        begin(far, token)
        with Far(folder) as other:
            begin(other, token)  # it is up, as it has answered this one
        (pid,) = set(holders(token.name))
        relay = far.process.pid
        assert os.getsid(pid) == pid != os.getsid(relay)
        assert os.getpgid(pid) == pid
        assert Path(f"/proc/{pid}/comm").read_text() == "bpipe-holder\n"
        assert b"\0bpipe-holder\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert os.readlink(f"/proc/{pid}/cwd") == str(tmp_path)
        theirs = {os.readlink(each) for each in Path(f"/proc/{relay}/fd").iterdir()}
        its = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
        assert not its & theirs - {"/dev/null"}
        assert str(tmp_path) not in its
        far.process.send_signal(signal.SIGHUP)
        far.process.wait(20)
        assert alive(pid)


def test_the_end_of_the_holder_ends_the_relay(folder: Path, token: Token) -> None:
    with Far(folder) as far:
        begin(far, token)
        with Far(folder) as other:
            begin(other, token)
        (pid,) = set(holders(token.name))
        os.kill(pid, signal.SIGKILL)
        assert far.read(1) == b""
        assert far.end() == 0


def test_nothing_is_written(folder: Path, token: Token, tmp_path: Path) -> None:
    """Not even where the disk is full, or may not be written."""
    full = {"HOME": "/proc", "TMPDIR": "/dev/full", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    with Far(folder, cwd="/proc", env={**os.environ, **full}) as far:
        assert begin(far, token)["holder"] == "new"
        with Far(folder) as other:
            assert begin(other, token)["holder"] == "there"
    assert list(tmp_path.iterdir()) == []


def test_a_long_command_fits(folder: Path, token: Token) -> None:
    line = token.starter(["true", *(os.urandom(50).hex() for _ in range(1000))])
    with Far(folder) as far:
        assert far.answer(line, token.words["nonce"])["holder"] == "new"
