"""Which sockets are made, which are replaced, and which are never touched."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bpipe.errors import AddressError
from bpipe.net.address import Address, parse
from bpipe.net.bind import bind
from bpipe.net.bound import Bound
from tests.support.listening import can_connect, needs_ipv6, port_of
from tests.support.strangers import (
    NOBODY,
    abstract_name,
    has_ipv6,
    needs_abstract,
    needs_another_user,
)


@contextlib.asynccontextmanager
async def binding(text: str, *, anywhere: bool = False) -> AsyncIterator[Bound]:
    """Sockets that listen there, and are closed in the end."""
    bound = await bind(parse(text), anywhere=anywhere)
    try:
        yield bound
    finally:
        bound.close()


# --- TCP ---


def test_port_0_is_one_that_is_free_and_is_named() -> None:
    async def check() -> None:
        async with binding("127.0.0.1:0") as one, binding("127.0.0.1:0") as two:
            assert 0 < port_of(one.name) != port_of(two.name) > 0
            assert one.name == f"127.0.0.1:{port_of(one.name)}"
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))
        assert not can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))

    asyncio.run(check())


@needs_ipv6
def test_brackets() -> None:
    async def check() -> None:
        async with binding("[::1]:0") as one:
            assert one.name == f"[::1]:{port_of(one.name)}"
            assert can_connect(socket.AF_INET6, "::1", port_of(one.name))
            assert not can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))

    asyncio.run(check())


def test_a_name_is_bound_at_each_of_its_addresses_with_the_same_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = ["::1", "127.0.0.1"] if has_ipv6() else ["127.0.0.2", "127.0.0.1"]
    families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host in hosts]
    found = [
        (family, socket.SOCK_STREAM, 6, "", (host, 0, 0, 0) if ":" in host else (host, 0))
        for family, host in zip(families, hosts, strict=True)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    async def check() -> None:
        async with binding("localhost:0") as one:
            assert one.name == f"localhost:{port_of(one.name)}"
            for family, host in zip(families, hosts, strict=True):
                assert can_connect(family, host, port_of(one.name))

    asyncio.run(check())


def test_an_address_that_is_switched_off_does_not_spoil_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))
        for host in ("192.0.2.77", "127.0.0.1")  # nobody here has the first
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    async def check() -> None:
        async with binding("both:0", anywhere=True) as one:
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))
        found.pop()
        with pytest.raises(OSError, match="assign requested address"):
            await bind(parse("both:0"), anywhere=True)

    asyncio.run(check())


def test_a_port_in_use() -> None:
    async def check() -> None:
        async with binding("127.0.0.1:0") as one:
            with pytest.raises(OSError, match="in use") as caught:
                await bind(parse(one.name))
            assert caught.value.errno == errno.EADDRINUSE
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))

    asyncio.run(check())


def test_a_port_can_be_used_again_at_once() -> None:
    async def check() -> None:
        async with binding("127.0.0.1:0") as one:
            port = port_of(one.name)
            with socket.create_connection(("127.0.0.1", port)) as caller:
                one.sockets[0].accept()[0].close()
                assert caller.recv(1) == b""
                # The listener has closed first, so its side is the one that waits.
        async with binding(f"127.0.0.1:{port}"):
            assert can_connect(socket.AF_INET, "127.0.0.1", port)

    asyncio.run(check())


@pytest.mark.parametrize("text", ["0.0.0.0:0", "192.0.2.1:0"])
def test_an_address_that_others_can_reach_is_not_bound(text: str) -> None:
    with pytest.raises(AddressError, match="--insecure"):
        asyncio.run(bind(parse(text)))


def test_insecure_allows_it() -> None:
    async def check() -> None:
        async with binding("0.0.0.0:0", anywhere=True) as one:
            assert can_connect(socket.AF_INET, "127.0.0.2", port_of(one.name))

    asyncio.run(check())


def test_a_name_that_cannot_be_resolved() -> None:
    with pytest.raises(AddressError, match=r"cannot resolve nobody\.invalid"):
        asyncio.run(bind(Address("nobody.invalid", 1)))


@pytest.mark.parametrize(
    ("text", "exposed"),
    [("*:0", True), ("0.0.0.0:0", True), ("127.0.0.1:0", False), (":0", False)],
)
def test_whether_other_machines_can_reach_it(text: str, exposed: bool) -> None:
    async def check() -> None:
        async with binding(text, anywhere=True) as one:
            assert one.exposed is exposed
            assert one.name.startswith(
                (text.removesuffix("0") if text[0] != ":" else "", "localhost:")
            )
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(one.name))
            assert can_connect(socket.AF_INET, "127.0.0.2", port_of(one.name)) is exposed

    asyncio.run(check())


@needs_ipv6
def test_everywhere_is_in_both_families() -> None:
    async def check() -> None:
        async with binding("*:0", anywhere=True) as one:
            assert can_connect(socket.AF_INET6, "::1", port_of(one.name))

    asyncio.run(check())


# --- Unix sockets ---


def alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_a_unix_socket_is_for_its_owner_and_goes_with_the_listener(
    tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "s"

    async def check() -> None:
        before = os.umask(umask)
        try:
            async with binding(f"unix:{path}") as one:
                assert one.name == f"unix:{path}"
                assert stat.S_ISSOCK(path.stat().st_mode)
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert alive(path)
                assert os.umask(umask) == umask  # it is as it was
        finally:
            os.umask(before)
        assert not path.exists()

    asyncio.run(check())


def test_what_has_taken_the_place_of_the_socket_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the folder can exchange the name at any moment."""
    path, precious = tmp_path / "s", tmp_path / "precious"
    precious.touch(0o644)
    really_bind = socket.socket.bind

    class Exchanged(socket.socket):
        def bind(self, address: object, /) -> None:
            really_bind(self, address)  # type: ignore[arg-type]
            path.unlink()
            path.symlink_to(precious)

    monkeypatch.setattr(socket, "socket", Exchanged)

    async def check() -> None:
        (await bind(parse(str(path)))).close()

    asyncio.run(check())
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def check() -> None:
        async with binding("unix:s"):
            assert alive(tmp_path / "s")

    asyncio.run(check())
    assert os.listdir(tmp_path) == []


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()

    async def check() -> None:
        async with binding(str(path)):
            assert alive(path)

    asyncio.run(check())


