"""The contract of a link, over each kind of socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bpipe.errors import LinkLost, ProtocolError
from bpipe.net.clock import clock
from bpipe.net.link import Link
from bpipe.net.sockets import prepare
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    VERDICT_SIZE,
    Admission,
    Hello,
    Kind,
    Opening,
    Position,
    Verdict,
    pack_frame,
    pack_hello,
    pack_verdict,
    unpack_header,
)
from tests.support.loopback import Frame, decode, take, write

SIZE = 8 << 20
MUCH = 32 << 20  # more than any kernel holds
Pair = tuple[socket.socket, socket.socket]


def socketpair(folder: Path) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp(folder: Path) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        return caller, server.accept()[0]


def unix(folder: Path) -> tuple[socket.socket, socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
        server.listen()
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(str(folder / "s"))
        return caller, server.accept()[0]


class Ends(NamedTuple):
    """Both ends of a link: sessions, and what joins them."""

    caller: Session
    answerer: Session
    near: Link
    far: Link


@pytest.fixture(params=[socketpair, tcp, unix], ids=lambda make: str(make.__name__))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two connected sockets."""
    near, far = request.param(tmp_path)
    with near, far:
        for sock in (near, far):
            prepare(sock, 2.0)
        yield near, far


def table(session: Session) -> Sessions:
    """A listener's, which serves this one, and which nobody calls twice."""
    sessions = Sessions(lambda session: None)
    sessions.add(session)
    return sessions


@contextlib.asynccontextmanager
async def link_up(pair: Pair) -> AsyncIterator[Ends]:
    """Two sessions over a link that is greeted."""
    caller, answerer = Session(SIZE), Session(SIZE)
    far = Link(pair[1], AnswererGreeting(table(answerer), clock()), "the caller")
    near = Link(pair[0], CallerGreeting(Caller(caller), clock()), "the listener")
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(near.greeted, far.greeted)
            yield Ends(caller, answerer, near, far)
    finally:
        for link in (near, far):
            link.fail(LinkLost("the test is over"))


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


@contextlib.asynccontextmanager
async def link_by_hand(pair: Pair) -> AsyncIterator[tuple[Session, Link]]:
    """A caller over a link whose other end is the bare socket, and is greeted."""
    loop = asyncio.get_running_loop()
    session, far = Session(MUCH), pair[1]
    link = Link(pair[0], CallerGreeting(Caller(session), clock()), "the listener")
    try:
        assert len(await loop.sock_recv(far, 1000)) == HELLO_SIZE
        await loop.sock_sendall(far, pack_verdict(Verdict(Admission.OK, Position(0, 0, MUCH))))
        assert unpack_header(await loop.sock_recv(far, 1000)).kind is Kind.CONFIRM
        yield session, link
    finally:
        link.fail(LinkLost("the test is over"))


READY = pack_frame(Kind.READY, 0)


def put(session: Session, data: bytes) -> None:
    assert write(session, data) == len(data)


async def until(condition: Callable[[], Any], *links: Link) -> None:
    while not condition():
        for link in links:
            link.flush()
        await asyncio.sleep(0.001)


def test_a_greeting_attaches_both_sessions(pair: Pair) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            assert ends.caller.attached
            assert ends.answerer.attached
            assert ends.caller.id == ends.answerer.id

    run(check)


def test_bytes_arrive_in_both_directions(pair: Pair) -> None:
    async def check() -> None:
        there, back = bytes(range(256)) * 20_000, b"answer" * 500_000
        async with link_up(pair) as ends:
            put(ends.caller, there)
            put(ends.answerer, back)
            links = (ends.near, ends.far)
            await until(lambda: ends.answerer.reader.buffered == len(there), *links)
            await until(lambda: ends.caller.reader.buffered == len(back), *links)
            assert take(ends.answerer) == there
            assert take(ends.caller) == back

    run(check)


