"""What is told of one of several links, and of how many there are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from bpipe.report import links as module
from bpipe.report.flood import PERIOD
from bpipe.report.links import MOST, LinkDown, LinkNarrator, Links, LinksLimited, LinkUp
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Level, Settings
from bpipe.status import State, Status
from tests.support.outputs import Recorder
from tests.support.pairs import run, until
from tests.support.slots import CALM, several
from tests.support.statuses import BEFORE, over
from tests.support.watches import said

MOMENT = 0.03
Check = Callable[[], Coroutine[Any, Any, None]]
ALL = over((1, 1, 1))
ONE_DOWN = over((1, -1, 1))
AGAIN = over((1, 2, 1))
AWAY = replace(over((-1, -1, -1)), state=State.RECONNECTING)


class Told(Recorder):
    """What a narrator tells of one status after the other, and the last of them."""

    def __init__(self, level: Level = Level.NORMAL) -> None:
        super().__init__()
        self.now = BEFORE
        self.narrator = LinkNarrator(self, lambda: self.now, level)

    def see(self, *statuses: Status) -> None:
        for self.now in statuses:
            self.narrator.look(self.now)

    @property
    def normal(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("(")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER", MOMENT)


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([over((1, 0))], "(link 0 is up, to far0:7000: 1 of 2)"),
        ([over((1, 0)), over((1, 0))], "(link 0 is up, to far0:7000: 1 of 2)"),
        (
            [over((1, 0)), over((1, 1))],
            "(link 0 is up, to far0:7000: 1 of 2)|(link 1 is up, to far1:7000: 2 of 2)",
        ),
        (
            [over((1, 1)), over((-1, 1))],
            "(link 0 is up, to far0:7000: 2 of 2)|(link 1 is up, to far1:7000: 2 of 2)"
            "|(link 0 is down, to far0:7000: cut 0; 1 of 2 are up)",
        ),
        (  # again before anybody has looked
            [over((1,) * 2), over((2, 1))],
            "(link 0 is up, to far0:7000: 2 of 2)|(link 1 is up, to far1:7000: 2 of 2)"
            "|(link 0 is down, to far0:7000: cut 0; 2 of 2 are up)"
            "|(link 0 is up, to far0:7000: 2 of 2)",
        ),
        ([replace(over((1, 1)), state=State.FINISHING)], ""),
    ],
)
def test_each_link_that_comes_or_goes_is_told_to_who_asks(history: list[Status], told: str) -> None:
    async def check() -> None:
        recorder = Told()
        recorder.see(*history)
        assert "|".join(recorder.lines) == told

    run(check)


def test_links_that_end_with_the_session_are_no_news() -> None:
    async def check() -> None:
        told = Told()
        told.see(ALL)
        before = told.lines[:]
        told.see(replace(ONE_DOWN, state=State.FINISHING), replace(AWAY, state=State.OVER))
        await asyncio.sleep(2 * MOMENT)
        assert told.lines == before

    run(check)


@pytest.mark.parametrize("level", [Level.NORMAL, Level.VERBOSE])
def test_that_some_are_down_is_told_once_if_it_lasts_and_when_all_are_up(level: Level) -> None:
    async def check() -> None:
        told = Told(level)
        told.see(ALL, ONE_DOWN, AGAIN)
        await asyncio.sleep(2 * MOMENT)
        assert told.normal == []
        told.see(ONE_DOWN)
        bracket = "{}" if level is Level.NORMAL else "({})"
        down = bracket.format("one of 3 links is down, to far1:7000: cut 1; 2 go on")
        up = bracket.format("all 3 links are up")
        await until(lambda: down in told.lines)
        told.see(ONE_DOWN, ONE_DOWN)
        await asyncio.sleep(2 * MOMENT)
        told.see(AGAIN, AGAIN)
        assert [line for line in told.lines if line in (down, up)] == [down, up]

    run(check)


def test_which_link_is_down_is_told_if_its_way_is_known_or_its_peer_is_another() -> None:
    def seen(peers: tuple[str, str], via: str = "") -> str:
        async def check() -> None:
            told = Told()
            for status in (over((1, 1)), over((1, -1))):
                slots = [
                    each._replace(peer=peer if each.up else "", via=via)
                    for each, peer in zip(status.slots, peers, strict=True)
                ]
                told.see(replace(status, slots=tuple(slots)))
            await until(lambda: told.normal)
            lines.extend(told.normal)

        lines: list[str] = []
        run(check)
        return lines[0]

    assert seen(("far:7", "far:7")) == "one of 2 links is down: cut 1; one goes on"
    assert ", to near1:9: cut 1" in seen(("near0:8", "near1:9"))
    assert ", to " not in seen(("near:8", "near:9"))
    assert "down, from wlan0: cut 1" in seen(("near0:8", "near1:9"), "wlan0")


@pytest.mark.parametrize(("calls", "why"), [(True, ": no answer yet"), (False, "")])
def test_a_link_that_never_comes_up_is_down_too(calls: bool, why: str) -> None:
    async def check() -> None:
        told = Told()
        told.see(replace(over((1, 0)), retry_in=0.5 if calls else None))
        await until(lambda: told.normal)
        assert told.normal == [f"one of 2 links is down{why}; one goes on"]

    run(check)


def test_an_outage_of_all_is_told_elsewhere() -> None:
    async def check() -> None:
        told = Told()
        told.see(ALL, AWAY)
        await asyncio.sleep(2 * MOMENT)
        told.see(ALL, ONE_DOWN, AWAY)
        await asyncio.sleep(2 * MOMENT)
        assert told.normal == []

    run(check)


def test_it_is_told_again_only_if_fewer_are_up_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY", 4 * MOMENT)

    async def check() -> None:
        told = Told()
        told.see(ALL, ONE_DOWN)
        await until(lambda: told.normal)
        began = asyncio.get_running_loop().time()
        told.see(over((-1, -1, 1)))
        await until(lambda: len(told.normal) == 2)
        assert asyncio.get_running_loop().time() > began + 3 * MOMENT
        told.see(ONE_DOWN)
        await asyncio.sleep(6 * MOMENT)
        assert told.normal == [
            "one of 3 links is down, to far1:7000: cut 1; 2 go on",
            "2 of 3 links are down: cut 0; one goes on",
        ]

    run(check)


def test_of_a_loop_of_losses_the_first_are_told_and_then_how_many_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(module, "clock", lambda: now)
    monkeypatch.setattr(module, "AFTER", 1000.0)
    monkeypatch.setattr("bpipe.report.flood.PERIOD", MOMENT)

    async def check() -> None:
        nonlocal now
        told = Told()
        told.see(over((1, 1)))
        for number in range(1, MOST + 8):
            told.see(over((number + 1, 1)))
        losses = [line for line in told.lines if " is down, " in line]
        assert len(losses) == MOST
        now = PERIOD
        await until(lambda: "more times" in told.lines[-1])
        assert told.lines[-1] == (
            "(links were lost 7 more times in the last minute; 2 of 2 are up)"
        )

    run(check)


def test_a_session_that_begins_anew_has_no_links_that_were_lost() -> None:
    async def check() -> None:
        told = Told()
        told.see(ALL)
        told.lines.clear()
        told.see(over((1, 0)))  # with another caller
        assert [line for line in told.lines if " is up" in line] == []

    run(check)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Links(3, 4, None, None, "reset", "reset"), "one of 4 links is down: reset; 3 go on"),
        (
            Links(1, 2, "far:7", "wlan0", "no way", "x", ", from wlan0"),
            "one of 2 links is down, from wlan0: no way; one goes on",
        ),
        (Links(1, 4, None, None, "reset", "reset"), "3 of 4 links are down: reset; one goes on"),
        (
            Links(1, 2, "far:7", None, "far:7: network is unreachable", "unreachable"),
            "one of 2 links is down: network is unreachable; one goes on",
        ),
        (Links(4, 4), "all 4 links are up"),
        (Links(2, 2), "both links are up"),
        (LinksLimited(1, 4), "the far side allows 1 link, not 4 (--max-links)"),
    ],
)
def test_what_is_said_of_them(event: Links | LinksLimited, said: str) -> None:
    assert event.words() == said


# --- over real links ---


def test_a_way_that_is_dark_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AFTER", 60.0)

    async def check(watch: PipeWatch) -> None:
        async with several([(), ()], limits=CALM) as at:
            watch.open("there", listens=False)
            watch.begin(at.caller.engine, listens=False)
            await until(lambda: at.caller.status().up == 2)
            monkeypatch.setattr(module, "AFTER", MOMENT)
            at.proxies[1].freeze()
            await until(lambda: at.caller.status().up == 1)
            await until(lambda: len(at.caller.engine.links) == 1)
            await asyncio.sleep(5 * MOMENT)
            watch.report(Level.NORMAL)
            at.proxies[1].thaw()
            await until(lambda: at.caller.status().up == 2)
            at.caller.finish()
            await until(lambda: at.caller.status().finished)

    lines = [json.loads(line) for line in said(check, Settings(log="-"))]
    kinds = [each["event"] for each in lines][1:]
    assert kinds[:7] == [
        "link-up", "connected", "link-up", "link-down", "links", "progress", "link-up",
    ]  # fmt: skip
    assert kinds[7] == "links"
    up, down, fewer, where, every = (lines[each] for each in (3, 4, 5, 6, 8))
    assert (up["slot"], up["up"], up["slots"]) == (1, 2, 2)
    assert (down["slot"], down["up"], down["slots"], down["code"]) == (1, 1, 2, "silent")
    assert (fewer["up"], fewer["slots"], fewer["code"]) == (1, 2, "silent")
    assert (where["state"], where["up"], where["slots"]) == ("connected", 1, 2)
    assert (every["up"], every["reason"]) == (2, None)
    assert "lost" not in kinds


@pytest.mark.parametrize(("most", "told"), [(1, 1), (2, 1), (3, 0), (8, 0)])
def test_who_asks_for_more_links_than_he_gets_is_told_once(most: int, told: int) -> None:
    async def check(watch: PipeWatch) -> None:
        async with several([()] * 3, most, limits=CALM) as at:
            watch.begin(at.caller.engine, listens=False)
            at.listener.finish()
            await until(lambda: at.caller.status().peer_finished)
            await until(lambda: at.caller.status().links >= min(most, 3))

    lines = said(check)
    allowed = [line for line in lines if "the far side allows" in line]
    assert len(allowed) == told
    assert all(f"allows {most} link" in line for line in allowed)


def test_from_where_a_link_goes_is_told_if_that_was_chosen() -> None:
    up = LinkUp(1, "far:7", "wlan0", 2, 2)
    down = LinkDown(1, "far:7", "wlan0", "cut", "reset", 1, 2)
    assert up.words() == "link 1 is up, from wlan0, to far:7: 2 of 2"
    assert down.words() == "link 1 is down, from wlan0, to far:7: cut; 1 of 2 are up"


@pytest.mark.parametrize(("links", "heard"), [(1, True), (2, False)])
def test_what_the_command_of_one_of_several_says_is_for_who_asks(links: int, heard: bool) -> None:
    async def check(watch: PipeWatch) -> None:
        watch.tell_of_carrier("a banner")
        async with several([()] * links, limits=CALM) as at:
            watch.begin(at.caller.engine, listens=False)
            await until(lambda: at.caller.status().links >= links)
            watch.tell_of_carrier("closed by remote host")

    lines = said(check)
    assert lines[0] == "bpipe: a banner"
    assert ("bpipe: closed by remote host" in lines) is heard
