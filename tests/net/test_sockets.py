from __future__ import annotations

import errno
import socket
import sys
from typing import cast

import pytest

from bpipe.net.sockets import LOCAL_BUFFER, UNSENT, forget, leaves, prepare, prepare_end


def option(sock: socket.socket, name: str) -> int | None:
    """What is set for a TCP socket; None where the system does not have that."""
    if not hasattr(socket, name):
        return None
    return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


def test_options_of_a_tcp_socket() -> None:
    with socket.socket() as sock:
        prepare(sock, 2.0)
        assert not sock.getblocking()
        assert option(sock, "TCP_NODELAY")
        assert option(sock, "TCP_USER_TIMEOUT") in (None, 6000)
        assert option(sock, "TCP_NOTSENT_LOWAT") in (None, UNSENT)


def test_options_of_a_socket_that_is_an_end_of_a_pipe() -> None:
    with socket.socket() as sock:
        patience = option(sock, "TCP_USER_TIMEOUT")
        prepare_end(sock)
        assert not sock.getblocking()
        assert option(sock, "TCP_NODELAY")
        assert option(sock, "TCP_USER_TIMEOUT") == patience
    near, far = socket.socketpair()
    with near, far:
        prepare_end(near)
        assert not near.getblocking()


@pytest.mark.parametrize(
    ("heartbeat", "milliseconds"), [(1e-9, 1), (60, 180_000), (1e9, 2**31 - 1)]
)
def test_a_heartbeat_of_any_length_is_told_to_the_kernel(
    heartbeat: float, milliseconds: int
) -> None:
    with socket.socket() as sock:
        prepare(sock, heartbeat)
        assert option(sock, "TCP_USER_TIMEOUT") in (None, milliseconds)


def test_a_unix_socket_can_hold_what_a_fast_reader_takes_at_once() -> None:
    near, far = socket.socketpair()
    with near, far:
        before = near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        prepare(near, 2.0)
        assert not near.getblocking()
        if sys.platform == "linux":  # which may allow less
            now = near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert before <= now <= 2 * LOCAL_BUFFER


def test_a_connection_that_is_forgotten_is_reset_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        with caller, server.accept()[0] as accepted:
            forget(caller)
            caller.close()
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)


def test_what_cannot_be_forgotten_is_let_go_anyway() -> None:
    sock = socket.socket()
    sock.close()
    forget(sock)


class Named:
    """A socket of this peer."""

    def __init__(self, peer: object) -> None:
        self._peer = peer

    def getpeername(self) -> object:
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self._peer


@pytest.mark.parametrize(
    ("peer", "there"),
    [
        (("192.0.2.1", 7), True),
        (("2001:db8::1", 7, 0, 0), True),
        ("", True),
        ("/run/bpipe", False),
        (b"\0bpipe", False),
        (("127.0.0.2", 7), False),
        (("::1", 7, 0, 0), False),
        (("::ffff:127.0.0.1", 7, 0, 0), False),
        (None, False),
    ],
)
def test_what_leaves_this_machine(peer: object, there: bool) -> None:
    assert leaves(cast(socket.socket, Named(peer))) is there
