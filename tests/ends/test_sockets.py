"""Connected sockets as the ends of two pipes, in one event loop with their owners."""

from __future__ import annotations

import asyncio
import os
import random
import socket

import pytest

import bpipe
from bpipe.demo.faults import Cut, Fault
from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.sockets import Connected, Dialled
from bpipe.errors import PeerAborted, PipeClosed
from bpipe.net.address import Address, parse
from bpipe.run.join import Join
from tests.support.pipes import QUICK, connect_both, open_both, open_through_proxy, run, until
from tests.support.tunnels import (
    Owner,
    Pair,
    Tunnel,
    accept,
    is_whole,
    joined,
    owners,
    service,
    tcp,
    tunnel,
    unix,
    with_owners,
)

pytestmark = pytest.mark.slow  # real processes and sockets; the default Python only

DATA = random.Random(17).randbytes(6_000_000)
EITHER = pytest.mark.parametrize("pair", [tcp, unix])


async def is_left(both: Tunnel) -> None:
    for outcome in await both.outcomes():
        assert isinstance(outcome.failure, PipeClosed)
        assert "connection was closed before everything was taken" in str(outcome.failure)


# --- streams ---


def test_an_echo_goes_on_over_links_that_break() -> None:
    rng = random.Random(3)
    cuts = [Cut(rng.choice([Fault.RESET, Fault.EOF]), True, rng.randrange(9000)) for _ in range(30)]
    data = DATA[:200_000]

    async def echo(listening: socket.socket) -> None:
        with await accept(listening) as sock:
            owner = Owner(sock)
            while piece := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
                await owner.send(piece)

    async def check() -> None:
        caller, listener, proxy = await open_through_proxy(cuts)
        near, ours = tcp()
        with service() as (listening, address):
            serving = asyncio.create_task(echo(listening))
            ends = Connected(ours, "the near connection"), Dialled(parse(address))
            async with joined(caller, listener, *ends) as both:
                with near:
                    owner = Owner(near)
                    reading = asyncio.create_task(owner.rest())
                    await owner.send(data)
                    owner.finish()
                    assert await reading == data
                    await is_whole(both)
            await serving
        assert len(proxy.made) >= 10
        await proxy.close()

    run(check)


# --- what goes wrong ---


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reset_comes_out_as_a_reset_after_what_was_sent_before(mirrored: bool) -> None:
    async def test(resetting: Owner, other: Owner, both: Tunnel) -> None:
        await resetting.send(b"the last words")
        await until(lambda: both.caller.writer.written + both.listener.writer.written)
        resetting.reset()
        assert await other.take(14) == b"the last words"
        with pytest.raises(ConnectionResetError):
            await other.rest()
        assert {type(each.failure) for each in await both.outcomes()} == {
            bpipe.LocalAbort,
            PeerAborted,
        }
        name = "far" if mirrored else "near"
        for outcome in await both.outcomes():
            assert f"the {name} connection was reset" in str(outcome.failure)

    with_owners(test, mirrored=mirrored)


def test_what_was_sent_before_a_reset_is_carried_over_the_next_link() -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        await near.send(b"hello")
        assert await far.take(5) == b"hello"
        both.caller.force_reconnect()
        await near.send(b"the last words")
        near.reset()
        assert await far.take(14) == b"the last words"
        with pytest.raises(ConnectionResetError):
            await far.rest()

    with_owners(test)


@pytest.mark.parametrize("ends", [False, True])
def test_one_who_has_left_is_missed_when_the_first_byte_comes(ends: bool) -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        far.sock.close()
        assert await near.rest() == b""
        await near.send(b"x")
        if ends:
            near.finish()
        await is_left(both)

    with_owners(test)


@pytest.mark.parametrize("aborts", ["caller", "listener"])
def test_a_session_that_fails_resets_both_sockets(aborts: str) -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        await near.send(b"a part")
        assert await far.take(6) == b"a part"
        near.finish()
        getattr(both, aborts).abort(bpipe.Reason.INTERRUPTED, "no more")
        for owner in (near, far):
            with pytest.raises(ConnectionResetError):
                await owner.rest()

    with_owners(test)


def test_a_peer_that_is_lost_resets_the_socket() -> None:
    async def check() -> None:
        limits = QUICK._replace(give_up_after=0.1)
        async with owners(limits=limits) as (near, far, both):
            await near.send(b"a part")
            assert await far.take(6) == b"a part"
            await both.caller.engine.source.close()
            await both.listener.engine.source.close()
            for pipe in (both.caller, both.listener):
                pipe.force_reconnect()
            for owner in (near, far):
                with pytest.raises(ConnectionResetError):
                    await owner.rest()

    run(check)


