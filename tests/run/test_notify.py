"""What systemd is told, and that nobody else is disturbed by it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.run.notify import notify
from tests.support.strangers import abstract_name, needs_abstract


@contextlib.contextmanager
def hearing(where: str) -> Iterator[socket.socket]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{where[1:]}" if where.startswith("@") else where)
        manager.setblocking(False)
        yield manager


@pytest.mark.parametrize("abstract", [False, pytest.param(True, marks=needs_abstract)])
def test_a_state_and_what_it_is(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = abstract_name() if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    with hearing(where) as manager:
        notify("READY=1", "listening on [::1]:7000")
        notify("STOPPING=1")
        assert manager.recv(1000) == b"READY=1\nSTATUS=listening on [::1]:7000"
        assert manager.recv(1000) == b"STOPPING=1"


def test_a_status_is_one_line_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with hearing(str(tmp_path / "notify")) as manager:
        notify("READY=1", "on unix:/\u00e4\nMAINPID=1\x1b\udcff")
        assert manager.recv(1000) == "READY=1\nSTATUS=on unix:/\u00e4?MAINPID=1??".encode()


@pytest.mark.parametrize("where", ["", "notify", "vsock:2:1", "/", "/nowhere/notify", "/" * 200])
def test_who_cannot_be_told_is_not(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/dev/fd")
    monkeypatch.setenv("NOTIFY_SOCKET", where)
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
    assert os.listdir("/dev/fd") == before


def test_who_does_not_listen_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with hearing(str(tmp_path / "notify")) as manager:
        for number in range(1000):  # more than the system keeps for it
            notify(f"READY={number}")
        assert manager.recv(1000) == b"READY=0"
