from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import bpipe
from bpipe.demo.faults import Cut, Fault
from bpipe.errors import LinkLost, NotConnected
from bpipe.net.clock import clock
from bpipe.protocol.frames import Frames
from bpipe.protocol.liveness import OWED
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.wire import Position
from bpipe.status import State
from bpipe.survey import survey
from tests.support.loopback import take
from tests.support.peer import (
    ACK,
    DATA,
    FIN,
    LIMITS,
    NOW,
    aborted,
    all_done,
    attach,
    deliver_mark,
    hear,
    interrupted,
    lose,
    make,
    said,
    up,
)
from tests.support.pipes import (
    QUICK,
    Nowhere,
    both,
    connect_both,
    open_both,
    open_through_proxy,
    read_all,
    run,
    taken,
    until,
)
from tests.support.slots import Both, several


def test_status() -> None:
    async def check() -> None:
        caller, listener = await open_both(buffer_size=1000)
        assert caller.status().state is bpipe.State.CONNECTING
        address = caller.status().peer
        await connect_both(caller, listener)
        await caller.write(b"12345")
        await until(lambda: listener.status().received == 5)
        assert await listener.read(3) == b"123"
        await until(lambda: caller.status().confirmed == 3)
        here, there = caller.status(), listener.status()
        assert here.state is there.state is bpipe.State.CONNECTED
        assert here.peer == address != there.peer
        assert (here.buffer_size, here.written, here.unconfirmed) == (1000, 5, 2)
        assert (there.received, there.delivered) == (5, 3)
        assert (here.links, here.replayed, here.outage) == (1, 0, None)
        caller.force_reconnect()
        assert caller.status().state is bpipe.State.RECONNECTING
        assert caller.status().cause == "told to reconnect"
        assert caller.status().outage is not None
        await until(lambda: caller.status().links == 2)
        assert await listener.read() == b"45"
        await asyncio.gather(caller.close(), listener.close())
        last = caller.status()
        assert last.state is bpipe.State.OVER
        assert (last.written, last.confirmed, last.unconfirmed) == (5, 5, 0)
        assert listener.status().received == listener.status().delivered == 5

    run(check)


def test_no_connection_is_looked_for_again_before_one_was_lost() -> None:
    async def check() -> None:
        caller, listener = await open_both()
        seen: list[bpipe.State] = []
        for end in (caller, listener):
            end.engine.observe(lambda end=end: seen.append(end.status().state))  # type: ignore[misc]
        await connect_both(caller, listener)
        await asyncio.gather(caller.close(), listener.close())
        assert bpipe.State.CONNECTED in seen
        assert bpipe.State.RECONNECTING not in seen

    run(check)


def test_a_link_that_replaces_a_silent_one_is_seen_after_the_loss_of_that_one() -> None:
    async def check() -> None:
        calm = QUICK._replace(heartbeat=5.0)  # only the caller's return tells the listener
        cut = Cut(Fault.SILENCE, upward=True, offset=500)
        caller, listener, proxy = await open_through_proxy([cut], calm)
        await connect_both(caller, listener)
        await until(lambda: taken(listener))
        seen: list[tuple[str, str, int]] = []

        def look() -> None:
            status = listener.status()
            now = (status.state, status.peer, status.links)
            if not seen or seen[-1] != now:
                seen.append(now)

        look()
        listener.engine.observe(look)
        await caller.write(bytes(600))
        await until(lambda: proxy.made)
        caller.force_reconnect()
        await until(lambda: listener.status().links == 2 and taken(listener))
        peers = [peer for state, peer, _ in seen if state == bpipe.State.CONNECTED]
        assert len(set(peers)) == 2
        lost = [state for state, *_ in seen].index(bpipe.State.RECONNECTING)
        assert all(links == 1 for *_, links in seen[:lost])
        caller.finish()
        assert await read_all(listener) == bytes(600)
        await asyncio.gather(caller.close(), listener.close())
        await proxy.close()

    run(check)


