"""The two streams of a socket that is the ends of a pipe."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket

import pytest

import bpipe
from bpipe.protocol.wire import Ended, Finish
from tests.support.pipes import QUICK, run, until
from tests.support.tunnels import (
    Owner,
    Pair,
    Tunnel,
    is_whole,
    owners,
    tcp,
    unix,
    with_owners,
    with_peer,
)

pytestmark = pytest.mark.slow  # real processes and sockets; the default Python only

DATA = random.Random(17).randbytes(6_000_000)
EITHER = pytest.mark.parametrize("pair", [tcp, unix])

# --- streams ---


@EITHER
def test_what_one_owner_writes_the_other_one_reads_both_ways_at_once(pair: Pair) -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        back = DATA[::-1]

        async def write(owner: Owner, data: bytes) -> None:
            await owner.send(data)
            owner.finish()

        _, _, there, here = await asyncio.gather(
            write(near, DATA), write(far, back), far.rest(), near.rest()
        )
        assert hashlib.sha256(there).digest() == hashlib.sha256(DATA).digest()
        assert hashlib.sha256(here).digest() == hashlib.sha256(back).digest()
        await is_whole(both)

    with_owners(test, pair)


@EITHER
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_end_of_one_direction_leaves_the_other_one_open(pair: Pair, mirrored: bool) -> None:
    async def test(asking: Owner, answering: Owner, both: Tunnel) -> None:
        await asking.send(b"a question")
        asking.finish()
        assert await answering.rest() == b"a question"
        await answering.send(b"an answer")
        assert await asking.take(9) == b"an answer"
        assert not both.near.done()
        answering.finish()
        assert await asking.rest() == b""
        await is_whole(both)

    with_owners(test, pair, mirrored=mirrored)


def test_a_closed_socket_is_the_end_of_its_stream() -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        await near.send(b"all")
        near.sock.close()
        assert await far.rest() == b"all"
        far.sock.close()
        await is_whole(both)

    with_owners(test)


def test_bytes_wait_in_the_owners_socket_while_the_other_one_takes_nothing() -> None:
    async def check() -> None:
        limits = QUICK._replace(heartbeat=60)  # no PING has anything looked at
        async with owners(limits=limits, buffer_size=1 << 20) as (near, far, both):
            sending = asyncio.create_task(near.send(DATA + DATA + DATA))
            await until(lambda: both.caller.writer.room == 0 and both.listener.reader.buffered)
            assert not sending.done()
            assert await far.take(3 * len(DATA)) == 3 * DATA
            await sending

    run(check)


def test_a_stream_is_delivered_when_the_owners_system_has_all_of_it() -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        amount = 8 << 20  # more than the kernel holds for a reader that does not read
        far.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        await near.send(bytes(amount))
        near.finish()
        reader = both.listener.reader
        await until(lambda: reader.mark is not None)
        got = 0
        while got < amount:
            assert not reader.done
            got += len(await far.take(1 << 16))
        assert await far.rest() == b""
        await until(lambda: reader.done)

    with_owners(test)


def test_a_unix_stream_is_delivered_when_its_owner_has_read_all_of_it() -> None:
    async def test(near: Owner, far: Owner, both: Tunnel) -> None:
        await near.send(b"all")
        near.finish()
        await until(lambda: both.listener.reader.drained)
        for _ in range(20):
            await asyncio.sleep(0.002)
            assert not both.listener.reader.done
        assert await far.take(3) == b"all"
        await until(lambda: both.listener.reader.done)

    with_owners(test, unix)


def test_what_a_failed_producer_has_sent_is_never_whole() -> None:
    async def test(peer: bpipe.BackedPipe, owner: Owner, _: bpipe.BackedPipe) -> None:
        await peer.write(b"a part")
        peer.engine.finish(ended=Finish(Ended.EXITED, 3))
        assert await owner.take(6) == b"a part"
        with pytest.raises(ConnectionResetError):
            await owner.rest()
        assert await peer.read() == b""
        assert peer.reader.finish == Finish(Ended.CUT)

    with_peer(test)


# --- a peer that takes nothing more ---


def test_what_is_not_wanted_is_read_and_discarded() -> None:
    async def test(peer: bpipe.BackedPipe, owner: Owner, pipe: bpipe.BackedPipe) -> None:
        peer.stop()
        await until(lambda: pipe.writer.unwanted)
        await peer.write(b"a question")
        peer.finish()
        await owner.send(DATA)
        assert await owner.rest() == b"a question"
        owner.sock.close()
        await peer.wait_closed()
        assert pipe.writer.written == 0

    with_peer(test)


def test_one_who_says_nothing_more_to_a_peer_that_has_left_is_closed_in_order() -> None:
    async def test(peer: bpipe.BackedPipe, owner: Owner, pipe: bpipe.BackedPipe) -> None:
        peer.engine.session.program_left()
        await peer.write(b"an answer")
        peer.finish()
        assert await owner.rest() == b"an answer"
        owner.sock.close()

    with_peer(test)


def test_one_who_does_not_end_is_reset_when_the_peer_that_has_left_is_answered() -> None:
    """Nobody knows whether there was more."""

    async def test(peer: bpipe.BackedPipe, owner: Owner, pipe: bpipe.BackedPipe) -> None:
        peer.engine.session.program_left()
        peer.finish()
        await pipe.wait_closed()
        await until(lambda: owner.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    with_peer(test, bpipe.PipeClosed)
