"""Binding: which sockets are made, which are replaced, and which are never touched."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bpipe.errors import AddressError, Forged
from bpipe.net.address import Address, parse
from bpipe.net.listener import PENDING, Listener
from bpipe.protocol.greeting import REMEMBERED, Answerer
from bpipe.protocol.handshake import begin
from bpipe.protocol.sealed import SealedHandshake
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    VERDICT_SIZE,
    Hello,
    Kind,
    Opening,
    Position,
    pack_frame,
    pack_hello,
)
from tests.support.strangers import LOOPBACK, Stranger, has_ipv6, needs_another_user


@contextlib.asynccontextmanager
async def bound(
    text: str, *, anywhere: bool = False, secret: Secret | None = None
) -> AsyncIterator[Listener]:
    """A listener that accepts, and is closed in the end."""
    listener = await Listener.bind(parse(text), anywhere=anywhere)
    search = asyncio.ensure_future(listener(Session(1000, secret=secret)))
    await asyncio.sleep(0)
    try:
        yield listener
    finally:
        search.cancel()
        await asyncio.wait([search])
        await listener.close()


def port_of(listener: Listener) -> int:
    return int(listener.name.rpartition(":")[2])


def can_connect(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) == 0


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


# --- TCP ---


def test_port_0_is_one_that_is_free_and_is_named() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as one, bound("127.0.0.1:0") as two:
            assert 0 < port_of(one) != port_of(two) > 0
            assert one.name == f"127.0.0.1:{port_of(one)}"
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(one))
        assert not can_connect(socket.AF_INET, "127.0.0.1", port_of(one))

    asyncio.run(check())


@needs_ipv6
def test_brackets() -> None:
    async def check() -> None:
        async with bound("[::1]:0") as listener:
            assert listener.name == f"[::1]:{port_of(listener)}"
            assert can_connect(socket.AF_INET6, "::1", port_of(listener))
            assert not can_connect(socket.AF_INET, "127.0.0.1", port_of(listener))

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
        async with bound("localhost:0") as listener:
            assert listener.name == f"localhost:{port_of(listener)}"
            for family, host in zip(families, hosts, strict=True):
                assert can_connect(family, host, port_of(listener))

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
        async with bound("both:0", anywhere=True) as listener:
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(listener))
        found.pop()
        with pytest.raises(OSError, match="assign requested address"):
            await Listener.bind(parse("both:0"), anywhere=True)

    asyncio.run(check())


def test_a_port_in_use() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener:
            with pytest.raises(OSError, match="in use") as caught:
                await Listener.bind(parse(listener.name))
            assert caught.value.errno == errno.EADDRINUSE
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(listener))

    asyncio.run(check())


def test_a_port_can_be_used_again_at_once() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener:
            port = port_of(listener)
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(hello(1, Opening.RESUME))
                assert len(await asyncio.to_thread(caller.recv, 100)) == VERDICT_SIZE
                assert await asyncio.to_thread(caller.recv, 1) == b""
                # The listener has closed first, so its side is the one that waits.
        async with bound(f"127.0.0.1:{port}"):
            assert can_connect(socket.AF_INET, "127.0.0.1", port)

    asyncio.run(check())


@pytest.mark.parametrize("text", ["0.0.0.0:0", "192.0.2.1:0"])
def test_an_address_that_others_can_reach_is_not_bound(text: str) -> None:
    with pytest.raises(AddressError, match="--insecure"):
        asyncio.run(Listener.bind(parse(text)))


def test_insecure_allows_it() -> None:
    async def check() -> None:
        async with bound("0.0.0.0:0", anywhere=True) as listener:
            assert can_connect(socket.AF_INET, "127.0.0.2", port_of(listener))

    asyncio.run(check())


def test_a_name_that_cannot_be_resolved() -> None:
    with pytest.raises(AddressError, match=r"cannot resolve nobody\.invalid"):
        asyncio.run(Listener.bind(Address("nobody.invalid", 1)))


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
            async with bound(f"unix:{path}") as listener:
                assert listener.name == f"unix:{path}"
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
    bind = socket.socket.bind

    class Exchanged(socket.socket):
        def bind(self, address: object, /) -> None:
            bind(self, address)  # type: ignore[arg-type]
            path.unlink()
            path.symlink_to(precious)

    monkeypatch.setattr(socket, "socket", Exchanged)

    async def check() -> None:
        await (await Listener.bind(parse(str(path)))).close()

    asyncio.run(check())
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def check() -> None:
        async with bound("unix:s"):
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
        async with bound(str(path)):
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
            asyncio.run(Listener.bind(parse(str(path))))
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
        asyncio.run(Listener.bind(parse(str(path))))
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "precious"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def check() -> None:
        async with bound(str(path)):
            path.unlink()
            successor = await Listener.bind(parse(str(path)))
        assert alive(path)
        await successor.close()
        assert not path.exists()

    asyncio.run(check())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(Listener.bind(parse(str(tmp_path / "no" / "s"))))


def test_one_wins_when_many_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    unlink = os.unlink

    def slow(path: str) -> None:
        time.sleep(0.1)  # long enough for the others to find the stale one, too
        unlink(path)

    monkeypatch.setattr(os, "unlink", slow)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # all find a stale one

    def bind() -> int:
        try:
            listener = asyncio.run(Listener.bind(parse(str(path))))
        except OSError as error:
            return error.errno or 0
        kept.append(listener)
        return 0

    kept: list[Listener] = []

    async def check() -> None:
        results = await asyncio.gather(*(asyncio.to_thread(bind) for _ in range(8)))
        assert sorted(results) == [0] + [errno.EADDRINUSE] * 7
        assert alive(path)
        await kept[0].close()

    asyncio.run(check())


# --- accepting ---


async def until(condition: Callable[[], bool]) -> None:
    """Wait until that is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end, which may be a reset."""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


def test_greetings_under_way_are_bounded() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener:
            callers = []
            for _ in range(PENDING + 10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
                callers.append((reader, writer))
            ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in callers]
            async with asyncio.timeout(10):
                while len([end for end in ends if end.done()]) < 10:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len([end for end in ends if end.done()]) == 10
            assert all(end.result() == b"" for end in ends if end.done())
            for end, (_, writer) in zip(ends, callers, strict=True):
                end.cancel()
                writer.close()
            await asyncio.gather(*ends, return_exceptions=True)

    asyncio.run(check())


Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def crowd(listener: Listener) -> AsyncIterator[Callable[[bytes], Awaitable[Caller]]]:
    """Makes connections that say this, are accepted, and stay."""
    async with contextlib.AsyncExitStack() as stack:

        async def come(said: bytes) -> Caller:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            stack.callback(writer.close)
            writer.write(said)
            await asyncio.sleep(0)  # the listener is in the same loop
            return reader, writer

        yield come


def hello(number: int, opening: Opening = Opening.OPEN) -> bytes:
    """The first message of a caller of its own."""
    return pack_hello(Hello(opening, number.to_bytes(16), 1, Position(0, 0, 1)))


def test_those_who_say_nothing_drive_out_nobody_who_has_greeted() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            reader, writer = await come(hello(1))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
            others = [await come(b"") for _ in range(PENDING + 100)]
            dropped = [asyncio.ensure_future(end_of(reader)) for reader, _ in others]
            await until(lambda: len([end for end in dropped if end.done()]) == 101)
            writer.write(pack_frame(Kind.CONFIRM, 0))
            assert len(await reader.readexactly(HEADER_SIZE)) == HEADER_SIZE
            for end in dropped:
                end.cancel()

    asyncio.run(check())


def test_those_who_greet_and_do_not_confirm_drive_out_nobody_who_has_just_come() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            for number in range(PENDING):
                await (await come(hello(number)))[0].readexactly(VERDICT_SIZE)
            reader, writer = await come(b"")
            for number in range(PENDING, PENDING + 100):
                await (await come(hello(number)))[0].readexactly(VERDICT_SIZE)
            writer.write(hello(999))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE

    asyncio.run(check())


def test_those_who_were_refused_and_do_not_hang_up_are_bounded_too() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def check() -> None:
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            before = descriptors()
            callers = 3 * PENDING
            for number in range(callers):
                await (await come(hello(number, Opening.RESUME)))[0].readexactly(VERDICT_SIZE)
            assert descriptors() - before - callers <= PENDING + 1

    asyncio.run(check())


def sealed_hello(secret: Secret) -> bytes:
    """The first message of one who knows the secret; never twice the same."""
    return begin(secret).pack_hello(Hello(Opening.OPEN, bytes(16), 1, Position(0, 0, 1)))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = stack.enter_context(open(os.devnull)).fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with contextlib.suppress(OSError):
            while True:
                stack.enter_context(open(os.devnull))
        yield


@pytest.mark.parametrize("others", [0, 3])
def test_without_descriptors_somebody_is_dropped_or_the_next_one_waits(others: int) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            silent = [await come(b"") for _ in range(others)]
            with socket.socket() as late:
                late.setblocking(False)
                with no_descriptors():
                    await loop.sock_connect(late, ("127.0.0.1", port_of(listener)))
                    await loop.sock_sendall(late, hello(1))
                    if others:
                        assert len(await loop.sock_recv(late, 1000)) == VERDICT_SIZE
                    else:
                        await asyncio.sleep(0.05)  # it has tried
                if not others:
                    assert len(await loop.sock_recv(late, 1000)) == VERDICT_SIZE
            ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in silent]
            await asyncio.sleep(0.01)
            # One for him, and one to ask the system whose process he is.
            assert len([end for end in ends if end.done()]) in ((1, 2) if others else (0,))
            for end in ends:
                end.cancel()

    asyncio.run(check())


def test_who_waits_for_descriptors_is_told_of() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        listener = await Listener.bind(parse("127.0.0.1:0"))
        session = Session(1000)
        search = asyncio.ensure_future(listener(session))
        await asyncio.sleep(0)
        changes: list[str] = []
        listener.on_change = lambda: changes.append(str(session.last_cause))
        with socket.socket() as late:
            late.setblocking(False)
            with no_descriptors():
                await loop.sock_connect(late, ("127.0.0.1", port_of(listener)))
                await until(lambda: bool(changes))
        assert changes[0] == "cannot accept a caller: too many open files"
        search.cancel()
        await asyncio.wait([search])
        await listener.close()

    asyncio.run(check())


@pytest.mark.parametrize("code", [errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ECONNABORTED])
def test_an_error_of_the_connection_that_was_to_be_accepted_drops_nobody_else(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    accept = socket.socket.accept
    errors = [OSError(code, os.strerror(code)) for _ in range(3)]

    def fail(listening: socket.socket) -> tuple[socket.socket, object]:
        if errors:
            accept(listening)[0].close()
            raise errors.pop()
        return accept(listening)

    async def check() -> None:
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            first, writer = await come(b"")
            await asyncio.sleep(0.05)  # he is accepted, too
            monkeypatch.setattr(socket.socket, "accept", fail)
            for _ in range(3):
                await come(b"")
            reader, _ = await come(hello(1))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
            assert errors == []
            writer.write(hello(2))
            assert len(await first.readexactly(VERDICT_SIZE)) == VERDICT_SIZE

    asyncio.run(check())


@needs_another_user
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
@pytest.mark.parametrize("anywhere", [False, True], ids=["", "insecure"])
def test_a_process_of_another_user_is_refused_unless_all_are_trusted(
    family: socket.AddressFamily, host: str, anywhere: bool
) -> None:
    name = f"[{host}]:0" if ":" in host else f"{host}:0"

    async def check() -> None:
        async with bound(name, anywhere=anywhere) as listener:
            he = await asyncio.to_thread(Stranger, family, host, port_of(listener))
            try:
                answer = await asyncio.to_thread(he.hear, hello(1))
            finally:
                he.end()
            assert len(answer) == (VERDICT_SIZE if anywhere else 0)
            assert listener.refused == (0 if anywhere else 1)

    asyncio.run(check())


@pytest.mark.parametrize(("limit", "room"), [(4096, PENDING), (60, 40), (20, 1), (-1, PENDING)])
def test_callers_do_not_get_the_last_descriptors(
    monkeypatch: pytest.MonkeyPatch, limit: int, room: int
) -> None:
    open_before = os.dup(0)  # the lowest number that is free: others may hold some
    os.close(open_before)
    if 0 < limit < PENDING:
        limit += open_before - 5
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))

    async def check() -> None:
        async with bound("127.0.0.1:0") as listener, crowd(listener) as come:
            ends = [asyncio.ensure_future(end_of((await come(b""))[0])) for _ in range(100)]
            await until(lambda: any(end.done() for end in ends))
            await asyncio.sleep(0.05)
            assert room - 20 <= len([end for end in ends if not end.done()]) <= room
            for end in ends:
                end.cancel()

    asyncio.run(check())


def test_who_does_not_know_the_secret_is_counted_and_hears_nothing() -> None:
    ours, theirs = Secret(bytes(32)), Secret(bytes(range(32)))
    sealed = sealed_hello(theirs)

    async def check() -> None:
        async with bound("127.0.0.1:0", secret=ours) as listener, crowd(listener) as come:
            changes: list[int] = []
            listener.on_change = lambda: changes.append(listener.refused)
            for said in (sealed, hello(1), b"GET / HTTP/1.1\r\n"):
                assert await end_of((await come(said))[0]) == b""
            assert changes == [1, 2, 3]
            _, writer = await come(sealed[:50])
            writer.close()  # who leaves was not refused
            await asyncio.sleep(0.05)
            assert listener.refused == 3

    asyncio.run(check())


def test_a_greeting_that_was_overheard_is_answered_once_and_drives_out_nobody() -> None:
    secret = Secret(bytes(32))
    overheard = sealed_hello(secret)

    async def check() -> None:
        async with bound("127.0.0.1:0", secret=secret) as listener, crowd(listener) as come:
            reader, _ = await come(overheard)
            assert await reader.readexactly(SealedHandshake.verdict_size)
            newcomer, writer = await come(b"")
            for _ in range(PENDING + 10):
                assert await end_of((await come(overheard))[0]) == b""
            assert listener.refused == PENDING + 10
            writer.write(sealed_hello(secret))
            assert await newcomer.readexactly(SealedHandshake.verdict_size)

    asyncio.run(check())


def test_only_the_last_greetings_are_remembered() -> None:
    answerer = Answerer(Session(1000), lambda: None)
    for number in range(REMEMBERED + 1):
        answerer.remember(number.to_bytes(4))
    answerer.recognize((0).to_bytes(4))
    for number in (1, REMEMBERED):
        with pytest.raises(Forged, match="come before"):
            answerer.recognize(number.to_bytes(4))


@pytest.mark.parametrize(
    ("text", "exposed"),
    [("*:0", True), ("0.0.0.0:0", True), ("127.0.0.1:0", False), (":0", False)],
)
def test_whether_other_machines_can_reach_it(text: str, exposed: bool) -> None:
    async def check() -> None:
        async with bound(text, anywhere=True) as listener:
            assert listener.exposed is exposed
            assert listener.name.startswith(
                (text.removesuffix("0") if text[0] != ":" else "", "localhost:")
            )
            assert can_connect(socket.AF_INET, "127.0.0.1", port_of(listener))
            assert can_connect(socket.AF_INET, "127.0.0.2", port_of(listener)) is exposed

    asyncio.run(check())


@needs_ipv6
def test_everywhere_is_in_both_families() -> None:
    async def check() -> None:
        async with bound("*:0", anywhere=True) as listener:
            assert can_connect(socket.AF_INET6, "::1", port_of(listener))

    asyncio.run(check())


def test_closing_lets_go_of_everybody() -> None:
    async def check() -> None:
        async with bound("127.0.0.1:0") as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
            writer.write(pack_hello(Hello(Opening.OPEN, bytes(16), 1, Position(0, 0, 1))))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(check())
