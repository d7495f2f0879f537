"""Who sees to it that a session has a link."""

from __future__ import annotations

import asyncio

import pytest

from bpipe.errors import LinkLost
from bpipe.net.link import Link
from bpipe.protocol.channel import Channel
from bpipe.protocol.frames import Frames
from bpipe.protocol.session import Session
from bpipe.supervisor import Supervisor
from tests.support.pairs import run, until
from tests.support.pipes import Nowhere


class LostLink:
    """One that is lost, or closed, when the test says so."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.cause: LinkLost | None = None
        self.closed = False

    def lose(self) -> None:
        self.cause = LinkLost("gone")
        self.lost.set_result(None)

    async def close(self) -> None:
        self.closed = True


class Somewhere(Nowhere):
    """Where these links come from, one after the other."""

    def __init__(self, links: list[LostLink]) -> None:
        super().__init__()
        self._links = links

    async def next_link(self, slot: int = 0) -> Link:
        if self._links:
            self.asked.append("next link")
            return self._links.pop(0)  # type: ignore[return-value]
        return await super().next_link()


def test_each_link_is_handed_over_and_its_loss_and_the_last_is_closed() -> None:
    async def check() -> None:
        links = [LostLink(), LostLink()]
        source, session = Somewhere(list(links)), Session(100)
        over = asyncio.get_running_loop().create_future()
        taken: list[object] = []
        drives: list[None] = []

        def take(slot: int, link: Link | None) -> None:
            assert slot == 0
            taken.append(link)

        supervisor = Supervisor(session, source, over, take, lambda: drives.append(None))
        running = asyncio.ensure_future(supervisor.run())
        await until(lambda: taken == links[:1])
        links[0].lose()
        await until(lambda: taken == [links[0], None, links[1]])
        session.leave(None)
        over.set_result(None)
        await running
        assert source.asked == ["next link", "next link", "close"]
        assert (links[0].closed, links[1].closed) == (False, True)
        assert len(drives) == 2

    run(check)


@pytest.mark.parametrize("error", [None, RuntimeError("a mistake")])
def test_a_search_ends_with_the_session_and_the_source_is_closed(error: Exception | None) -> None:
    async def check() -> None:
        source, session = Nowhere(error), Session(100)
        over = asyncio.get_running_loop().create_future()
        supervisor = Supervisor(session, source, over, lambda slot, link: None, lambda: None)
        running = asyncio.ensure_future(supervisor.run())
        await until(lambda: source.asked == ["next link"] or running.done())
        over.set_result(None)
        if error is None:
            await running
        else:
            with pytest.raises(RuntimeError, match="a mistake"):
                await running
        assert source.asked == ["next link", "close"]

    run(check)


class BySlot(Nowhere):
    """Where there is one link for each slot, and after them an error, if any."""

    def __init__(self, links: dict[int, LostLink], error: Exception | None = None) -> None:
        super().__init__(error)
        self._links = links

    async def next_link(self, slot: int = 0) -> Link:
        if slot in self._links:
            return self._links.pop(slot)  # type: ignore[return-value]
        return await super().next_link()


def several() -> Session:
    """A session whose peer has three links as well."""
    session = Session(100, links=4)
    session.terms.agree(session.position._replace(links=3))
    return session


def test_each_slot_has_its_links_once_there_is_one() -> None:
    async def check() -> None:
        links = {slot: LostLink() for slot in range(5)}
        source, session = BySlot(dict(links)), several()
        over = asyncio.get_running_loop().create_future()
        taken: list[tuple[int, object]] = []
        supervisor = Supervisor(
            session, source, over, lambda *each: taken.append(each), lambda: None
        )
        running = asyncio.ensure_future(supervisor.run())
        await until(lambda: len(taken) == 3)
        assert sorted(taken, key=lambda each: each[0]) == [(slot, links[slot]) for slot in range(3)]
        links[1].lose()
        await until(lambda: taken[3:] == [(1, None)])
        assert source.asked == ["next link"]
        session.leave(None)
        over.set_result(None)
        await running
        assert source.asked == ["next link", "close"]
        assert [links[slot].closed for slot in range(4)] == [True, False, True, False]

    run(check)


@pytest.mark.parametrize("early", [False, True])
def test_a_link_is_looked_after_also_where_the_first_was_lost_at_once(early: bool) -> None:
    async def check() -> None:
        link = LostLink()
        source, session = BySlot({1: link}), several()
        over = asyncio.get_running_loop().create_future()
        taken: list[tuple[int, object]] = []
        drives: list[None] = []
        supervisor = Supervisor(
            session, source, over, lambda *each: taken.append(each), lambda: drives.append(None)
        )
        if early:
            session.slots.attach(1, Channel(session, Frames(), 0.0), 0)
        running = asyncio.ensure_future(supervisor.run())
        await until(lambda: source.asked[:1] == ["next link"])
        if not early:
            assert not taken
            session.slots.attach(1, Channel(session, Frames(), 0.0), 0)
            supervisor.happened()
            assert drives
        await until(lambda: taken == [(1, link)])
        link.lose()
        await until(lambda: taken == [(1, link), (1, None)])
        session.leave(None)
        over.set_result(None)
        await running

    run(check)


def test_an_error_of_one_slot_ends_all() -> None:
    async def check() -> None:
        links = {0: LostLink(), 2: LostLink()}
        source, session = BySlot(dict(links), RuntimeError("a mistake")), several()
        over = asyncio.get_running_loop().create_future()
        supervisor = Supervisor(session, source, over, lambda slot, link: None, lambda: None)
        with pytest.raises(RuntimeError, match="a mistake"):
            await supervisor.run()
        assert source.asked == ["next link", "close"]

    run(check)