# --- of a session without a link ---


def look(session: Session, now: float = NOW) -> bpipe.Status:
    """What is known of it while it has no link."""
    source = Nowhere()
    source.refused, source.attempts, source.next_at = 3, 7, NOW + 0.25
    return survey(session, source, {}, now)


def never_up(_: Session) -> None:
    """Nobody was ever there."""


def ended(session: Session) -> None:
    session.leave(NotConnected("nobody answered"))


def unheard(session: Session) -> None:
    """An answerer's, which was attached, and in which nobody was heard."""
    attach(session, caller=False)
    lose(session)


@pytest.mark.parametrize(
    ("before", "state", "gives_up_in", "links"),
    [
        (never_up, State.CONNECTING, None, 0),
        (unheard, State.CONNECTING, None, 0),
        (interrupted, State.RECONNECTING, LIMITS.give_up_after, 1),
        (all_done, State.FINISHING, LIMITS.linger, 1),
        (aborted, State.ABORTING, LIMITS.linger, 1),
        (ended, State.OVER, None, 0),
    ],
)
def test_what_a_session_without_a_link_is_doing(
    before: Callable[[Session], None], state: State, gives_up_in: float | None, links: int
) -> None:
    session = make(b"abc")
    before(session)
    status = look(session)
    assert (status.state, status.links, status.gives_up_in) == (state, links, gives_up_in)
    assert (status.round_trip, status.silence) == (None, None)


def test_what_the_source_says_is_told() -> None:
    status = look(make())
    assert (status.peer, status.refused, status.attempts) == ("nowhere:1", 3, 7)
    assert status.retry_in == 0.25
    assert look(make(), NOW + 1).retry_in == 0


def test_how_long_it_has_been_away_and_why() -> None:
    session = make(b"abc")
    assert (look(session).cause, look(session).cause_code) == ("", "")
    attach(session)
    lose(session, LinkLost("nothing was heard", "silent"), NOW + 6)
    status = look(session, NOW + 8)
    assert (status.outage, status.away) == (2, 8)
    assert status.gives_up_in == LIMITS.give_up_after - 2
    assert (status.cause, status.cause_code) == ("nothing was heard", "silent")
    assert look(session, NOW + 10_000).gives_up_in == 0


def test_the_end_marks_are_no_bytes() -> None:
    session = up(b"abc")
    session.finish()
    said(session)
    hear(session, DATA(0, b"xyz"), FIN(3))
    status = look(session)
    assert (status.finished, status.peer_finished) == (True, True)
    assert (status.written, status.confirmed, status.unconfirmed) == (3, 0, 3)
    assert (status.received, status.delivered) == (3, 0)
    take(session)
    deliver_mark(session)
    hear(session, ACK(4))
    status = look(session)
    assert (status.confirmed, status.unconfirmed) == (3, 0)
    assert (status.received, status.delivered) == (3, 3)


# --- of a link ---


def test_a_link_that_owes_an_answer_is_said_to_be_silent() -> None:
    async def check() -> None:
        calm = QUICK._replace(heartbeat=5.0)
        caller, listener, proxy = await open_through_proxy([], calm)
        await connect_both(caller, listener)
        await caller.write(b"1")
        assert await listener.read() == b"1"
        await until(lambda: caller.status().confirmed == 1)
        proxy.freeze()
        engine, now = caller.engine, clock()
        assert engine.link is not None
        links = {0: engine.link}

        def silence(seconds: float) -> float | None:
            return survey(engine.session, engine.source, links, now + seconds).silence

        assert silence(10) is None  # nothing was asked
        await caller.write(b"2")
        assert silence(OWED / 2) is None
        assert silence(OWED + 1) == pytest.approx(OWED + 1, abs=0.5)
        for pipe in (caller, listener):
            pipe.abort(bpipe.Reason.INTERRUPTED, "enough")
        await proxy.close()
        await asyncio.gather(caller.wait_closed(), listener.wait_closed())

    run(check)


