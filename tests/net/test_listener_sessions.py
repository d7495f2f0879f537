"""To whom a listener hands the links that it has accepted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

from bpipe.net.accepted import AcceptedLinks
from bpipe.net.address import parse
from bpipe.net.bind import bind
from bpipe.net.listener import Listener
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    VERDICT_SIZE,
    Admission,
    Kind,
    Opening,
    pack_frame,
    unpack_verdict,
)
from tests.support.listening import (
    Caller,
    can_connect,
    crowd,
    end_of,
    hello,
    port_of,
    serving,
    until,
)


class Several(NamedTuple):
    """A listener, its sessions, and where each gets its links from."""

    listener: Listener
    sessions: list[Session]
    sources: list[AcceptedLinks]
    told: list[int]  # who was told that something has happened

    @property
    def port(self) -> int:
        """Where."""
        return port_of(self.listener.name)


@contextlib.asynccontextmanager
async def several(count: int) -> AsyncIterator[Several]:
    """A listener for so many sessions; those that are not closed by then are, in the end."""
    listener = Listener(await bind(parse("127.0.0.1:0")))
    sessions = [Session(1000) for _ in range(count)]
    sources = [listener.source(session) for session in sessions]
    told: list[int] = []
    for number, source in enumerate(sources):
        source.start(lambda number=number: told.append(number))  # type: ignore[misc]
    several = Several(listener, sessions, sources[:], told)
    try:
        yield several
    finally:
        for source in several.sources:
            await source.close()


async def admission(caller: Caller) -> Admission:
    """What this caller is told."""
    return unpack_verdict(await caller[0].readexactly(VERDICT_SIZE)).admission


async def greet(caller: Caller) -> None:
    """Let this one, who has said hello, greet to the end."""
    assert await admission(caller) is Admission.OK
    caller[1].write(pack_frame(Kind.CONFIRM, 0))
    assert len(await caller[0].readexactly(HEADER_SIZE)) == HEADER_SIZE


async def lose(caller: Caller) -> None:
    """Hang up."""
    caller[1].close()
    await caller[1].wait_closed()


def test_each_caller_gets_a_session_of_its_own_as_long_as_one_is_free() -> None:
    async def check() -> None:
        async with several(2) as at, crowd(at.port) as come:
            for number in range(2):
                await greet(await come(hello(number)))
                link = await asyncio.wait_for(at.sources[number].next_link(), 5)
                assert link.greeting.channel is at.sessions[number].channel
                assert at.told[-1] == number
            assert await admission(await come(hello(3))) is Admission.BUSY
            assert [session.id for session in at.sessions] == [bytes(16), bytes(15) + b"\1"]

    asyncio.run(check())


def test_who_comes_back_replaces_its_own_link_and_no_other() -> None:
    async def check() -> None:
        async with several(2) as at, crowd(at.port) as come:
            callers = [await come(hello(number)) for number in range(1)]
            await greet(callers[0])
            callers.append(await come(hello(1)))
            await greet(callers[1])
            links = [await source.next_link() for source in at.sources]
            await greet(await come(hello(1, Opening.RESUME, epoch=2)))
            assert str(await links[1].lost) == "the peer has come back over another connection"
            assert await end_of(callers[1][0])  # its first ACK, and no more
            assert (await at.sources[1].next_link()).cause is None
            assert links[0].cause is None
            assert [session.history.links for session in at.sessions] == [1, 2]

    asyncio.run(check())


def test_who_was_judged_before_another_was_attached_is_let_go() -> None:
    async def check() -> None:
        async with several(1) as at, crowd(at.port) as come:
            late = await come(hello(1))
            assert await admission(late) is Admission.OK
            await greet(await come(hello(2)))
            assert await end_of(late[0]) == b""
            assert at.sessions[0].id == bytes(15) + b"\2"

    asyncio.run(check())


def test_who_was_judged_for_another_session_goes_on() -> None:
    async def check() -> None:
        async with several(2) as at, crowd(at.port) as come:
            first = await come(hello(1))
            await greet(first)
            late = await come(hello(2))
            assert await admission(late) is Admission.OK
            await greet(await come(hello(1, Opening.RESUME, epoch=2)))
            late[1].write(pack_frame(Kind.CONFIRM, 0))
            assert len(await late[0].readexactly(HEADER_SIZE)) == HEADER_SIZE
            assert all(session.attached for session in at.sessions)

    asyncio.run(check())


def test_a_link_that_was_lost_before_anybody_took_it_is_not_handed_out() -> None:
    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            first = await come(hello(1))
            await greet(first)
            await lose(first)
            await until(lambda: not at.session.attached)
            waiting = asyncio.ensure_future(at.source.next_link())
            await asyncio.sleep(0)
            await greet(await come(hello(2)))
            link = await asyncio.wait_for(waiting, 5)
            assert link.cause is None
            assert at.session.history.links == 1  # nobody was heard over the first

    asyncio.run(check())


def test_what_happens_on_a_link_that_nobody_has_taken_yet_is_told() -> None:
    """Or the session would not know since when it waits, and for how long."""

    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            caller = await come(hello(1))
            await greet(caller)
            await until(lambda: bool(at.changes))
            at.changes.clear()
            caller[1].write(pack_frame(Kind.ACK, 0))
            await until(lambda: at.session.established)
            assert at.changes
            at.changes.clear()
            await lose(caller)
            await until(lambda: not at.session.attached)
            assert at.changes

    asyncio.run(check())


def test_of_the_links_that_nobody_has_taken_the_last_is_handed_out() -> None:
    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            for number in (1, 2, 3):
                caller = await come(hello(number))
                await greet(caller)
                if number < 3:
                    await lose(caller)
                    await until(lambda: not at.session.attached)
            link = await asyncio.wait_for(at.source.next_link(), 5)
            assert link.greeting.channel is at.session.channel

    asyncio.run(check())


def test_it_listens_until_its_last_session_needs_no_links_any_more() -> None:
    async def check() -> None:
        async with several(2) as at:
            port = at.port
            await at.sources.pop().close()
            assert can_connect(socket.AF_INET, "127.0.0.1", port)
            await at.sources.pop().close()
            assert not can_connect(socket.AF_INET, "127.0.0.1", port)

    asyncio.run(check())


def test_a_session_that_is_closed_is_nobodys_any_more() -> None:
    async def check() -> None:
        async with several(2) as at, crowd(at.port) as come:
            await greet(await come(hello(1)))
            await at.sources.pop(0).close()
            resumed = await come(hello(1, Opening.RESUME, epoch=2))
            assert await admission(resumed) is Admission.UNKNOWN
            await greet(await come(hello(3)))
            assert at.sessions[1].attached

    asyncio.run(check())


def test_who_does_not_belong_here_is_told_to_every_session() -> None:
    async def check() -> None:
        async with several(2) as at, crowd(at.port) as come:
            changes = [source.change for source in at.sources]
            assert await end_of((await come(b"GET / HTTP/1.1\r\n"))[0]) == b""
            await until(lambda: at.told == [0, 1])
            assert [source.refused for source in at.sources] == [1, 1]
            assert [source.change for source in at.sources] == [each + 1 for each in changes]

    asyncio.run(check())
