"""Addresses: what people type, what it means, and what may be used without a secret."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bpipe.errors import AddressError
from bpipe.net.address import (
    DEFAULT_PORT,
    Address,
    Endpoint,
    parse,
    require_local,
    resolve,
    same_user,
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
        ("host:http", None, "a port is a number"),
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


def test_a_peer_of_the_same_user() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert same_user(here)
