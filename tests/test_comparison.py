"""A stream that the peer writes to a file, as programs send it: what crosses, and how it ends."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest

import bpipe
from bpipe.comparison import PIECE, Comparison
from bpipe.errors import LocalAbort, PeerAborted
from bpipe.protocol.frames import Frames
from bpipe.protocol.records import RECORD_HEADER, Record, pack_header
from bpipe.protocol.session import Session
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Position, Reason
from bpipe.status import Tally
from tests.support.pairs import run, until
from tests.support.peer import DATA as DATA_FRAME
from tests.support.peer import FIN, LIMITS, NOW, hear, join
from tests.support.pipes import Nowhere, read_all, send, taken
from tests.support.receiver import BLOCK, NEEDS, Receiver
from tests.support.records import both

DATA = os.urandom(100 * BLOCK + 1000)


def changed(data: bytes, *offsets: int) -> bytes:
    """A bit of it, at each of these."""
    found = bytearray(data)
    for offset in offsets:
        found[offset] ^= 1
    return bytes(found)


async def drives(pipe: bpipe.BackedPipe) -> int:
    """How often something happens within a moment: an ACK, perhaps, or a sign of life."""
    count = 0

    def look() -> None:
        nonlocal count
        count += 1

    pipe.engine.observe(look)
    await asyncio.sleep(0.05)
    return count


@pytest.mark.parametrize(
    ("base", "moved"),
    [
        (b"", len(DATA)),
        (DATA, 0),
        (DATA + b"more", 1000),  # the last block of the stream is short, and none of the base
        (DATA[: 60 * BLOCK], len(DATA) - 60 * BLOCK),
        (DATA[: 60 * BLOCK + 7], len(DATA) - 60 * BLOCK),
        (changed(DATA, 5, 3 * BLOCK, 3 * BLOCK + 1, len(DATA) - 1), 2 * BLOCK + 1000),
        (os.urandom(len(DATA)), len(DATA)),
    ],
)
def test_what_lies_there_does_not_cross(base: bytes, moved: int) -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, base)
            telling = asyncio.ensure_future(receiver.tell_all())
            sending = asyncio.ensure_future(send(caller, DATA))
            assert await receiver.take() == DATA
            await asyncio.gather(telling, sending)
            assert receiver.assembly.whole
            assert await read_all(caller) == b""
            for pipe in (caller, listener):
                await pipe.wait_closed()
                assert pipe.failure is None
            status, there = caller.status(), listener.status()
            compared = min(-(-len(base) // BLOCK) * BLOCK, len(DATA))
            assert status.tally is not None
            assert status.tally._replace(compared=0) == Tally(0, len(DATA) - moved, moved)
            assert status.tally.compared in (compared, compared // BLOCK * BLOCK)
            assert (status.written, status.confirmed, there.received) == (moved,) * 3
            assert (status.received, there.written, there.confirmed) == (0, 0, 0)

    run(check)


def test_the_last_block_waits_for_its_digest_and_the_end_for_that() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, DATA)
            taking = asyncio.ensure_future(receiver.take())
            await receiver.tell_base()
            await receiver.tell(100)
            await caller.write(DATA)
            caller.finish()
            with pytest.raises(ValueError, match="finished"):
                await caller.write(b"x")
            await until(lambda: receiver.assembly.at == 100 * BLOCK)  # it may wait for that
            assert not caller.status().finished
            await receiver.tell()
            assert await taking == DATA
            assert receiver.assembly.tally.moved == 0

    run(check)


def test_a_receiver_may_tell_one_digest_after_the_other() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, DATA)
            taking = asyncio.ensure_future(receiver.take())
            await receiver.tell_base()
            sending = asyncio.ensure_future(send(caller, DATA))
            for number in range(101):
                await until(lambda: receiver.assembly.at == number * BLOCK)  # noqa: B023
                await receiver.tell(1)
            assert await taking == DATA
            await sending
            assert receiver.assembly.tally.moved == 0

    run(check)


def test_it_does_not_wait_for_one_of_a_stream_that_is_cut_or_when_no_more_come() -> None:
    async def check() -> None:
        for cut in (True, False):
            async with both(NEEDS) as (caller, listener):
                receiver = Receiver(listener, DATA)
                taking = asyncio.ensure_future(receiver.take())
                await receiver.tell_base()
                await receiver.tell(100)
                await caller.write(DATA)
                caller.finish(more=cut)
                if not cut:
                    listener.finish()
                assert await taking == DATA
                assert receiver.assembly.whole is not cut
                assert receiver.assembly.tally.moved == 1000
                assert listener.reader.ended == (Finish(Ended.CUT) if cut else UNTOLD)

    run(check)


def test_an_end_that_waits_may_still_turn_out_to_be_a_cut() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, DATA)
            await receiver.tell_base()
            taking = asyncio.ensure_future(receiver.take())
            await receiver.tell(100)
            await caller.write(DATA)
            for more in (False, True, False):
                caller.finish(more=more)
            assert await taking == DATA
            assert not receiver.assembly.whole

    run(check)


def test_nothing_at_all_is_a_file_too() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, DATA)
            caller.finish()
            assert await receiver.take() == b""
            await receiver.tell_all()
            await caller.close()
            assert caller.reader.stopped is None
            assert receiver.assembly.whole
            await listener.wait_closed()
            assert listener.failure is None

    run(check)


def test_a_sender_holds_no_more_digests_than_it_may() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, bytes(6 << 20), 64)  # 3 MiB of digests
            telling = asyncio.ensure_future(receiver.tell_all())
            await caller.write(b"x")
            await until(lambda: caller.reader.buffered > (1 << 20) - 1024)
            held = caller.reader.delivered
            assert await drives(caller) < 10
            most = (1 << 20) + PIECE
            assert held <= most + (most // 512 + 2) * RECORD_HEADER
            await caller.write(bytes(64 * 1000))
            await until(lambda: caller.reader.delivered > held)
            telling.cancel()

    run(check)


def test_lost_links_change_nothing() -> None:
    async def check() -> None:
        base = changed(DATA, 7 * BLOCK, 70 * BLOCK)
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, base)
            taking = asyncio.ensure_future(receiver.take())
            await receiver.tell_base()
            sending = asyncio.ensure_future(send(caller, DATA))
            for number in range(101):
                await receiver.tell(1)
                if number % 20 == 0:
                    links = listener.status().links
                    cutter = caller if number % 40 else listener
                    await until(partial(taken, cutter))
                    cutter.force_reconnect()
                    await until(lambda: listener.status().links > links)  # noqa: B023
            listener.finish()
            assert await taking == DATA
            await sending
            assert receiver.assembly.tally.moved == 2 * BLOCK

    run(check)


def test_after_a_failure_nothing_goes_round_in_circles() -> None:
    async def check() -> None:
        session = Session(1 << 20, LIMITS)
        caller = bpipe.BackedPipe(session, Nowhere(), lambda: NOW)
        join(session, Position(0, 0, 1 << 20, needs=NEEDS[1]), Frames())
        comparison = Comparison(caller.engine)
        caller.abort(Reason.LOCAL_ERROR, "a mistake")
        hear(session, DATA_FRAME(0, pack_header(Record.BASE, 16) + bytes(16)), FIN(24))
        assert session.reader.mark == 24  # nothing of what was before it is kept
        assert await drives(caller) < 10
        comparison.finish()
        assert caller.status().finished
        session.leave(None)

    run(check)


@pytest.mark.parametrize("finished", [False, True])
def test_who_waits_for_a_digest_hears_that_there_will_be_none(finished: bool) -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            receiver = Receiver(listener, DATA)
            await receiver.tell_base()
            await caller.write(DATA[:BLOCK])  # all that can be held back
            if finished:
                caller.finish()
            waiting = caller.close() if finished else caller.write(b"x")
            listener.abort(Reason.LOCAL_ERROR, "the disk is full")
            with pytest.raises(PeerAborted, match="the disk is full"):
                await waiting

    run(check)


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        (Record.DATA, b"x", "a record that cannot be"),
        (Record.SAME, bytes(7) + b"\1", "a record that cannot be"),
        (Record.DIGESTS, bytes(32), "a digest of no block"),
        (None, b"", "does not tell its base"),
    ],
)
def test_a_receiver_that_says_something_else_ends_both(
    kind: Record | None, data: bytes, why: str
) -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            writing = asyncio.ensure_future(caller.write(b"x"))
            if kind is not None:
                await Receiver(listener).say(kind, data)
            listener.finish()
            with pytest.raises(LocalAbort, match=why):
                await writing
            await listener.wait_closed()
            assert isinstance(listener.failure, PeerAborted)

    run(check)


def test_one_that_compares_nothing_sends_all_and_a_whole_file() -> None:
    async def check() -> None:
        async with both(NEEDS) as (caller, listener):
            caller.engine.session.terms.send_whole()
            receiver = Receiver(listener, DATA)
            await receiver.tell_all()
            sending = asyncio.ensure_future(send(caller, DATA))
            assert await receiver.take() == DATA
            await sending
            assert receiver.assembly.whole
            assert caller.status().tally == Tally(0, 0, len(DATA))

    run(check)
