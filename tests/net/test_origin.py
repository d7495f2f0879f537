"""From where a connection goes out: an address, an interface, and what is neither."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from bpipe.errors import AddressError, LinkLost
from bpipe.net.origin import Origin, parse_origin
from bpipe.net.resolve import Endpoint
from tests.support.strangers import NOBODY, needs_another_user

FOUR = Endpoint(socket.AF_INET, ("192.0.2.7", 1))
SIX = Endpoint(socket.AF_INET6, ("2001:db8::7", 1, 0, 0))


@pytest.mark.parametrize(
    ("text", "name", "suited"),
    [
        ("127.0.0.2", "127.0.0.2", [FOUR]),
        ("::1", "::1", [SIX]),
        ("[::1]", "::1", [SIX]),
        ("fe80::1%lo", "fe80::1%lo", [SIX]),
        ("lo", "lo", [FOUR, SIX]),
        ("no-such-one", "no-such-one", [FOUR, SIX]),
    ],
)
def test_an_address_in_digits_is_one_and_all_else_is_an_interface(
    text: str, name: str, suited: list[Endpoint]
) -> None:
    origin = parse_origin(text)
    assert str(origin) == name
    assert origin.suited([FOUR, SIX], "there") == suited


@pytest.mark.parametrize("text", ["", "a/b", "a b", " lo", "much-too-long-name", "\0", "[lo]x\t"])
def test_what_is_neither_is_told(text: str) -> None:
    with pytest.raises(AddressError, match="is neither an address nor an interface"):
        parse_origin(text)


def test_a_zone_that_is_not_there_is_told() -> None:
    with pytest.raises(AddressError, match="fe80::1%nowhere: "):
        parse_origin("fe80::1%nowhere")


def test_what_can_be_called_from_here_has_an_address_of_the_same_kind() -> None:
    with pytest.raises(AddressError, match="far:1 has no IPv6 address, as ::1 has"):
        parse_origin("::1").suited([FOUR], "far:1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("192.0.2.77", "192.0.2.77 is not an address of this machine"),
        ("no-such-one", "neither an address nor an interface of this machine, as .*lo"),
        ("fe80::77%lo", "is not an address of this machine"),
    ],
)
def test_what_is_not_there_is_told_at_once_and_later_is_no_link(text: str, why: str) -> None:
    origin = parse_origin(text)
    with pytest.raises(AddressError, match=why):
        origin.check()
    with socket.socket(origin.family or socket.AF_INET) as sock:
        with pytest.raises(LinkLost, match=f"{text}: ") as found:
            origin.use(sock)
    assert found.value.code in ("no-address", "eaddrnotavail", "enodev")


@pytest.mark.parametrize(("text", "own"), [("127.0.0.9", "127.0.0.9"), ("lo", "127.0.0.1")])
def test_a_connection_begins_there(text: str, own: str) -> None:
    origin = parse_origin(text)
    origin.check()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        origin.use(sock)
        sock.connect(server.getsockname())
        assert sock.getsockname()[0] == own
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)[:2] == (
            b"lo" if text == "lo" else b""
        )


def test_one_port_serves_for_several_destinations() -> None:
    """It is chosen when it is known where the connection goes."""
    with socket.create_server(("127.0.0.1", 0)), socket.socket() as sock:
        parse_origin("127.0.0.9").use(sock)
        assert sock.getsockname() == ("127.0.0.9", 0)


def test_an_interface_that_may_not_be_used_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def setsockopt(*_: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr("bpipe.net.origin.Origin._take", lambda *_: setsockopt())
    with pytest.raises(AddressError, match=r"lo: an interface can be used from Linux 5\.7 on"):
        Origin("lo").check()
    with pytest.raises(AddressError, match=r"127\.0\.0\.1: operation not permitted"):
        parse_origin("127.0.0.1").check()


@needs_another_user
def test_who_is_not_root_may_use_an_interface() -> None:
    program = (
        "import os; from bpipe.net.origin import parse_origin;"
        f"os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); parse_origin('lo').check()"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
