"""From names to what sockets take."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading

import pytest

from bpipe.errors import AddressError
from bpipe.net.address import Address, parse
from bpipe.net.resolve import Endpoint, require_local, resolve


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


@pytest.mark.parametrize("host", ["127.0.0.1\0x", "\ud800"])
def test_what_a_system_call_would_cut_short_is_not_resolved(host: str) -> None:
    with pytest.raises(AddressError, match="cannot have this character"):
        asyncio.run(resolve(Address(host, 1)))


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


def test_a_path_is_an_endpoint_of_this_machine() -> None:
    endpoint = Endpoint(socket.AF_UNIX, "/run/s")
    assert endpoint.local
    assert not endpoint.mapped
    assert str(endpoint) == "unix:/run/s"
    assert str(Endpoint(socket.AF_UNIX, "\0s")) == "unix:@s"


@pytest.mark.parametrize(
    ("host", "mapped"), [("127.0.0.1", False), ("::1", False), ("::ffff:127.0.0.1", True)]
)
def test_an_ipv4_address_in_the_clothes_of_an_ipv6_one(host: str, mapped: bool) -> None:
    (endpoint,) = asyncio.run(resolve(Address(host, 7000)))
    assert endpoint.mapped is mapped


def test_an_endpoint_is_printed_as_an_address() -> None:
    assert str(Endpoint(socket.AF_INET, ("192.0.2.1", 7000))) == "192.0.2.1:7000"
    assert str(Endpoint(socket.AF_INET6, ("2001:db8::1", 7000, 0, 0))) == "[2001:db8::1]:7000"


def test_who_cannot_start_a_thread_has_a_passing_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="can't start new thread") as caught:
        asyncio.run(resolve(Address("localhost", 1)))
    assert caught.value.errno == errno.EAGAIN
    for numeric in ("127.0.0.1", "::1", "fe80::1%1"):
        assert asyncio.run(resolve(Address(numeric, 1)))  # it needs none


def test_an_answer_that_nobody_waits_for_any_more_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released, answered = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        released.wait(10)
        answered.set()
        return []

    async def check() -> None:
        search = asyncio.ensure_future(resolve(Address("slow", 1)))
        await asyncio.sleep(0)
        search.cancel()
        await asyncio.wait([search])
        released.set()
        await asyncio.to_thread(answered.wait, 10)
        await asyncio.sleep(0.01)  # the loop may be told, or not any more

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(check())


@pytest.mark.parametrize("host", ["nobody.invalid", "a" * 64 + ".org", "a..b"])
def test_a_name_without_an_address(host: str) -> None:
    with pytest.raises(AddressError, match="cannot resolve"):
        asyncio.run(resolve(Address(host, 1)))
