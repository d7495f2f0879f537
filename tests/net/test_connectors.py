"""How one connection is made, to real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bpipe.errors import AddressError, LinkLost, NotConnected
from bpipe.net import connectors
from bpipe.net.address import Address, parse
from bpipe.net.connectors import LOOK_UP, Connection, Tcp, Unix, connector
from bpipe.net.origin import parse_origin
from bpipe.net.resolve import Endpoint
from tests.support.strangers import (
    LOOPBACK,
    abstract_name,
    needs_abstract,
    needs_another_user,
    stranger,
)

Resolve = Callable[[Address], Awaitable[list[Endpoint]]]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(limited())


def resolve_with(monkeypatch: pytest.MonkeyPatch, resolve: Resolve) -> None:
    """Names are looked up like this."""
    monkeypatch.setattr(connectors, "resolve", resolve)


def at_many(port: int, count: int = 30) -> list[Endpoint]:
    """So many addresses of this machine."""
    return [Endpoint(socket.AF_INET, (f"127.0.0.{host}", port)) for host in range(1, count + 1)]


def observed() -> list[Endpoint]:
    """The list will have where this loop connects to from now on."""
    loop, tried = asyncio.get_running_loop(), list[Endpoint]()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        tried.append(Endpoint(socket.AddressFamily(sock.family), address))
        await connect(sock, address)

    loop.sock_connect = sock_connect  # type: ignore[method-assign, assignment]
    return tried


# --- which one ---


@pytest.mark.parametrize("text", ["localhost:7000", ":7000", "[::1]:7000", "127.0.0.1:7000"])
def test_a_host_and_a_port_are_called_over_tcp(text: str) -> None:
    chosen = connector(parse(text))
    assert isinstance(chosen, Tcp)
    assert chosen.name == str(parse(text))


def test_a_path_is_called_as_a_unix_socket() -> None:
    chosen = connector(parse("/run/s"), anywhere=True)
    assert isinstance(chosen, Unix)
    assert chosen.name == "unix:/run/s"


# --- TCP ---


@pytest.mark.parametrize("text", ["192.0.2.1:1", "0.0.0.0:1", "[::]:1"])
def test_an_address_that_others_can_reach_is_not_called(text: str) -> None:
    async def check() -> None:
        with pytest.raises(AddressError, match="--insecure"):
            await Tcp(parse(text)).check(10)
        with pytest.raises(AddressError, match="--insecure"):
            await Tcp(parse(text)).connect(0)
        await Tcp(parse(text), anywhere=True).check(10)

    run(check)


def test_a_name_that_has_no_address_may_have_one_later() -> None:
    async def check() -> None:
        tcp = Tcp(parse("nobody.invalid:1"))
        await tcp.check(10)
        with pytest.raises(NotConnected, match=r"cannot resolve nobody\.invalid"):
            await tcp.connect(0)

    run(check)


def test_a_look_up_that_takes_long_is_not_waited_for_by_who_only_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = asyncio.Event()
    looked_up: list[Address] = []

    async def resolve(address: Address) -> list[Endpoint]:
        looked_up.append(address)
        await released.wait()
        return [Endpoint(socket.AF_INET, ("192.0.2.1", 1))]

    async def check() -> None:
        tcp = Tcp(Address("slow", 1))
        await tcp.check(0.01)
        released.set()
        with pytest.raises(AddressError, match="--insecure"):
            await tcp.connect(0)
        assert looked_up == [Address("slow", 1)]  # once

    resolve_with(monkeypatch, resolve)
    run(check)


def test_a_connection_tells_who_is_there_and_does_not_block() -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            connection = await Tcp(Address("127.0.0.1", port)).connect(0)
            with connection.sock as sock, server.accept()[0] as accepted:
                assert not sock.getblocking()
                assert sock.getsockname() == accepted.getpeername()
                assert connection.peer == f"127.0.0.1:{port}"

    run(check)


def test_nobody_who_listens_is_an_error_of_the_system() -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await Tcp(Address("127.0.0.1", port)).connect(0)

    run(check)


def test_every_address_of_a_name_is_tried_and_the_good_one_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.30", 0)) as server:
            endpoints = at_many(server.getsockname()[1])

            async def resolve(address: Address) -> list[Endpoint]:
                return endpoints

            resolve_with(monkeypatch, resolve)
            tcp, tried = Tcp(Address("many", 1)), observed()
            for expected in (endpoints, endpoints[-1:]):
                connection = await tcp.connect(0)
                connection.sock.close()
                tcp.prefer(connection)
                assert tried == expected
                tried.clear()

    run(check)


def test_each_address_of_a_name_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is silent takes the whole time of an attempt: the next begins with another."""

    async def check() -> None:
        with contextlib.ExitStack() as stack:
            port = 0
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                server = stack.enter_context(socket.create_server((host, port)))
                port = server.getsockname()[1]
            endpoints = at_many(port, 3)

            async def resolve(address: Address) -> list[Endpoint]:
                return endpoints

            resolve_with(monkeypatch, resolve)
            tcp = Tcp(Address("three", 1))
            for turn in range(7):
                connection = await tcp.connect(turn)
                connection.sock.close()
                assert connection.endpoint == endpoints[turn % 3]

    run(check)


