"""Addresses: what people type, what it means, and what may be used without a secret."""

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
    Endpoint,
    parse,
    require_callable,
    require_local,
    resolve,
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
        ("unix:@name", None, "abstract .*unix:./@name"),
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


def test_one_family_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(name: str, port: int, family: int, type: int, flags: int) -> list[object]:
        both = [
            (socket.AF_INET6, type, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, type, 6, "", ("192.0.2.1", port)),
        ]
        return [each for each in both if family in (socket.AF_UNSPEC, each[0])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for family in (socket.AF_INET, socket.AF_INET6):
        (endpoint,) = asyncio.run(resolve(parse("far:1", None, family)))
        assert endpoint.family == family
    assert len(asyncio.run(resolve(parse("far:1")))) == 2


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_no_host_is_loopback_whatever_names_it(family: socket.AddressFamily, host: str) -> None:
    (endpoint,) = asyncio.run(resolve(parse(":7000", None, family)))
    assert endpoint.sockaddr[0] == host


def test_every_address_of_a_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 1))
        for number in range(1, 255)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)
    assert len(asyncio.run(resolve(Address("far", 1)))) == len(many)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (socket.EAI_NONAME, "no-such-name"),
        (socket.EAI_AGAIN, "unresolved"),
        (socket.EAI_FAIL, "unresolved"),
        (socket.EAI_SYSTEM, "unresolved"),
    ],
)
def test_a_name_that_does_not_exist_is_not_a_resolver_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "as it is")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(AddressError, match="cannot resolve far: as it is") as caught:
        asyncio.run(resolve(Address("far", 1)))
    assert caught.value.code == code


@pytest.mark.parametrize("address", [Address("127.0.0.1\0x", 1), Address(path="\0x")])
def test_what_a_system_call_would_cut_short_is_not_resolved(address: Address) -> None:
    with pytest.raises(AddressError, match="cannot have this character"):
        asyncio.run(resolve(address))


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
    with pytest.raises(AddressError, match="exists and is not a socket"):
        asyncio.run(connect(str(tmp_path)))


@pytest.mark.parametrize("text", ["host:7000", "[::1]:7000", "unix:/run/s", "127.0.0.1:1"])
def test_an_address_is_printed_as_it_is_typed(text: str) -> None:
    assert str(parse(text)) == text


def test_no_host_is_loopback() -> None:
    assert str(parse(":7000")) == "localhost:7000"
    for passive in (False, True):
        endpoints = asyncio.run(resolve(parse(":7000"), passive=passive))
        assert endpoints
        assert all(endpoint.local for endpoint in endpoints)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, local: bool) -> None:
    address = Address(host, 7000)
    (endpoint,) = asyncio.run(resolve(address))
    assert endpoint.local is local
    if local:
        require_local(address, [endpoint])
    else:
        with pytest.raises(AddressError, match=r"--secret FILE on both ends.*--insecure"):
            require_local(address, [endpoint])


def test_one_endpoint_that_others_can_reach_is_too_many() -> None:
    here = Endpoint(socket.AF_INET, ("127.0.0.1", 1))
    there = Endpoint(socket.AF_INET, ("192.0.2.1", 1))
    with pytest.raises(AddressError, match="not loopback"):
        require_local(Address("example.org", 1), [here, there])


def test_a_path_is_an_endpoint() -> None:
    (endpoint,) = asyncio.run(resolve(parse("unix:/run/s")))
    assert endpoint.family == socket.AF_UNIX
    assert endpoint.sockaddr == "/run/s"
    assert endpoint.local
    assert str(endpoint) == "unix:/run/s"


@pytest.mark.parametrize("host", ["nobody.invalid", "a" * 64 + ".org", "a..b"])
def test_a_name_without_an_address(host: str) -> None:
    with pytest.raises(AddressError, match="cannot resolve"):
        asyncio.run(resolve(Address(host, 1)))
