"""Names for how a connection deals with congestion: those that are allowed, and all others."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bpipe.net.congestion import allowed, require_congestion, use_congestion


def of(sock: socket.socket) -> str:
    """How this one does."""
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return data.rstrip(b"\0").decode()


def test_what_is_allowed_is_what_can_be_chosen() -> None:
    assert "reno" in allowed()
    assert {*Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()} <= {
        *allowed()
    }
    for name in allowed():
        require_congestion(name)


@pytest.mark.parametrize("name", ["no such one", "x" * 20, "", "\0", "\udc80"])
def test_another_name_is_told_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not known here: choose one of .*reno"):
        require_congestion(name)


def test_a_name_that_only_root_may_choose_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def setsockopt(name: str) -> None:
        if name != "reno":
            raise PermissionError(1, "no")

    monkeypatch.setattr("bpipe.net.congestion._try", setsockopt)
    with pytest.raises(ValueError, match=r"^'bbr' is not allowed to you here: choose one of reno$"):
        require_congestion("bbr")


def test_where_nothing_tells_what_there_is_a_name_is_refused_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bpipe.net.congestion._AVAILABLE", "/nowhere")
    with pytest.raises(ValueError, match=r"^'none' is not known here$"):
        require_congestion("none")


def test_a_system_that_has_no_choice_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_CONGESTION")
    with pytest.raises(ValueError, match="this system cannot choose"):
        require_congestion("reno")


def test_a_socket_has_it_and_what_comes_in_at_one_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        before = of(sock)
        other = next(each for each in allowed() if each != before)
        use_congestion(other, [server, sock])
        assert of(sock) == other
        with socket.create_connection(server.getsockname()) as calls, server.accept()[0] as came:
            assert (of(calls), of(came)) == (before, other)


def test_a_name_that_is_gone_meanwhile_is_passed_over() -> None:
    with socket.socket() as sock:
        before = of(sock)
        use_congestion("no such one", [sock])
        assert of(sock) == before
