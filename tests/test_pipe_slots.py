"""Pipes with several links at once, which are cut while bytes are under way."""

from __future__ import annotations

import asyncio
import random

import pytest

from bpipe.demo.faults import Cut, Fault, random_cuts
from tests.support.pipes import DATA, SECRET, read_all, run, send, until
from tests.support.slots import Both, several


async def exchange(at: Both) -> None:
    """The same bytes go both ways, to their ends."""
    there, back, *_ = await asyncio.gather(
        read_all(at.listener), read_all(at.caller), send(at.caller, DATA), send(at.listener, DATA)
    )
    assert (there, back) == (DATA, DATA)
    await asyncio.gather(at.caller.wait_closed(), at.listener.wait_closed())
    assert (at.caller.engine.failure, at.listener.engine.failure) == (None, None)


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("links", [2, 4])
def test_bytes_go_over_all_links_and_arrive_once(links: int, secret: None) -> None:
    async def check() -> None:
        async with several([()] * links, secret=secret) as at:
            await exchange(at)
            assert at.caller.status().links == links

    run(check)


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("seed", range(3))
def test_links_are_cut_anywhere_and_the_bytes_arrive_once(seed: int, secret: None) -> None:
    async def check() -> None:
        rng = random.Random(seed)
        cuts = [list(random_cuts(rng, 5, 300_000)) for _ in range(3)]
        async with several(cuts, secret=secret) as at:
            await exchange(at)

    run(check)


def test_a_session_goes_on_over_the_links_that_are_left() -> None:
    async def check() -> None:
        dark = [Cut(Fault.SILENCE, upward=True, offset=400_000)] + [Cut(Fault.EOF, True, 0)] * 99
        async with several([(), dark]) as at:
            began = [pipe.engine.session.patience.outage_since for pipe in at[:2]]
            await exchange(at)
            assert began == [None, None]

    run(check)


def test_a_lost_link_of_several_is_no_outage() -> None:
    async def check() -> None:
        async with several([(), ()]) as at:
            engine = at.caller.engine
            await until(lambda: len(engine.links) == 2)
            at.proxies[1].freeze()
            await until(lambda: len(engine.links) == 1)
            assert engine.connected
            assert engine.session.patience.outage_since is None
            at.proxies[1].thaw()
            await until(lambda: len(engine.links) == 2)

    run(check)


def test_a_session_begins_although_its_first_way_is_dead() -> None:
    async def check() -> None:
        dead = [Cut(Fault.SILENCE, upward=True, offset=0)] * 99
        async with several([dead, ()]) as at:
            assert at.caller.engine.source.ways == ["way 1", "way 0"]
            await exchange(at)

    run(check)


def test_a_way_for_which_the_peer_has_no_slot_is_there_when_another_fails() -> None:
    async def check() -> None:
        once = [Cut(Fault.EOF, upward=True, offset=500_000)] + [Cut(Fault.SILENCE, True, 0)] * 99
        async with several([once, ()], most=1) as at:
            await exchange(at)
            assert at.caller.engine.source.ways == ["way 1", "way 0"]

    run(check)
