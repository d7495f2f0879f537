"""What is taken for a socket that was passed, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bpipe.errors import AddressError
from bpipe.net import activation
from bpipe.net.activation import passed
from bpipe.net.address import Address
from tests.support.strangers import LOOPBACK, abstract_name, needs_abstract

OURS = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
NOT_ONE = "is not a socket of TCP or Unix that listens"


def taken(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Address | None:
    """What becomes of this one when it is passed; in this process the third is another."""
    monkeypatch.setattr(activation, "FIRST", sock.fileno())
    return passed(OURS)


@pytest.mark.parametrize(("family", "host"), LOOPBACK)
def test_one_of_tcp(
    family: socket.AddressFamily, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((host, 0), family=family) as sock:
        address = taken(sock, monkeypatch)
        port = sock.getsockname()[1]  # it is still open
        assert address == Address(host, port, None, family, sock.fileno())


@pytest.mark.parametrize("name", ["s", "@s", "\udcff", pytest.param("\0", marks=needs_abstract)])
def test_one_of_unix(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    path = name + abstract_name() if name == "\0" else name
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        assert taken(sock, monkeypatch) == Address(path=path, descriptor=sock.fileno())


@needs_abstract
def test_a_name_that_could_not_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{abstract_name()}\0")
        sock.listen()
        with pytest.raises(AddressError, match="cannot have this character"):
            taken(sock, monkeypatch)


def test_what_does_not_listen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(sock: socket.socket) -> None:
        with sock, pytest.raises(AddressError, match=NOT_ONE):
            taken(sock, monkeypatch)

    refused(socket.socket())
    refused(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    here, there = socket.socketpair()
    with there:
        refused(here)
    packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets.bind(str(tmp_path / "packets"))
    packets.listen()
    refused(packets)
    with open(os.devnull) as file:
        monkeypatch.setattr(activation, "FIRST", file.fileno())
        with pytest.raises(AddressError, match=NOT_ONE):
            passed(OURS)
    with pytest.raises(AddressError, match=NOT_ONE):
        passed(OURS)  # it is closed


@pytest.mark.parametrize("count", ["0", "2", "", "-1", "one"])
def test_any_other_number_of_sockets(count: str) -> None:
    with pytest.raises(AddressError, match=f"LISTEN_FDS is {count}: .* one socket, and only one"):
        passed({**OURS, "LISTEN_FDS": count})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "2"},
        {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getppid())},
        {"LISTEN_FDS": "2", "LISTEN_PID": "mine"},
    ],
)
def test_what_is_meant_for_nobody_or_another_process(environ: dict[str, str]) -> None:
    assert passed(environ) is None
