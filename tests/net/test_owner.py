"""What the kernel says of the other side of a TCP connection."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

import pytest

from bpipe.net.owner import surely_ours, user_at_other_side
from tests.support.strangers import LOOPBACK, joined, needs_another_user, stranger

AT_LOOPBACK = pytest.mark.parametrize(("family", "host"), LOOPBACK)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="nothing tells here")


@linux_only
@AT_LOOPBACK
def test_both_sides_of_a_connection_are_known(family: socket.AddressFamily, host: str) -> None:
    caller, accepted = joined(family, host)
    with caller, accepted:
        assert user_at_other_side(caller) == user_at_other_side(accepted) == os.geteuid()


@needs_another_user
def test_so_is_another_user() -> None:
    with stranger(socket.AF_INET, "127.0.0.1") as he:
        with socket.create_connection(("127.0.0.1", he.port)) as caller:
            assert user_at_other_side(caller) not in (None, os.geteuid())


@linux_only
@pytest.mark.parametrize("reset", [False, True])
@AT_LOOPBACK
def test_who_has_gone_is_nobody(family: socket.AddressFamily, host: str, reset: bool) -> None:
    """The kernel says of such a socket that it is root's."""
    caller, accepted = joined(family, host)
    with accepted:
        if reset:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        with pytest.raises(OSError, match=r"not connected|reset"):
            user_at_other_side(accepted)


@linux_only
@pytest.mark.parametrize(
    ("code", "silent"), [(errno.EMFILE, False), (errno.EPROTONOSUPPORT, True), (errno.EPERM, True)]
)
def test_the_kernel_may_say_nothing_but_not_for_want_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, code: int, silent: bool
) -> None:
    caller, accepted = joined(socket.AF_INET, "127.0.0.1")

    def refuse(*arguments: int) -> socket.socket:
        raise OSError(code, os.strerror(code))

    with caller, accepted:
        monkeypatch.setattr("bpipe.net.owner.socket.socket", refuse)
        if silent:
            assert user_at_other_side(accepted) is None
        else:
            with pytest.raises(OSError, match="Too many"):
                user_at_other_side(accepted)


@linux_only
def test_what_is_surely_ours() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert surely_ours(near)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as caller:
            assert surely_ours(caller)
        assert not surely_ours(server)  # whose other side is nobody


@linux_only
def test_what_another_user_has_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as caller:
            monkeypatch.setattr(os, "geteuid", lambda: user + 1)
            assert not surely_ours(caller)
