"""A dialer before real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.errors import LinkLost, NotConnected
from bpipe.net import connectors
from bpipe.net.address import Address, parse
from bpipe.net.backoff import Backoff
from bpipe.net.connectors import Connection, Tcp, connector
from bpipe.net.dialer import Dialer
from bpipe.net.resolve import Endpoint
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    Admission,
    Kind,
    Opening,
    Position,
    Verdict,
    pack_frame,
    pack_verdict,
    unpack_hello,
)
from tests.support.listening import serving


def dialling(
    address: Address,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    *,
    secret: Secret | None = None,
    retry_max: float = 1.0,
) -> tuple[Session, Dialer]:
    """Who calls there, and for what session."""
    session = Session(1000, limits, secret)
    return session, Dialer(session, connector(address), Backoff(retry_max))


async def dial_until(address: Address, condition: Callable[[], bool]) -> Session:
    """Dial until that is so; the dialer finds nobody who greets."""
    session, dialer = dialling(address, retry_max=0.05)
    search = asyncio.ensure_future(dialer.next_link())
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
    search.cancel()
    await asyncio.wait([search])
    await dialer.close()
    await asyncio.sleep(0)  # for the attempts that were dropped
    return session


def test_the_same_outage_goes_on_although_a_link_was_attached(tmp_path: Path) -> None:
    async def check() -> None:
        session, dialer = dialling(parse(f"unix:{tmp_path}/nobody"), retry_max=0.02)
        seen: list[int] = []
        dialer.start(lambda: seen.append(dialer.attempts))

        async def attempts_at_first(outage_since: float) -> int:
            seen.clear()
            session.patience.outage_ended()
            session.patience.outage_began(outage_since)
            search = asyncio.ensure_future(dialer.next_link())
            while not seen or dialer.attempts < seen[0] + 3:
                await asyncio.sleep(0.01)
            search.cancel()
            await asyncio.wait([search])
            return seen[0]

        assert await attempts_at_first(1.0) == 0
        assert await attempts_at_first(1.0) >= 3
        assert await attempts_at_first(2.0) == 0

    asyncio.run(asyncio.wait_for(check(), 20))


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
    ("secret", "times", "advice"),
    [
        (Secret(bytes(32)), 1, "is it bpipe, with the same secret and --name?"),
        (Secret(bytes(32)), 3, "And of the same version?"),
        (None, 3, "and without a secret?"),
    ],
)
def test_what_may_be_wrong_with_one_who_does_not_answer(
    secret: Secret | None, times: int, advice: str
) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            session, dialer = dialling(Address(*server.getsockname()), secret=secret)
            search = asyncio.ensure_future(dialer.next_link())
            loop = asyncio.get_running_loop()
            for _ in range(times):
                assert not str(session.history.last_cause).endswith("And of the same version?")
                peer, _ = await loop.sock_accept(server)
                assert await loop.sock_recv(peer, 1000)
                peer.close()
            async with asyncio.timeout(10):
                while advice not in str(session.history.last_cause):
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

        monkeypatch.setattr(connectors, "resolve", resolve)
        asyncio.run(dial_until(Address("both", port), look))
    for peer in accepted:
        peer.close()


class Noting(Tcp):
    """A connector that notes which connections were good."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.good: list[str] = []

    def prefer(self, connection: Connection) -> None:
        self.good.append(connection.peer)


def test_only_a_connection_over_which_somebody_has_greeted_is_preferred() -> None:
    async def check() -> None:
        async with serving() as at:
            calls = Noting(Address("127.0.0.1", at.port))
            session = Session(1000)
            dialer = Dialer(session, calls, Backoff(0.05))
            link = await dialer.next_link()
            assert calls.good == [f"127.0.0.1:{at.port}"]
            link.fail(LinkLost("enough"))
            await dialer.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            calls = Noting(Address(*server.getsockname()))
            dialer = Dialer(Session(1000), calls, Backoff(0.05))
            search = asyncio.ensure_future(dialer.next_link())
            for _ in range(2):
                (await asyncio.get_running_loop().sock_accept(server))[0].close()
            assert calls.good == []
            search.cancel()
            await asyncio.wait([search])
            await dialer.close()

    asyncio.run(asyncio.wait_for(check(), 20))


def test_who_accepts_and_says_nothing_does_not_hold_up_the_search() -> None:
    """A carrier, an `ssh -L` for example, whose own path is dead."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server.setblocking(False)
            session, dialer = dialling(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer.next_link())
            came, hellos = [], []
            for _ in range(5):
                peer = stack.enter_context((await loop.sock_accept(server))[0])
                came.append(time.monotonic())
                hellos.append(await loop.sock_recv(peer, 1000))
            assert max(after - before for before, after in itertools.pairwise(came)) < 1.2
            assert len(set(hellos)) == 5
            await loop.sock_sendall(peer, pack_verdict(Verdict(Admission.OK, Position(0, 0, 1))))
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
            _, dialer = dialling(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer.next_link())
            for opening in (Opening.OPEN, Opening.RESUME):
                peer = stack.enter_context((await loop.sock_accept(server))[0])
                hello = unpack_hello(await loop.sock_recv(peer, 1000))
                assert hello.opening is opening
                await loop.sock_sendall(
                    peer, pack_verdict(Verdict(Admission.OK, Position(0, 0, 1)))
                )
            search.cancel()
            await asyncio.wait([search])

    asyncio.run(asyncio.wait_for(check(), 4))


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

    monkeypatch.setattr(connectors, "resolve", resolve)
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
            session, dialer = dialling(Address(*server.getsockname()))
            search = asyncio.ensure_future(dialer.next_link())
            peer = stack.enter_context((await loop.sock_accept(server))[0])
            assert len(await loop.sock_recv(peer, 1000)) == HELLO_SIZE
            await loop.sock_sendall(peer, pack_verdict(Verdict(Admission.OK, Position(0, 0, 1))))
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