def test_the_last_address_of_a_name_tells_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(address: Address) -> list[Endpoint]:
        return at_many(1, 3)

    async def check() -> None:
        errors = [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED]

        async def sock_connect(sock: socket.socket, address: object) -> None:
            code = errors.pop(0)
            raise OSError(code, "not there")

        asyncio.get_running_loop().sock_connect = sock_connect  # type: ignore[method-assign]
        with pytest.raises(ConnectionRefusedError):
            await Tcp(Address("three", 1)).connect(0)
        assert errors == []

    resolve_with(monkeypatch, resolve)
    run(check)


@pytest.mark.parametrize("how", ["gone", "slow", "moved"])
def test_the_address_that_was_good_is_tried_without_the_name(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.8", 0)) as good:
            port = good.getsockname()[1]
            endpoints = at_many(port, 8)

            async def resolve(address: Address) -> list[Endpoint]:
                if how == "gone":
                    raise AddressError("cannot resolve many: no such name")
                if how == "slow":
                    await asyncio.sleep(60)
                return endpoints[:3]

            resolve_with(monkeypatch, resolve)
            tcp = Tcp(Address("many", 1))
            with socket.socket() as sock:
                tcp.prefer(Connection(sock, "seven", endpoints[7]))
            tried, began = observed(), loop.time()
            if how == "moved":
                with pytest.raises(ConnectionRefusedError):
                    await tcp.connect(0)
                assert tried == endpoints[:3]
            else:
                (await tcp.connect(0)).sock.close()
                assert tried == endpoints[7:]
                assert how == "gone" or loop.time() - began >= LOOK_UP - 0.01
            await tcp.close()

    run(check)


def test_a_look_up_has_its_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.8", 0)) as good:
            [endpoint] = at_many(good.getsockname()[1], 8)[7:]
            tcp, now = Tcp(Address("many", 1)), 100.0
            with socket.socket() as sock:
                tcp.prefer(Connection(sock, "seven", endpoint))
            monkeypatch.setattr("bpipe.net.connectors.LOOK_UP", 3600.0)
            monkeypatch.setattr("bpipe.net.connectors.clock", lambda: now)
            await tcp.check(0.01)
            now += 3600.0
            for turn in range(2):
                (await tcp.connect(turn)).sock.close()
            await tcp.close()

    async def resolve(address: Address) -> list[Endpoint]:
        await asyncio.sleep(60)
        raise AssertionError

    resolve_with(monkeypatch, resolve)
    run(check)


def test_a_look_up_is_forgotten_with_the_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[bool] = []

    async def resolve(address: Address) -> list[Endpoint]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError

    async def check() -> None:
        tcp = Tcp(Address("slow", 1))
        await tcp.close()  # before there was any
        await tcp.check(0.01)
        await tcp.close()
        await asyncio.sleep(0)
        assert cancelled == [True]

    resolve_with(monkeypatch, resolve)
    run(check)


def test_a_connection_to_itself_leaves_the_port_to_the_listener() -> None:
    async def check() -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]

        class Own(socket.socket):
            """One that calls from the port that it calls."""

            def __init__(self, *args: int) -> None:
                super().__init__(*args)
                self.bind(("127.0.0.1", port))

        tcp = Tcp(Address("127.0.0.1", port))
        await tcp.check(5)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("socket.socket", Own)
            with pytest.raises(ConnectionRefusedError):
                await tcp.connect(0)
        with socket.socket() as other:  # without SO_REUSEADDR
            other.bind(("127.0.0.1", port))

    run(check)


