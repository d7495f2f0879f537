"""Connections that come in: tests/net/test_listener.py and test_bind.py say more of them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from bpipe.errors import LinkLost
from bpipe.net.acceptor import Acceptor
from bpipe.net.address import Address, parse
from bpipe.net.bind import bind
from tests.support.listening import can_connect, end_of, port_of, until


class House:
    """A host that notes who comes."""

    def __init__(self, *, unwelcome: bool = False) -> None:
        self.guests: list[tuple[socket.socket, str]] = []
        self.unwelcome = unwelcome

    def welcome(self, sock: socket.socket, peer: str) -> None:
        if self.unwelcome:
            raise ConnectionResetError
        self.guests.append((sock, peer))

    def turn_away(self) -> None:
        raise AssertionError

    def make_room(self, why: str) -> bool:
        raise AssertionError

    def hold_up(self, cause: LinkLost) -> None:
        raise AssertionError


def test_who_comes_is_handed_on_with_its_name() -> None:
    async def check() -> None:
        bound, house = await bind(parse("127.0.0.1:0")), House()
        acceptor = Acceptor(bound, house)
        acceptor.open()
        acceptor.open()
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(bound.name))
        await until(lambda: bool(house.guests))
        guest, name = house.guests[0]
        assert name == "{}:{}".format(*writer.get_extra_info("sockname"))
        acceptor.close()
        acceptor.close()
        assert not can_connect(socket.AF_INET, "127.0.0.1", port_of(bound.name))
        guest.close()
        writer.close()

    asyncio.run(check())


def test_who_has_gone_before_it_was_welcomed_is_forgotten() -> None:
    async def check() -> None:
        bound = await bind(parse("127.0.0.1:0"))
        acceptor = Acceptor(bound, House(unwelcome=True))
        acceptor.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(bound.name))
        assert await end_of(reader) == b""
        writer.close()
        acceptor.close()

    asyncio.run(check())


def test_a_path_is_let_go_even_if_nobody_was_ever_accepted_there(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "socket"
        acceptor = Acceptor(await bind(Address(path=str(path))), House())
        assert path.exists()
        acceptor.close()
        assert not path.exists()

    asyncio.run(check())