@pytest.mark.parametrize("backlog", [5, 0], ids=["idle", "full"])
def test_a_live_unix_socket_is_never_replaced(tmp_path: Path, backlog: int) -> None:
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(socket.socket(socket.AF_UNIX))
        live.bind(str(path))
        live.listen(backlog)
        while backlog == 0:  # fill it, so that nobody gets through any more
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            if caller.connect_ex(str(path)) != 0:
                break
        before = path.stat()
        with pytest.raises(OSError, match="in use"):
            asyncio.run(bind(parse(str(path))))
        assert path.stat().st_ino == before.st_ino
        live.accept()[0].close()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a stale socket", "dangling link"])
def test_what_is_no_socket_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "other")
        if kind == "link to a stale socket":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(tmp_path / "other"))
    with pytest.raises(AddressError, match="is not a socket"):
        asyncio.run(bind(parse(str(path))))
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "precious"


@needs_abstract
def test_an_abstract_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = abstract_name()

    def heard() -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(f"\0{name[1:]}") == 0

    async def check() -> None:
        Path(name).touch()  # which has nothing to do with it
        async with binding(f"unix:{name}") as one:
            assert one.name == f"unix:{name}"
            assert not one.exposed
            assert not one.sockets[0].getblocking()
            assert heard()
            with pytest.raises(OSError, match="in use") as caught:
                await bind(parse(one.name))
            assert caught.value.errno == errno.EADDRINUSE
            assert heard()
        assert not heard()
        assert os.listdir(tmp_path) == [name]

    asyncio.run(check())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(bind(parse(str(tmp_path / "no" / "s"))))


def test_one_wins_when_many_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    unlink = os.unlink

    def slow(path: str) -> None:
        time.sleep(0.1)  # long enough for the others to find the stale one, too
        unlink(path)

    monkeypatch.setattr(os, "unlink", slow)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # all find a stale one

    def start() -> int:
        try:
            kept.append(asyncio.run(bind(parse(str(path)))))
        except OSError as error:
            return error.errno or 0
        return 0

    kept: list[Bound] = []

    async def check() -> None:
        results = await asyncio.gather(*(asyncio.to_thread(start) for _ in range(8)))
        assert sorted(results) == [0] + [errno.EADDRINUSE] * 7
        assert alive(path)
        kept[0].close()

    asyncio.run(check())


# --- a socket that listens already ---


def listening(text: str) -> tuple[Address, int]:
    """A socket of somebody else, as its address; and a second descriptor of it, which he keeps."""
    address = parse(text)
    sock = socket.socket(socket.AF_UNIX if address.path else socket.AF_INET)
    sock.bind(address.path or (address.host, address.port))
    sock.listen(1)
    kept = os.dup(sock.fileno())
    port = address.port if address.path else sock.getsockname()[1]
    os.set_inheritable(sock.fileno(), True)
    return address._replace(port=port, descriptor=sock.detach()), kept


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_socket_is_taken_over_and_nothing_is_bound(host: str, exposed: bool) -> None:
    address, kept = listening(f"{host}:0")

    async def check() -> None:
        bound = await bind(address, anywhere=exposed)
        (sock,) = bound.sockets
        assert sock.fileno() == address.descriptor
        assert not sock.get_inheritable()
        assert not sock.getblocking()
        assert (bound.name, bound.exposed) == (f"{host}:{address.port}", exposed)
        bound.close()
        assert can_connect(socket.AF_INET, "127.0.0.1", address.port)  # it is not ours to end

    asyncio.run(check())
    os.close(kept)


def test_one_that_others_can_reach_is_judged_as_its_address_is() -> None:
    address, kept = listening("0.0.0.0:0")
    with pytest.raises(AddressError) as taken:
        asyncio.run(bind(address))
    with pytest.raises(AddressError) as typed:
        asyncio.run(bind(parse(str(address))))
    assert str(taken.value) == str(typed.value)
    os.close(kept)


def test_its_file_is_left_to_who_has_made_it(tmp_path: Path) -> None:
    address, kept = listening(str(tmp_path / "s"))

    async def check() -> None:
        bound = await bind(address)
        assert bound.name == f"unix:{tmp_path}/s"
        bound.close()
        assert alive(tmp_path / "s")

    asyncio.run(check())
    os.close(kept)


@needs_another_user
def test_a_caller_is_told_whose_it_is_now_and_not_who_has_made_it(tmp_path: Path) -> None:
    address, kept = listening(str(tmp_path / "s"))

    async def check() -> None:
        os.seteuid(NOBODY)
        try:
            bound = await bind(address)
        finally:
            os.seteuid(0)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(tmp_path / "s"))
            told = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert struct.unpack("3i", told)[1] == NOBODY
        bound.close()

    asyncio.run(check())
    os.close(kept)
