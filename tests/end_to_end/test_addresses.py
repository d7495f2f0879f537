"""The addresses that people type, from one process to another."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.helpers import Start, finish
from tests.support.strangers import abstract_name, needs_abstract

pytestmark = pytest.mark.slow


def has_ipv6() -> bool:
    """Whether there is an IPv6 loopback here."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize(
    ("listen", "connect"),
    [
        (["localhost:0"], ["localhost:{port}"]),
        (["127.0.0.1", "0"], ["{port}"]),
        (["localhost:0", "-4"], ["localhost", "{port}", "--ipv4"]),
        pytest.param(
            [":0", "-6"],
            [":{port}", "-6"],
            marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"),
        ),
        pytest.param(
            ["[::1]:0"],
            ["[::1]", "{port}"],
            marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"),
        ),
        (["0.0.0.0:0", "--insecure"], ["0.0.0.0:{port}", "--insecure"]),
    ],
)
def test_tcp(start: Start, listen: list[str], connect: list[str]) -> None:
    listener = start.bpipe("listen", *listen, stdout=PIPE)
    port = listener.address.rpartition(":")[2]
    caller = start.bpipe("connect", *(part.format(port=port) for part in connect), stdin=PIPE)
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]


@pytest.mark.smoke
def test_a_relative_path_and_a_stale_socket(start: Start, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    relative = os.path.relpath(path)
    listener = start.bpipe("listen", f"unix:{relative}", stdout=PIPE)
    assert listener.address == f"unix:{relative}"
    caller = start.bpipe("connect", relative, stdin=PIPE)
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]
    assert not path.exists()  # it goes with its listener


@needs_abstract
def test_an_abstract_socket(start: Start) -> None:
    address = f"unix:{abstract_name()}/\u00e4 b"
    listener = start.bpipe("listen", address, stdout=PIPE)
    assert listener.address_line == f"bpipe: listening on {address}, for this user only"
    caller = start.bpipe("connect", address, stdin=PIPE)
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]
    for each in (caller, listener):
        assert each.wait_line(f"^bpipe: connected to {re.escape(address)}$")


def test_the_other_family_is_not_tried(start: Start) -> None:
    listener = start.bpipe("listen", "localhost:0", "-4")
    assert listener.address.startswith("127.0.0.1:")
    port = listener.address.rpartition(":")[2]
    caller = start.bpipe("connect", f"localhost:{port}", "-6", "--connect-timeout", "0")
    assert caller.wait() == 3
