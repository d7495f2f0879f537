"""How a service is called, whoever's it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from bpipe.errors import AddressError
from bpipe.net import dial as dialling
from bpipe.net.address import Address
from bpipe.net.connectors import Unix
from bpipe.net.dial import dial
from bpipe.net.resolve import Endpoint


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(limited())


def resolve_to(monkeypatch: pytest.MonkeyPatch, hosts: Iterable[str], port: int) -> None:
    """Whatever the name is, these are its addresses."""

    async def resolve(address: Address) -> list[Endpoint]:
        return [Endpoint(socket.AF_INET, (host, port)) for host in hosts]

    monkeypatch.setattr(dialling, "resolve", resolve)


def silence(hosts: Iterable[str]) -> None:
    """In this loop, nobody answers at these addresses."""
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] in hosts:
            await asyncio.Event().wait()
        await connect(sock, address)

    loop.sock_connect = sock_connect  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("silent", [[], ["127.0.0.1", "127.0.0.2"]])
def test_addresses_that_refuse_or_are_silent_do_not_hide_the_one_that_answers(
    monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.3", 0)) as service:
            port = service.getsockname()[1]
            resolve_to(monkeypatch, ["127.0.0.1", "127.0.0.2", "127.0.0.3"], port)
            silence(silent)
            with await dial(Address("three", port), 0.6) as sock:
                assert sock.getpeername() == ("127.0.0.3", port)
                assert not sock.getblocking()

    run(check)


def test_the_last_address_tells_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"], 1)
        silence(["127.0.0.2"])
        with pytest.raises(ConnectionRefusedError):
            await dial(Address("two", 1), 0.2)

    run(check)


def test_one_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        resolve_to(monkeypatch, ["127.0.0.1"], 1)
        silence(["127.0.0.1"])
        with pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
            await dial(Address("one", 1), 0.1)

    run(check)


def test_a_name_without_an_address_is_an_error() -> None:
    async def check() -> None:
        with pytest.raises(AddressError, match="cannot resolve nowhere"):
            await dial(Address("nowhere.invalid", 1), 10)

    run(check)


def test_a_unix_socket_whose_queue_is_full_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "service")

    async def check() -> None:
        with socket.socket(socket.AF_UNIX) as service:
            service.bind(path)
            service.listen(0)
            with await dial(Address(path=path), 1):
                with pytest.raises(BlockingIOError):
                    await Unix(path).connect(0)
                with pytest.raises(TimeoutError):
                    await dial(Address(path=path), 0.05)
                waiting = asyncio.create_task(dial(Address(path=path), 10))
                await asyncio.sleep(0)
                service.accept()[0].close()
                with await waiting as sock:
                    assert sock.getpeername() == path

    run(check)
