"""Where a listener listens, with a secret and without one, and what it says of that."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.end_to_end.helpers import Start

pytestmark = pytest.mark.slow


def reaches(port: str, host: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize(
    ("address", "sealed", "everywhere"),
    [(":0", True, True), ("*:0", True, True), ("0", True, True), (":0", False, False)],
)
def test_no_host_is_every_address_with_a_secret_and_loopback_without(
    start: Start, key: Path, address: str, sealed: bool, everywhere: bool
) -> None:
    listener = start.bpipe("listen", address, *(("--secret", str(key)) if sealed else ()))
    host, _, port = listener.address.rpartition(":")
    assert reaches(port, "127.0.0.1")
    assert reaches(port, "127.0.0.2") is everywhere
    assert host == "*" if everywhere else host in ("localhost", "127.0.0.1")
    assert ("this machine" in listener.address_line) is not everywhere
    if everywhere:
        listener.wait_line("on the other machine: ")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "*:0"])
def test_a_listener_that_is_open_to_a_network_says_so(start: Start, address: str) -> None:
    listener = start.bpipe("listen", address, "--insecure")
    line = listener.wait_line("without a secret")
    assert line == (
        f"bpipe: without a secret: whoever reaches {listener.address} gets in; --secret FILE helps"
    )
