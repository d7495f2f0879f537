"""A dialer before real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.errors import AddressError, LinkLost, NotConnected
from bpipe.net.address import Address, Endpoint, parse
from bpipe.net.dialer import Dialer, _connect
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    Kind,
    Opening,
    Position,
    Status,
    Verdict,
    pack_frame,
    pack_verdict,
    unpack_hello,
)


@pytest.mark.parametrize("text", ["192.0.2.1:1", "0.0.0.0:1", "[::]:1"])
def test_an_address_that_others_can_reach_is_not_dialled(text: str) -> None:
    async def check() -> None:
        with pytest.raises(AddressError, match="--insecure"):
            await Dialer(parse(text)).check(10)
        await Dialer(parse(text), anywhere=True).check(10)

    asyncio.run(check())


def test_a_name_that_has_no_address_may_have_one_later() -> None:
    asyncio.run(Dialer(parse("nobody.invalid:1")).check(10))


async def dial_until(address: Address, condition: Callable[[], bool], **limits: float) -> Session:
    """Dial until that is so; the dialer finds nobody who greets."""
    session = Session(1000, Limits(**limits))
    dialer = Dialer(address, retry_max=0.05)
    search = asyncio.ensure_future(dialer(session))
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
    search.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await search
    await asyncio.sleep(0)  # for the attempts that were dropped
    return session


def test_the_same_outage_goes_on_although_a_link_was_attached(tmp_path: Path) -> None:
    async def check() -> None:
        session, dialer = Session(100), Dialer(parse(f"unix:{tmp_path}/nobody"), retry_max=0.02)

        async def attempts_at_first(outage_since: float) -> int:
            seen: list[int] = []
            dialer.on_change = lambda: seen.append(dialer.schedule.attempts)
            session.patience.outage_since = outage_since
            search = asyncio.ensure_future(dialer(session))
            while not seen or dialer.schedule.attempts < seen[0] + 3:
                await asyncio.sleep(0.01)
            search.cancel()
            return seen[0]

        assert await attempts_at_first(1.0) == 0
        assert await attempts_at_first(1.0) >= 3
        assert await attempts_at_first(2.0) == 0

    asyncio.run(check())


def test_it_greets_whoever_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []

        def answer() -> None:
            for _ in range(3):
                peer, _ = server.accept()
                with peer:
                    heard.append(peer.recv(1000))  # and hang up

        thread = threading.Thread(target=answer)
        thread.start()
        address = Address("127.0.0.1", server.getsockname()[1])
        session = asyncio.run(dial_until(address, lambda: len(heard) == 3))
        thread.join()
    assert [len(hello) for hello in heard] == [HELLO_SIZE] * 3
    assert len(set(heard)) == 3  # the epoch grows
    assert session.epoch >= 3


@pytest.mark.parametrize(
    ("secret", "advice"),
    [(Secret(bytes(32)), "is it bpipe, with the same secret?"), (None, "and without a secret?")],
)
def test_what_may_be_wrong_with_one_who_does_not_answer(secret: Secret | None, advice: str) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            session = Session(1000, secret=secret)
            search = asyncio.ensure_future(Dialer(Address(*server.getsockname()))(session))
            peer, _ = await asyncio.get_running_loop().sock_accept(server)
            peer.close()
            async with asyncio.timeout(10):
                while advice not in str(session.last_cause):
                    await asyncio.sleep(0.01)
            search.cancel()
            await asyncio.wait([search])

    asyncio.run(check())


def test_each_address_of_a_name_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        server.setblocking(False)

        async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
            return [Endpoint(socket.AF_INET, (host, port)) for host in ("127.0.0.1", "127.0.0.2")]

        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                accepted.append(server.accept()[0])
            return bool(accepted)

        monkeypatch.setattr("bpipe.net.dialer.resolve", resolve)
        asyncio.run(dial_until(Address("both", port), look))
    for peer in accepted:
        peer.close()


def test_who_accepts_and_says_nothing_does_not_hold_up_the_search() -> None:
    """A carrier, an `ssh -L` for example, whose own path is dead."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.setblocking(False)
            session, dialer = Session(1000), Dialer(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer(session))
            came, hellos = [], []
            for _ in range(5):
                peer = stack.enter_context((await loop.sock_accept(server))[0])
                came.append(time.monotonic())
                hellos.append(await loop.sock_recv(peer, 1000))
            assert max(after - before for before, after in itertools.pairwise(came)) < 1.2
            assert len(set(hellos)) == 5
            await loop.sock_sendall(peer, pack_verdict(Verdict(Status.OK, Position(0, 0, 1))))
            assert await loop.sock_recv(peer, 1000) == pack_frame(Kind.CONFIRM, 0)
            await loop.sock_sendall(peer, pack_frame(Kind.READY, 0))
            link = await asyncio.wait_for(search, 5)
            assert session.attached
            link.fail(LinkLost("done"))
            await dialer.close()

    asyncio.run(check())


def test_a_second_half_of_a_greeting_that_does_not_come_is_not_waited_for_long() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.setblocking(False)
            session, dialer = Session(1000), Dialer(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer(session))
            for opening in (Opening.OPEN, Opening.RESUME):
                peer = stack.enter_context((await loop.sock_accept(server))[0])
                hello = unpack_hello(await loop.sock_recv(peer, 1000))
                assert hello.opening is opening
                await loop.sock_sendall(peer, pack_verdict(Verdict(Status.OK, Position(0, 0, 1))))
            search.cancel()
            await asyncio.wait([search])

    asyncio.run(asyncio.wait_for(check(), 4))


