"""What is told of one session of several, and to whom."""

from __future__ import annotations

import asyncio

import pytest

import bpipe
from bpipe.ends.file_sink import FileOutcome
from bpipe.errors import LocalAbort, SessionEnded
from bpipe.protocol.wire import Reason
from bpipe.report.events import Event, OfSession
from bpipe.report.session import Ending, SessionStory, SessionTeller
from bpipe.report.settings import Level
from tests.support.pairs import both, pair, run, until
from tests.support.slots import CALM, several


class Heard:
    """A teller that remembers, with the least level at which people hear of it."""

    def __init__(self, level: Level = Level.NORMAL) -> None:
        self.level = level
        self.events: list[OfSession] = []
        self.levels: list[Level] = []

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        assert isinstance(event, OfSession)
        self.events.append(event)
        self.levels.append(level)

    @property
    def kinds(self) -> list[str]:
        return [type(each.event).__name__ for each in self.events]


class Told:
    """A story of session 7, and what became of it."""

    def __init__(
        self, pipe: bpipe.BackedPipe, *, muted: bool = False, level: Level = Level.NORMAL
    ) -> None:
        self.heard = Heard(level)
        self.endings: list[Ending] = []
        teller = SessionTeller(self.heard, pipe.engine, 7, muted=muted)
        self.story = SessionStory(pipe.engine, teller, self.ended)

    def ended(self, ending: Ending) -> Level:
        self.endings.append(ending)
        return Level.VERBOSE


@pytest.mark.parametrize("muted", [False, True])
def test_a_session_from_its_first_link_to_its_end(muted: bool) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            told = Told(listener, muted=muted)
            caller.force_reconnect()
            await until(lambda: "Resumed" in told.heard.kinds)
            await caller.write(b"12345")
            caller.finish()
            assert await listener.read() == b"12345"
            assert await listener.read() == b""
            await asyncio.gather(caller.close(), listener.close())
            told.story.conclude(None, listener.status(), 0, interrupted=False)
        heard = told.heard
        assert heard.kinds == ["Connected", "Lost", "Resumed", "PeerFinished", "Done"]
        mute = Level.TRACE if muted else None
        levels = [Level.NORMAL, Level.VERBOSE, Level.VERBOSE, Level.VERBOSE]
        assert heard.levels[:-1] == [mute or level for level in levels]
        assert heard.levels[-1] is Level.VERBOSE  # as the owner says
        session = listener.engine.session.id
        assert session is not None
        assert {(each.number, each.session) for each in heard.events} == {(7, session.hex())}
        assert heard.events[0].words().startswith("session 7: connected to 127.0.0.1:")
        assert heard.events[-1].words().startswith("session 7: received 5 B in ")
        (ending,) = told.endings
        assert (ending.muted, ending.done.totals.delivered) == (muted, 5)

    run(check)


def test_one_that_is_told_of_before_it_has_a_link_is_told_of_when_it_has_one() -> None:
    async def check() -> None:
        async with pair() as (caller, listener):
            told = Told(caller)
            assert told.heard.events == []
            await asyncio.gather(caller.connect(), listener.connect())
            await until(lambda: caller.status().state is bpipe.State.CONNECTED)
        assert told.heard.kinds[0] == "Connected"

    run(check)


@pytest.mark.parametrize(
    ("failure", "whose"),
    [(LocalAbort("the disk is full"), "bpipe"), (bpipe.ProgramFailed("status 3"), "program")],
)
def test_a_failure_names_the_peer_and_does_not_say_what_to_do(
    failure: SessionEnded, whose: str
) -> None:
    async def check() -> None:
        async with both() as (_, listener):
            peer = listener.status().peer
            told = Told(listener)
            listener.abort(Reason.LOCAL_ERROR, "over")
            await listener.wait_closed()
            told.story.conclude(failure, listener.status(), 3, interrupted=False)
        done = told.endings[0].done
        assert (done.status, done.code, done.from_) == (3, failure.code, whose)
        assert told.heard.events[-1].words() == f"session 7: {peer}: {failure}"

    run(check)


def test_what_has_become_of_a_file_is_told_at_the_end_of_each_session() -> None:
    async def check() -> None:
        async with both() as (_, listener):
            told = Told(listener)
            filed = FileOutcome(named=True, kept=False, file="a.tar", part="a.tar.part")
            told.story.conclude(None, listener.status(), 0, interrupted=False, filed=filed)
        assert told.endings[0].done.file == "a.tar"
        assert told.heard.events[-1].words().endswith("; a.tar is on the disk")

    run(check)


def test_where_it_stands_is_told_to_who_asks_also_of_a_muted_one() -> None:
    async def check() -> None:
        async with both() as (_, listener):
            told = Told(listener, muted=True)
            told.story.report(Level.QUIET)
        index = told.heard.kinds.index("Progress")
        assert told.heard.levels[index] is Level.QUIET
        assert told.heard.events[index].words().startswith("session 7: connected 127.0.0.1:")

    run(check)


def test_every_frame_has_the_number_of_its_session() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            told = Told(listener, level=Level.TRACE)
            await caller.write(b"12345")
            assert await listener.read() == b"12345"
        assert any(each.words() == "session 7: < DATA 0 +5" for each in told.heard.events)

    run(check)


def test_of_several_links_people_hear_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with several([(), ()], limits=CALM) as at:
            told = Told(at.listener)
            await until(lambda: told.heard.kinds.count("LinkUp") == 2)
            monkeypatch.setattr("bpipe.report.links.AFTER", 0.03)
            at.proxies[1].freeze()
            await until(lambda: "Links" in told.heard.kinds)
            told.story.conclude(None, at.listener.status(), 0, interrupted=False)
            heard = dict(zip(told.heard.kinds, told.heard.levels, strict=True))
            expected = {"LinkUp", "LinkDown", "Links"}
            assert {kind for kind in heard if heard[kind] is Level.VERBOSE} >= expected
            assert (told.endings[0].done.used, told.endings[0].done.slots) == (2, 2)

    run(check)
