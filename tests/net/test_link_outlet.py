"""A link whose payload goes into a pipe, past the memory of this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from bpipe.errors import LinkLost
from bpipe.net.clock import clock
from bpipe.net.link import MOMENT, Link
from bpipe.net.outlet import Outlet, waiting
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.patience import Limits
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    Admission,
    Kind,
    Position,
    Verdict,
    pack_frame,
    pack_verdict,
)
from tests.support.loopback import Frame
from tests.support.pairs import Files, files

__all__ = ["files"]

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")

SIZE = 1 << 20
CALM = Limits(heartbeat=60)


class Way(NamedTuple):
    """A link that is up, whose other end a test speaks for, and the pipe behind it."""

    session: Session
    link: Link
    far: socket.socket
    out: int  # where the consumer reads
    stdout: int
    busy: list[bool]  # whether the consumer's thread is at work

    def say(self, *frames: Frame) -> None:
        """These come over the link."""
        self.far.sendall(b"".join(frame.encode() for frame in frames))

    def fill(self) -> int:
        """Have the pipe full; returns the bytes that lie in it."""
        os.set_blocking(self.stdout, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.stdout, bytes(1 << 12))
        os.set_blocking(self.stdout, True)
        return waiting(self.out)


@contextlib.asynccontextmanager
async def way(files: Files) -> AsyncIterator[Way]:
    """A fresh one."""
    out, stdout = files.pipe()
    near, far = socket.socketpair()
    near.setblocking(False)
    session, busy = Session(SIZE, CALM), [False]
    link = Link(near, CallerGreeting(Caller(session), clock()), "the listener")
    with far:
        assert len(far.recv(1000)) == HELLO_SIZE
        far.sendall(pack_verdict(Verdict(Admission.OK, Position(0, 0, SIZE))))
        far.sendall(pack_frame(Kind.READY, 0))
        await link.greeted
        link.use(Outlet(stdout, lambda: not busy[0]))
        try:
            yield Way(session, link, far, out, stdout, busy)
        finally:
            link.fail(LinkLost("the test is over"))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def data(offset: int, payload: bytes) -> Frame:
    return Frame(Kind.DATA, offset, payload)


def test_payload_passes_into_the_pipe_and_is_delivered_by_that(files: Files) -> None:
    async def check() -> None:
        async with way(files) as here:
            here.say(data(0, b"first"), data(5, b"second"), Frame(Kind.FIN, 11))
            await until(lambda: here.session.reader.mark is not None)
            reader = here.session.reader
            assert (reader.received, reader.delivered, reader.buffered) == (12, 11, 0)
            assert os.read(here.out, 100) == b"firstsecond"

    run(check)


def test_what_comes_in_pieces_passes_as_it_comes(files: Files) -> None:
    async def check() -> None:
        async with way(files) as here:
            frame = data(0, b"payload").encode()
            for size in range(HEADER_SIZE, len(frame)):
                here.far.sendall(frame[:size] if size == HEADER_SIZE else frame[size - 1 : size])
                count = size - HEADER_SIZE
                await until(lambda count=count: waiting(here.out) == count)  # type: ignore[misc]
                assert here.session.reader.delivered == count

    run(check)


def test_behind_a_thread_that_is_at_work_it_goes_through_memory(files: Files) -> None:
    async def check() -> None:
        async with way(files) as here:
            here.busy[0] = True
            here.say(data(0, b"payload"))
            await until(lambda: here.session.reader.received == 7)
            assert (here.session.reader.buffered, waiting(here.out)) == (7, 0)
            here.busy[0] = False
            here.say(data(7, b"more"))  # which may not overtake
            await until(lambda: here.session.reader.received == 11)
            assert (here.session.reader.buffered, waiting(here.out)) == (11, 0)

    run(check)


def test_a_full_pipe_is_waited_for_a_moment(files: Files) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with way(files) as here:
            held, began = here.fill(), loop.time()
            here.say(data(0, b"payload"))
            await until(lambda: here.session.reader.received == 7)
            assert loop.time() - began >= MOMENT - 0.001
            assert here.session.reader.buffered == 7  # the socket was read anyway
            assert waiting(here.out) == held

    run(check)


def test_a_pipe_that_has_room_again_within_the_moment_goes_on(files: Files) -> None:
    async def check() -> None:
        async with way(files) as here:
            held = here.fill()
            here.say(data(0, b"payload"))
            await asyncio.sleep(0)
            assert len(os.read(here.out, held)) == held
            await until(lambda: here.session.reader.received == 7)
            assert here.session.reader.buffered == 0
            assert os.read(here.out, 100) == b"payload"

    run(check)


@pytest.mark.parametrize("full", [False, True])
def test_the_end_of_the_connection_is_noticed_amid_a_payload(files: Files, full: bool) -> None:
    async def check() -> None:
        async with way(files) as here:
            if full:
                here.fill()
            here.far.sendall(data(0, b"payload").encode()[:-3])
            await asyncio.sleep(0)
            here.far.shutdown(socket.SHUT_WR)
            assert str(await here.link.lost) == "the connection was closed"
            reader = here.session.reader
            assert (reader.received, reader.buffered) == (4, 4 if full else 0)
            assert not here.session.attached

    run(check)


def test_a_link_that_is_failed_while_its_outlet_is_full_lets_go_of_both(files: Files) -> None:
    async def check() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with way(files) as here:
            held = here.fill()
            here.say(data(0, b"payload"))
            await asyncio.sleep(0)
            here.link.fail(LinkLost("told so"))
            os.read(here.out, held)
            await asyncio.sleep(2 * MOMENT)
            assert here.session.reader.received == 0
            assert errors == []

    run(check)