def test_who_has_joined_is_called_after_bytes_have_moved(pair: Pair) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            seen: list[int] = []
            ends.far.join(lambda: seen.append(ends.answerer.reader.buffered))
            put(ends.caller, b"12345")
            await until(lambda: seen and seen[-1] == 5, ends.near)

    run(check)


def test_nothing_is_polled_while_there_is_nothing_to_do(pair: Pair) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            put(ends.caller, b"12345")
            await until(lambda: ends.answerer.reader.buffered == 5, ends.near)
            calls: list[None] = []
            for link in (ends.near, ends.far):
                link.join(lambda: calls.append(None))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not calls

    run(check)


def test_a_full_path_is_written_when_it_empties(pair: Pair) -> None:
    async def check() -> None:
        async with link_by_hand(pair) as (session, link):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(pair[1], READY)
            await link.greeted
            put(session, bytes(MUCH))
            link.flush()
            assert 0 < session.writer.sent < MUCH  # the far end is busy
            received = 0
            while session.writer.sent < MUCH or received < MUCH:  # and nobody flushes
                received += len(await loop.sock_recv(pair[1], MUCH))

    run(check)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_the_loss_detaches_the_session_and_is_told(pair: Pair, how: str) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            if how == "half":
                pair[0].shutdown(socket.SHUT_WR)
            else:
                if how == "reset":
                    linger = b"\1\0\0\0\0\0\0\0"
                    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                ends.near.fail(LinkLost("on purpose"))
                assert ends.near.lost.result().args == ("on purpose",)
                assert not ends.caller.attached
            cause = await ends.far.lost
            assert not isinstance(cause, ProtocolError)
            assert ends.far.cause is cause
            assert not ends.answerer.attached
            assert ends.answerer.history.last_cause is cause
            assert pair[1].fileno() == -1

    run(check)


def test_a_link_fails_once(pair: Pair) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            ends.near.fail(LinkLost("first"))
            ends.near.fail(LinkLost("second"))
            assert str(ends.near.cause) == "first"
            ends.near.flush()
            await ends.near.close()

    run(check)


def test_junk_is_a_protocol_error(pair: Pair) -> None:
    async def check() -> None:
        async with link_up(pair) as ends:
            pair[0].send(b"\xff" * 16)
            assert isinstance(await ends.far.lost, ProtocolError)

    run(check)


def test_close_writes_everything_and_waits_for_the_peer(pair: Pair) -> None:
    """What is on its way is not destroyed by input that nobody reads."""

    async def check() -> None:
        loop, far = asyncio.get_running_loop(), pair[1]
        async with link_by_hand(pair) as (session, link):
            await loop.sock_sendall(far, READY)
            await link.greeted
            put(session, bytes(MUCH))
            link.flush()
            assert session.writer.high < MUCH
            closing = asyncio.ensure_future(link.close())
            await loop.sock_sendall(far, bytes(1000))  # nobody reads this
            heard = b""
            while data := await loop.sock_recv(far, MUCH):
                heard += data
            assert not closing.done()
            far.close()
            await closing
            assert str(link.lost.result()) == "closed"
            # A frame that has begun has come whole.
            frames = decode(heard)
            assert sum(len(frame.payload) for frame in frames) == session.writer.high > 0

    run(check)


@pytest.mark.slow
def test_close_does_not_wait_for_ever(tmp_path: Path) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        near, far = socketpair(tmp_path)
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            async with link_by_hand((near, far)) as (_, link):
                await loop.sock_sendall(far, READY)
                await link.greeted
                began = loop.time()
                await link.close()
                assert 0.9 < loop.time() - began < 3
                assert near.fileno() == -1

    run(check)


def test_a_greeting_that_fails_is_told(pair: Pair) -> None:
    async def check() -> None:
        session = Session(SIZE)
        link = Link(pair[0], CallerGreeting(Caller(session), clock()), "nobody")
        pair[1].close()
        with pytest.raises(LinkLost):
            await link.greeted
        assert not session.attached
        assert session.patience.outage_since is None

    run(check)