@needs_another_user
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
@pytest.mark.parametrize("anywhere", [False, True], ids=["", "insecure"])
def test_a_process_of_another_user_is_not_called_unless_all_are_trusted(
    family: socket.AddressFamily, host: str, anywhere: bool
) -> None:
    with stranger(family, host) as he:

        async def check() -> None:
            tcp = Tcp(Address(host, he.port), anywhere=anywhere)
            he.accept()
            if anywhere:
                (await tcp.connect(0)).sock.close()
            else:
                with pytest.raises(AddressError, match="belongs to another user"):
                    await tcp.connect(0)

        run(check)


# --- from where, and how ---


def test_a_connection_begins_where_it_is_to_and_deals_with_congestion_as_it_is_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An endpoint of another kind is left out."""

    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            async def resolve(address: Address) -> list[Endpoint]:
                return [Endpoint(socket.AF_INET6, ("::1", port, 0, 0)), *at_many(port, 1)]

            resolve_with(monkeypatch, resolve)
            origin = parse_origin("127.0.0.9")
            calls = Tcp(Address("both", port), origin=origin, congestion="reno")
            await calls.check(1)
            assert calls.via == "127.0.0.9"
            tried = observed()
            with (await calls.connect(1)).sock as sock:
                assert sock.getsockname()[0] == "127.0.0.9"
                name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                assert name.rstrip(b"\0") == b"reno"
            assert tried == at_many(port, 1)

    run(check)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("192.0.2.77", "192.0.2.77 is not an address of this machine"),
        ("no-such-one", "no-such-one is neither an address nor an interface"),
        ("::1", "127.0.0.1:1 has no IPv6 address, as ::1 has"),
    ],
)
def test_nowhere_to_begin_is_told_by_the_check_and_later_fails_an_attempt(
    text: str, why: str
) -> None:
    async def check() -> None:
        calls = Tcp(parse("127.0.0.1:1"), origin=parse_origin(text))
        with pytest.raises(AddressError, match=why):
            await calls.check(1)
        with pytest.raises((LinkLost, AddressError), match=text):
            await calls.connect(0)

    run(check)


# --- Unix sockets ---


def test_a_unix_socket_is_connected_to(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def check() -> None:
        unix = Unix(path)
        await unix.check(0)
        with pytest.raises(FileNotFoundError):
            await unix.connect(0)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            with pytest.raises(ConnectionRefusedError):
                await unix.connect(0)
            server.listen()
            connection = await unix.connect(1)
            with connection.sock as sock, server.accept()[0]:
                assert sock.getpeername() == path
                assert not sock.getblocking()
            unix.prefer(connection)
        assert (connection.peer, unix.name) == (f"unix:{path}", f"unix:{path}")
        await unix.close()

    run(check)


def test_a_path_that_a_system_call_would_cut_short_is_refused() -> None:
    with pytest.raises(AddressError, match="cannot have this character"):
        Unix("/run/\0x")
    with pytest.raises(AddressError, match="cannot have this character"):
        Unix("\0x\0")


@needs_abstract
def test_an_abstract_socket_is_connected_to() -> None:
    name = abstract_name()

    async def check() -> None:
        unix = Unix(f"\0{name[1:]}")
        with pytest.raises(ConnectionRefusedError):
            await unix.connect(0)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"\0{name[1:]}")
            server.listen()
            connection = await unix.connect(0)
            connection.sock.close()
        assert (connection.peer, unix.name) == (f"unix:{name}", f"unix:{name}")

    run(check)


@needs_another_user
@pytest.mark.parametrize("anywhere", [False, True], ids=["", "insecure"])
def test_an_abstract_socket_that_another_user_has_taken_is_not_called(anywhere: bool) -> None:
    name = abstract_name()

    async def check() -> None:
        with stranger(socket.AF_UNIX, name):
            unix = connector(parse(f"unix:{name}"), anywhere=anywhere)
            with pytest.raises(AddressError, match=f"unix:{name}: .* belongs to another user"):
                await unix.connect(0)

    run(check)