@EITHER
@pytest.mark.parametrize("mirrored", [False, True])
def test_one_who_leaves_early_has_still_said_everything(pair: Pair, mirrored: bool) -> None:
    """Closed after an answer, with bytes that it will never take: as with a plain connection."""

    async def test(asking: Owner, leaving: Owner, both: Tunnel) -> None:
        await leaving.send(b"an answer")
        leaving.sock.close()
        assert await asking.take(9) == b"an answer"
        assert await asking.rest() == b""
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await asking.send_for_ever()
        await is_left(both)

    with_owners(test, pair, mirrored=mirrored)


def test_a_unix_socket_that_is_closed_with_bytes_unread_is_reset() -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        await near.send(b"unread")
        await until(lambda: both.listener.reader.delivered == 6)
        far.sock.close()
        near_end, far_end = await both.outcomes()
        assert isinstance(near_end.failure, PeerAborted)
        assert "the far connection was reset" in str(far_end.failure)

    with_owners(test, unix)


# --- a service that is called ---


def test_a_service_is_called_when_the_session_is_established_and_not_before() -> None:
    async def check() -> None:
        with service() as (listening, address):
            dialled = Dialled(parse(address))
            caller, listener = await open_both()
            dialled.start(listener.engine)
            for _ in range(10):
                await asyncio.sleep(0.002)
                with pytest.raises(BlockingIOError):
                    listening.accept()
            await connect_both(caller, listener)
            with await accept(listening) as served:
                assert listener.engine.session.established
                await caller.write(b"hello")
                assert await Owner(served).take(5) == b"hello"
            await caller.close()
            await listener.wait_closed()
            await dialled.wait()

    run(check)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "cannot connect to 127.0.0.1:1: connection refused"),
        ("unix:/nowhere", "cannot connect to unix:/nowhere: no such file or directory"),
        ("nowhere.invalid:22", "cannot connect to nowhere.invalid:22: cannot resolve nowhere"),
    ],
)
def test_a_service_that_is_not_there_is_told_and_comes_out_as_a_reset(
    address: str, said: str
) -> None:
    async def check() -> None:
        owner, ours = tcp()
        with owner:
            async with tunnel(Connected(ours, "it"), Dialled(parse(address))) as both:
                with pytest.raises(ConnectionResetError):
                    await Owner(owner).rest()
                near, far = await both.outcomes()
                assert isinstance(near.failure, PeerAborted)
                assert said in str(near.failure)
                assert said in str(far.failure)

    run(check)


def full(listening: socket.socket) -> list[socket.socket]:
    """Have nobody else get through to it."""
    waiting = []
    for _ in range(3):
        sock = socket.socket(listening.family)
        sock.setblocking(False)
        sock.connect_ex(listening.getsockname())
        waiting.append(sock)
    return waiting


def test_a_service_that_does_not_answer_is_given_up() -> None:
    async def check() -> None:
        with service(backlog=0) as (listening, address):
            waiting = full(listening)
            owner, ours = tcp()
            with owner:
                dialled = Dialled(parse(address), limit=0.1)
                async with tunnel(Connected(ours, "it"), dialled) as both:
                    near, _ = await both.outcomes()
                    said = f"cannot connect to {address}: no answer in 0.1 s"
                    assert said in str(near.failure)
            for sock in waiting:
                sock.close()

    run(check)


def test_nothing_is_taken_while_a_service_is_called_and_a_session_that_ends_ends_that() -> None:
    async def check() -> None:
        before = len(os.listdir("/dev/fd"))
        with service(backlog=0) as (listening, address):
            waiting = full(listening)
            owner, ours = tcp()
            with owner:
                dialled = Dialled(parse(address), limit=60)
                async with tunnel(Connected(ours, "it"), dialled) as both:
                    await Owner(owner).send(b"hello")
                    await until(lambda: both.listener.reader.buffered == 5)
                    assert both.listener.reader.delivered == 0
                    both.caller.abort(bpipe.Reason.INTERRUPTED, "no more")
                    await both.outcomes()
            for sock in waiting:
                sock.close()
        await until(lambda: len(os.listdir("/dev/fd")) <= before)

    run(check)


def test_a_socket_whose_session_was_never_there_is_reset() -> None:
    async def check() -> None:
        owner, ours = tcp()
        limits = QUICK._replace(connect_timeout=0.0)
        pipe = await bpipe.connect(Address(port=1), limits=limits)
        with owner:
            ends = Connected(ours, "it")
            outcome = await Join(pipe, ends, LoopScheduling()).run()
            assert isinstance(outcome.failure, bpipe.NotConnected)
            with pytest.raises(ConnectionResetError):
                await Owner(owner).rest()

    run(check)