def test_a_greeting_does_not_read_beyond_its_end(pair: Pair) -> None:
    """Frames that come in one piece with READY belong to the session."""

    async def check() -> None:
        loop, far = asyncio.get_running_loop(), pair[1]
        async with link_by_hand(pair) as (_, link):
            await loop.sock_sendall(far, READY + pack_frame(Kind.PING, 77))
            await link.greeted
            answers = b""
            while len(answers) < 2 * HEADER_SIZE:
                answers += await loop.sock_recv(far, 1000)
            assert decode(answers) == [Frame(Kind.PONG, 77), Frame(Kind.ACK, 0)]

    run(check)


def test_a_hello_is_the_first_thing_on_a_link(pair: Pair) -> None:
    async def check() -> None:
        link = Link(pair[0], CallerGreeting(Caller(Session(SIZE)), clock()), "nobody")
        assert len(await asyncio.get_running_loop().sock_recv(pair[1], 1000)) == HELLO_SIZE
        link.fail(LinkLost("the test is over"))

    run(check)


def test_one_who_was_refused_is_not_heard_for_long(pair: Pair) -> None:
    """He may send as fast as he can, and somebody else's bytes would wait for him."""
    near, far = pair
    total = 256 << 20

    async def check() -> None:
        loop = asyncio.get_running_loop()
        link = Link(far, AnswererGreeting(table(Session(SIZE)), clock()), "a stranger")
        await loop.sock_sendall(near, pack_hello(unknown))
        assert len(await loop.sock_recv(near, 1000)) == VERDICT_SIZE
        flood, sent = bytes(1 << 16), 0
        with contextlib.suppress(ConnectionError):
            while sent < total:
                await loop.sock_sendall(near, flood)
                sent += len(flood)
                await asyncio.sleep(0)
        assert sent < 32 << 20  # what the kernel holds
        assert isinstance(await link.lost, LinkLost)

    unknown = Hello(Opening.RESUME, bytes(16), 1, Position(0, 0, 1))
    run(check)


def test_what_had_arrived_before_nothing_can_be_sent_any_more_counts() -> None:
    """The peer's last words, for example, before a broken pipe."""

    async def check() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        async with link_by_hand((near, far)) as (session, link):
            await asyncio.get_running_loop().sock_sendall(far, READY)
            await link.greeted
            said = [(Kind.ACK, 0, b""), (Kind.PING, 7, b""), (Kind.ABORT, 2, b"disk full")]
            far.send(b"".join(pack_frame(*each) for each in said))
            far.close()
            put(session, b"more")
            link.flush()
            assert str(link.cause) == "broken pipe"
            assert str(session.failure) == 'the other end: "disk full"'

    run(check)


def test_a_link_that_is_held_says_nothing_until_it_is_released_or_something_comes(
    pair: Pair,
) -> None:
    async def check() -> None:
        loop, far = asyncio.get_running_loop(), pair[1]
        async with link_by_hand(pair) as (session, link):
            await loop.sock_sendall(far, READY)
            await link.greeted
            assert decode(await loop.sock_recv(far, 1000)) == [Frame(Kind.ACK, 0)]
            for way in ("released", "heard"):
                link.hold()
                put(session, b"x")
                link.flush()
                with pytest.raises(BlockingIOError):
                    far.recv(1000)
                if way == "released":
                    link.release()
                else:
                    await loop.sock_sendall(far, pack_frame(Kind.ACK, 0))
                [frame] = decode(await loop.sock_recv(far, 1000))
                assert frame.payload == b"x"
            link.release()  # again: no effect

    run(check)


def test_a_link_tells_whether_its_peer_is_alive_as_long_as_it_is_up(pair: Pair) -> None:
    async def check() -> None:
        async with link_by_hand(pair) as (_, link):
            assert link.liveness is None
            await asyncio.get_running_loop().sock_sendall(pair[1], READY)
            await link.greeted
            assert link.liveness is not None
            link.fail(LinkLost("told so"))
            assert link.liveness is None

    run(check)