def test_how_long_it_was_away_before_the_link_that_is_up() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            assert caller.status().away is None
            caller.force_reconnect()
            away = caller.status().away
            assert away is not None
            await until(lambda: caller.status().links == 2 and taken(caller))
            first = caller.status().away
            assert first is not None
            assert first >= away
            await asyncio.sleep(0.01)
            assert caller.status().away == first
            assert listener.status().state is State.CONNECTED

    run(check)


# --- of several links ---


async def two_up(at: Both) -> None:
    for pipe in (at.caller, at.listener):
        await until(lambda pipe=pipe: pipe.status().up == 2)  # type: ignore[misc]
        await until(lambda pipe=pipe: pipe.status().round_trip is not None)  # type: ignore[misc]


def test_each_of_several_links_is_told_of() -> None:
    async def check() -> None:
        async with several([(), ()]) as at:
            await two_up(at)
            status, links = at.caller.status(), at.caller.engine.links
            peers = [each.peer for each in status.slots]
            assert peers == [links[slot].peer for slot in range(2)]
            assert len(set(peers)) == 2
            assert (status.state, status.peer) == (State.CONNECTED, peers[0])
            assert (status.links, status.beside, status.reconnects) == (2, 1, 0)
            trips = [each.round_trip for each in status.slots if each.round_trip is not None]
            assert status.round_trip == min(trips)

    run(check)


def test_a_lost_link_of_several_is_told_of_with_the_cause() -> None:
    async def check() -> None:
        async with several([(), ()]) as at:
            await two_up(at)
            other = at.caller.status().slots[1].peer
            at.caller.engine.links[0].fail(LinkLost("cut", "reset"))
            status = at.caller.status()
            lost = status.slots[0]
            assert (lost.up, lost.links, lost.cause, lost.cause_code) == (False, 1, "cut", "reset")
            assert (status.state, status.peer, status.up) == (State.CONNECTED, other, 1)
            assert (status.away, status.outage) == (None, None)
            await until(lambda: at.caller.status().up == 2)
            status = at.caller.status()
            assert [each.links for each in status.slots] == [2, 1]
            assert (status.links, status.beside, status.reconnects) == (3, 2, 1)
            at.caller.force_reconnect()
            assert at.caller.status().state is State.RECONNECTING
            await two_up(at)

    run(check)


def test_silence_is_told_of_if_it_is_over_all_links() -> None:
    async def check() -> None:
        async with several([(), ()], limits=QUICK._replace(heartbeat=5.0)) as at:
            await two_up(at)
            engine, now = at.caller.engine, clock()

            def later(seconds: float) -> bpipe.Status:
                return survey(engine.session, engine.source, engine.links, now + seconds)

            at.proxies[1].freeze()
            engine.links[1].liveness.ask()  # type: ignore[union-attr]
            engine.drive()
            status = later(10)
            assert (status.silence, status.up, status.slots[0].silence) == (None, 1, None)
            assert status.slots[1].silence == pytest.approx(10, abs=1)
            at.proxies[0].freeze()
            engine.links[0].liveness.ask()  # type: ignore[union-attr]
            engine.drive()
            status = later(20)
            assert status.silence == pytest.approx(20, abs=1)
            assert (status.state, status.up) == (State.CONNECTED, 0)

    run(check)


def test_links_that_are_attached_and_not_taken_up_yet_are_no_loss() -> None:
    session = Session(1000, LIMITS, links=2)
    session.establish()
    for slot in range(2):
        channel = SlotChannel(session, Frames(), NOW, slot)
        session.attach(channel, Position(0, 0, 1000, links=2), NOW, slot)
        assert look(session).state is State.CONNECTING
    assert [each.up for each in look(session).slots] == [False, False]
    channel.detach(LinkLost("cut"), NOW)
    assert look(session).state is State.RECONNECTING
