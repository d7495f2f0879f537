"""Addresses: what people type, and what it means."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from bpipe import connect
from bpipe.errors import AddressError
from bpipe.net.address import (
    DEFAULT_PORT,
    Address,
    parse,
    require_callable,
)


@pytest.mark.parametrize(
    ("text", "port", "address"),
    [
        ("example.org:7000", None, Address("example.org", 7000)),
        ("example.org", "7000", Address("example.org", 7000)),
        ("example.org", None, Address("example.org", DEFAULT_PORT)),
        (":7000", None, Address("", 7000)),
        ("7000", None, Address("", 7000)),
        ("0", None, Address("", 0)),
        ("127.0.0.1", None, Address("127.0.0.1", DEFAULT_PORT)),
        ("127.0.0.1:0", None, Address("127.0.0.1", 0)),
        ("[::1]:7000", None, Address("::1", 7000)),
        ("[::1]", None, Address("::1", DEFAULT_PORT)),
        ("[::1]", "7000", Address("::1", 7000)),
        ("[fe80::1%eth0]:7000", None, Address("fe80::1%eth0", 7000)),
        ("unix:/run/s", None, Address(path="/run/s")),
        ("unix:s", None, Address(path="s")),
        ("/run/s", None, Address(path="/run/s")),
        ("./s", None, Address(path="./s")),
        ("a/b:7000", None, Address(path="a/b:7000")),
        ("./tcp://a", None, Address(path="./tcp://a")),
        ("unix:///run/s", None, Address(path="///run/s")),
        ("./@name", None, Address(path="./@name")),
        ("/run/\udcff", None, Address(path="/run/\udcff")),
        ("unix:./@name", None, Address(path="./@name")),
        ("unix:@name", None, Address(path="\0name")),
        ("unix:@a/b c:1\n\udcff", None, Address(path="\0a/b c:1\n\udcff")),
        ("unix:@" + "x" * 107, None, Address(path="\0" + "x" * 107)),
        ("*:7000", None, Address("*", 7000)),
        ("b\xfccher.example", None, Address("b\xfccher.example", DEFAULT_PORT)),
        ("/" + "x" * 106, None, Address(path="/" + "x" * 106)),
    ],
)
def test_what_an_address_means(text: str, port: str | None, address: Address) -> None:
    assert parse(text, port) == address


@pytest.mark.parametrize(
    ("text", "port", "message"),
    [
        ("", None, "an address is HOST:PORT"),
        ("host:", None, "a port is missing"),
        (":", None, "a port is missing"),
        ("host:nosuch", None, "a port is a number .* or a service's name: host:nosuch$"),
        ("host", "nosuch", "a port is a number .* or a service's name: host nosuch$"),
        ("host:ssh\xe9", None, "a port is a number"),
        ("tcp://far:7000", None, "an address is HOST:PORT.* not a URL"),
        ("HTTP://far/index", None, "not a URL"),
        ("ssh+tcp://far", "7000", "not a URL"),
        ("tcp:host:80", None, "an address is HOST:PORT.* not tcp:host:80"),
        ("vsock:2:1", None, "an address is HOST:PORT"),
        ("me@far:7000", None, "an address is HOST:PORT"),
        ("me@far", None, "an address is HOST:PORT"),
        ("far,7000", None, "an address is HOST:PORT"),
        ("far 7000", None, "an address is HOST:PORT"),
        ("**:7000", None, "an address is HOST:PORT"),
        ("@a/b", None, "an abstract Unix socket is unix:@a/b, and a file ./@a/b"),
        ("@name", None, "an address is HOST:PORT"),
        ("unix:@", None, "needs a name"),
        ("unix:@" + "x" * 108, None, "the name of a Unix socket is at most 107 bytes"),
        ("unix:@a\0b", None, "cannot have this character"),
        ("unix:@s", "1", "has no port"),
        ("unix:\0name", None, "cannot have this character"),
        ("/run/s\0x", None, "cannot have this character"),
        ("127.0.0.1\0x", None, "cannot have this character"),
        ("\ud800:1", None, "cannot have this character"),
        ("unix:\ud800", None, "cannot have this character"),
        ("far\udcff:1", None, "an address is HOST:PORT"),
        ("host:65536", None, "a port is a number"),
        ("host:-1", None, "a port is a number"),
        ("host:\uff17", None, "a port is a number"),
        ("host:1_0", None, "a port is a number"),
        ("65536", None, "a port is a number"),
        ("host", "", "a port is a number"),
        ("host:1", "2", "two ports"),
        ("[::1]:1", "2", "two ports"),
        ("::1", None, r"\[::1\]:27473"),
        ("::1:7000", None, r"\[::1\]:7000"),
        ("::1", "7000", r"\[::1\]:7000"),
        ("[::1", None, r"\[ADDRESS\]:PORT"),
        ("[::1]7000", None, r"\[ADDRESS\]:PORT"),
        ("[host]:1", None, "not an IPv6 address"),
        ("unix:", None, "needs a path"),
        ("unix:s", "1", "has no port"),
        ("/" + "x" * 107, None, "at most 107 bytes"),
        ("/" + "ä" * 54, None, "at most 107 bytes"),
    ],
)
def test_what_is_no_address(text: str, port: str | None, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        parse(text, port)


@pytest.mark.parametrize(
    ("text", "port"), [("far:http", None), ("far", "http"), (":http", None), ("[::1]:http", None)]
)
def test_the_port_of_a_service(
    text: str, port: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getservbyname(name: str, protocol: str) -> int:
        asked.append((name, protocol))
        return 80

    monkeypatch.setattr(socket, "getservbyname", getservbyname)
    assert parse(text, port).port == 80
    assert asked == [("http", "tcp")]


def test_the_home_directory_behind_unix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse("unix:~/s").path == "/home/me/s"
    assert parse("unix:./~/s").path == "./~/s"


@pytest.mark.parametrize(
    ("text", "family", "message"),
    [
        ("127.0.0.1:1", socket.AF_INET6, "127.0.0.1 is no IPv6 address"),
        ("[::1]:1", socket.AF_INET, "::1 is no IPv4 address"),
        ("unix:/run/s", socket.AF_INET, "a Unix socket has no IPv4 address"),
    ],
)
def test_an_address_of_the_other_family(
    text: str, family: socket.AddressFamily, message: str
) -> None:
    with pytest.raises(AddressError, match=message):
        parse(text, None, family)


def test_what_nobody_can_connect_to(tmp_path: Path) -> None:
    for address in (Address("far", 0), Address("*", 7000)):
        with pytest.raises(AddressError, match="is for a listener"):
            require_callable(address)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(AddressError, match="exists and is not a socket"):
            require_callable(Address(path=str(path)))
    require_callable(Address(path=str(tmp_path / "later")))  # a listener may make it
    require_callable(Address("", 7000))
    require_callable(Address(path="\0name"))
    with pytest.raises(AddressError, match="exists and is not a socket"):
        asyncio.run(connect(str(tmp_path)))


@pytest.mark.parametrize(
    "text",
    [
        "host:7000",
        "[::1]:7000",
        "unix:/run/s",
        "127.0.0.1:1",
        "unix:@name",
        "unix:@@name",
        "unix:@a b\udcff",
        "unix:./@name",
    ],
)
def test_an_address_is_printed_as_it_is_typed(text: str) -> None:
    assert str(parse(text)) == text


def test_a_file_with_an_at_is_not_printed_as_an_abstract_socket() -> None:
    assert str(Address(path="@name")) == "unix:./@name"


@pytest.mark.parametrize(("text", "abstract"), [("unix:@s", True), ("./@s", False), ("s", False)])
def test_what_is_no_file(text: str, abstract: bool) -> None:
    assert parse(text).abstract is abstract


def test_only_linux_has_abstract_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(AddressError, match=r"only Linux .*unix:\./@name"):
        parse("unix:@name")