ENDPOINTS = [Endpoint(socket.AF_INET, (f"127.0.0.{host}", 1)) for host in range(1, 31)]


def dialled(monkeypatch: pytest.MonkeyPatch, dialer: Dialer, live: int) -> list[int]:
    """Have only this endpoint of many answer; the list will have those that were tried."""
    tried: list[int] = []

    async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
        return ENDPOINTS

    async def connect(endpoint: Endpoint, *, anywhere: bool) -> socket.socket:
        tried.append(ENDPOINTS.index(endpoint))
        if tried[-1] != live:
            raise OSError(errno.EHOSTUNREACH, "no route")
        return socket.socket()

    monkeypatch.setattr("bpipe.net.dialer.resolve", resolve)
    monkeypatch.setattr("bpipe.net.dialer._connect", connect)
    return tried


def test_every_address_of_a_name_is_tried_and_the_good_one_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        dialer = Dialer(Address("many", 1))
        tried = dialled(monkeypatch, dialer, live=29)
        for outage in range(2):
            dialer.schedule.begin(0.0, fresh=True)
            sock, endpoint = await dialer._dial(dialer.schedule.start(0.0))
            sock.close()
            dialer._good = endpoint
            dialer.schedule.clear()
            assert tried == (list(range(30)) if not outage else [29])
            tried.clear()

    asyncio.run(check())


@pytest.mark.parametrize("how", ["gone", "slow", "moved"])
def test_the_address_that_was_good_is_tried_without_the_name(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
        if how == "gone":
            raise AddressError("cannot resolve many: no such name")
        if how == "slow":
            await asyncio.sleep(60)
        return ENDPOINTS[:3]

    async def check() -> None:
        dialer = Dialer(Address("many", 1))
        monkeypatch.setattr("bpipe.net.dialer.resolve", resolve)
        dialer._good = ENDPOINTS[7]
        assert await dialer._endpoints() == (ENDPOINTS[:3] if how == "moved" else [ENDPOINTS[7]])
        await dialer.close()

    asyncio.run(asyncio.wait_for(check(), 5))


def test_a_name_is_looked_up_within_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
        await asyncio.sleep(60)
        raise AssertionError

    async def check() -> None:
        began = time.monotonic()
        pipe = await bpipe.connect("slow.example:1", limits=Limits(connect_timeout=1.5))
        with pytest.raises(NotConnected):
            await pipe.connect()
        await pipe.wait_closed()
        assert 1.4 < time.monotonic() - began < 4

    monkeypatch.setattr("bpipe.net.dialer.resolve", resolve)
    asyncio.run(check())


def test_a_connection_to_itself_leaves_the_port_to_the_listener() -> None:
    async def check() -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]

        class Own(socket.socket):
            """One that dials from the port that it dials to."""

            def __init__(self, *args: int) -> None:
                super().__init__(*args)
                self.bind(("127.0.0.1", port))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("socket.socket", Own)
            with pytest.raises(ConnectionRefusedError):
                await _connect(Endpoint(socket.AF_INET, ("127.0.0.1", port)), anywhere=False)
        with socket.socket() as other:  # without SO_REUSEADDR
            other.bind(("127.0.0.1", port))

    asyncio.run(check())


def test_a_search_that_is_cancelled_just_when_its_answer_comes() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        errors: list[object] = []
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.setblocking(False)
            bell, rope = map(stack.enter_context, socket.socketpair())
            session = Session(1000)
            dialer = Dialer(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer(session))
            peer = stack.enter_context((await loop.sock_accept(server))[0])
            assert len(await loop.sock_recv(peer, 1000)) == HELLO_SIZE
            await loop.sock_sendall(peer, pack_verdict(Verdict(Status.OK, Position(0, 0, 1))))
            assert len(await loop.sock_recv(peer, 1000)) == HEADER_SIZE
            loop.add_reader(bell, lambda: (loop.remove_reader(bell), search.cancel()))
            rope.send(b"!")  # the loop finds both at once, and this first
            peer.send(pack_frame(Kind.READY, 0))
            await asyncio.wait([search])
            assert search.cancelled()
            assert not session.attached
            assert errors == []

    asyncio.run(check())


@pytest.mark.slow
def test_a_path_that_returns_meets_a_fresh_attempt() -> None:
    """The kernel's own attempts come 1, 3, 7 or 1, 2, 3, 4, 5, 7 seconds after the first."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = server.getsockname()
        full = stack.enter_context(socket.create_connection(address))
        assert full
        began = time.monotonic()
        open_since: list[float] = []
        arrived: list[float] = []

        def look() -> bool:
            now = time.monotonic()
            if not open_since and now > began + 5.2:
                stack.enter_context(server.accept()[0])
                server.setblocking(False)
                open_since.append(now)
            elif open_since:
                with contextlib.suppress(BlockingIOError):
                    stack.enter_context(server.accept()[0])
                    arrived.append(now)
            return bool(arrived)

        asyncio.run(dial_until(Address(*address), look))
    assert arrived[0] - open_since[0] < 1.3
