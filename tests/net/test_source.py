"""What an engine may count on, wherever its links come from: by dialling, or by accepting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bpipe.errors import LinkLost
from bpipe.net.address import parse
from bpipe.net.backoff import Backoff
from bpipe.net.bind import bind
from bpipe.net.connectors import connector
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.session import Session

Mine = tuple[Session, LinkSource]
each_source = pytest.mark.parametrize("which", ["accepts", "dials"])


async def pair() -> tuple[Mine, Mine]:
    """A listener's, and that of who calls there."""
    here, there = Session(1000), Session(1000)
    listener = Listener(await bind(parse("127.0.0.1:0")))
    accepts = listener.source(here)
    dials = Dialer(there, connector(parse(listener.name)), Backoff(0.05))
    return (here, accepts), (there, dials)


def run(which: str, test: Callable[[Session, LinkSource, LinkSource], Awaitable[None]]) -> None:
    """The test gets a session, its source, and the other one's."""

    async def limited() -> None:
        one, other = await pair()
        if which == "dials":
            one, other = other, one
        try:
            async with asyncio.timeout(10):
                await test(*one, other[1])
        finally:
            for _, source in (one, other):
                await source.close()

    asyncio.run(limited())


@contextlib.asynccontextmanager
async def links(one: LinkSource, other: LinkSource) -> AsyncIterator[Link]:
    """The next of each; yields the first."""
    both = await asyncio.gather(one.next_link(), other.next_link())
    try:
        yield both[0]
    finally:
        for link in both:
            link.fail(LinkLost("enough"))


@each_source
def test_it_gets_links_that_are_greeted_and_attached(which: str) -> None:
    async def check(session: Session, source: LinkSource, other: LinkSource) -> None:
        for each in (source, other):
            each.start(lambda: None)
        for number in (1, 2, 3):
            async with links(source, other) as link:
                assert link.greeted.done()
                assert link.greeting.channel is session.channel is not None
                assert link.cause is None
                assert session.history.links == number

    run(which, check)


@each_source
def test_what_has_happened_is_told(which: str) -> None:
    async def check(session: Session, source: LinkSource, other: LinkSource) -> None:
        told: list[bool] = []
        source.start(lambda: told.append(session.attached))
        other.start(lambda: None)
        async with links(source, other):
            assert told
            assert told[-1]

    run(which, check)


@each_source
def test_who_does_not_wait_any_more_gets_no_link_and_loses_none(which: str) -> None:
    async def check(session: Session, source: LinkSource, other: LinkSource) -> None:
        for each in (source, other):
            each.start(lambda: None)
        search = asyncio.ensure_future(source.next_link())
        await asyncio.sleep(0)
        search.cancel()
        await asyncio.wait([search])
        async with links(source, other):
            assert session.attached

    run(which, check)


@each_source
def test_what_is_known_of_it_before_anything_has_happened(which: str) -> None:
    async def check(session: Session, source: LinkSource, other: LinkSource) -> None:
        assert source.name == other.name
        assert not source.exposed
        assert (source.attempts, source.refused) == (0, 0)
        before = source.change
        source.hurry()
        source.start(lambda: None)
        assert source.change >= before

    run(which, check)


@each_source
@pytest.mark.parametrize("started", [False, True])
def test_it_is_closed_whether_it_was_started_or_not_and_however_often(
    which: str, started: bool
) -> None:
    async def check(session: Session, source: LinkSource, other: LinkSource) -> None:
        if started:
            source.start(lambda: None)
        for _ in range(2):
            await source.close()
        assert not session.attached

    run(which, check)


def test_only_who_dials_knows_when_it_tries_again() -> None:
    async def check() -> None:
        (_, accepts), (_, dials) = await pair()
        assert (accepts.attempts, accepts.next_at) == (0, None)
        change = dials.change
        for source in (accepts, dials):
            source.start(lambda: None)
        async with links(accepts, dials):
            assert dials.attempts == 1
            assert dials.next_at is not None
            assert dials.change > change
        for source in (accepts, dials):
            await source.close()

    asyncio.run(asyncio.wait_for(check(), 10))
