"""Whose process is at the other side of a connection."""

from __future__ import annotations

import os
import socket

import pytest

from bpipe.errors import AddressError
from bpipe.net.peer import require_same_user, same_user
from tests.support.strangers import LOOPBACK, has_ipv6, joined, needs_another_user, stranger

AT_LOOPBACK = pytest.mark.parametrize(("family", "host"), LOOPBACK)


def test_a_socketpair_is_our_own() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert same_user(here)


@AT_LOOPBACK
def test_our_own_processes_may_be_at_both_sides(family: socket.AddressFamily, host: str) -> None:
    caller, accepted = joined(family, host)
    with caller, accepted:
        assert same_user(caller)
        assert same_user(accepted)


@AT_LOOPBACK
def test_a_listener_that_has_not_accepted_yet(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as caller:
            assert same_user(caller)


@needs_another_user
@AT_LOOPBACK
def test_a_caller_of_another_user(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        with stranger(family, host, server.getsockname()[1]):
            accepted = server.accept()[0]
            with accepted:
                assert not same_user(accepted)
                require_same_user(accepted, "he", anywhere=True)
                with pytest.raises(AddressError, match=r"another user.*--insecure"):
                    require_same_user(accepted, "he", anywhere=False)


@needs_another_user
@pytest.mark.parametrize("accepts", [False, True])
@AT_LOOPBACK
def test_a_listener_of_another_user(family: socket.AddressFamily, host: str, accepts: bool) -> None:
    with stranger(family, host) as he, socket.create_connection((host, he.port)) as caller:
        if accepts:
            he.accept()
        assert not same_user(caller)


@needs_another_user
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_caller_of_another_user_over_both_families() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        with stranger(socket.AF_INET, "127.0.0.1", server.getsockname()[1]):
            accepted = server.accept()[0]
            with accepted:
                assert not same_user(accepted)


@needs_another_user
def test_a_caller_who_takes_another_address_of_this_machine() -> None:
    """He may bind any of them before he calls loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as here:
        here.bind(("127.0.0.9", 0))
        here.connect(server.getsockname())
        accepted = server.accept()[0]
        with accepted:
            assert same_user(accepted)
            os.fchown(here.fileno(), 65534, -1)  # what the kernel says is whose the socket is
            assert not same_user(accepted)
