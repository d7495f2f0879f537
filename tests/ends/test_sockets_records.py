"""Sockets, and programs, as the ends of a session that needs records."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

import bpipe
from bpipe.ends.program import Program
from bpipe.ends.sockets import Connected
from bpipe.errors import LocalAbort
from bpipe.protocol.wire import Ended, Finish
from tests.support.pairs import run, until
from tests.support.pipes import read_all, send
from tests.support.records import both

DATA = os.urandom(3_000_000)


def connected(pipe: bpipe.BackedPipe) -> tuple[socket.socket, Connected]:
    """The owner of a socket that is joined to this pipe."""
    owner, ours = socket.socketpair()
    owner.setblocking(False)
    ends = Connected(ours, "the socket")
    ends.start(pipe.engine)
    return owner, ends


async def everything(sock: socket.socket) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(sock, 1 << 20):
        found += data
    return found


def raw(pipe: bpipe.BackedPipe, data: bytes) -> None:
    """These bytes go on the stream as they are."""
    pipe.writer.space(len(data))[0][:] = data
    pipe.writer.wrote(len(data))
    pipe.engine.drive()


def test_both_directions_of_a_socket_are_carried() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with both() as pipes:
            owners, ends = zip(*map(connected, pipes), strict=True)

            async def say(sock: socket.socket) -> None:
                await loop.sock_sendall(sock, DATA)
                sock.shutdown(socket.SHUT_WR)

            said = [asyncio.ensure_future(say(owner)) for owner in owners]
            assert await asyncio.gather(*map(everything, owners)) == [DATA, DATA]
            await asyncio.gather(*said)
            for owner, end, pipe in zip(owners, ends, pipes, strict=True):
                await pipe.wait_closed()
                assert pipe.failure is None
                await end.wait()
                owner.close()

    run(check)


def test_half_a_header_wakes_nobody() -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            owner, ends = connected(listener)
            for byte in b"\1\0\0\0\0\0\0\1":
                raw(caller, bytes([byte]))
                await until(lambda: listener.reader.received == caller.writer.written)
            calls = 0

            def count() -> None:
                nonlocal calls
                calls += 1

            listener.engine.observe(count)
            await asyncio.sleep(0.05)
            assert calls < 10  # an ACK or a sign of life, perhaps
            raw(caller, b"x")
            assert await asyncio.get_running_loop().sock_recv(owner, 9) == b"x"
            await ends.wait()
            owner.close()

    run(check)


@pytest.mark.parametrize("said", [b"\1\0", b"\1\0\0\0\0\0\0\2", b"\1\0\0\0\0\0\0\2x"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_that_ends_within_a_record(said: bytes, cut: bool) -> None:
    async def check() -> None:
        async with both() as (caller, listener):
            owner, ends = connected(listener)
            raw(caller, said)
            await until(lambda: listener.reader.received == len(said))
            if said.endswith(b"x"):
                assert await asyncio.get_running_loop().sock_recv(owner, 9) == b"x"
            caller.engine.finish(ended=Finish(Ended.CUT) if cut else Finish())
            if cut:  # the owner must not take it for a whole one; nobody is to blame
                await until(lambda: caller.writer.done)
            else:
                await listener.wait_closed()
                assert isinstance(listener.failure, LocalAbort)
                assert "ends within a record" in str(listener.failure)
            await ends.wait()
            owner.close()

    run(check)


def test_a_program_reads_and_writes_what_is_in_the_records() -> None:
    async def check() -> None:
        program = Program(["cat"])
        async with both() as (caller, listener):
            program.start(listener.engine)
            sending = asyncio.ensure_future(send(caller, DATA))
            assert await read_all(caller) == DATA
            await sending
            await caller.wait_closed()
            assert caller.failure is listener.failure is None
            assert caller.reader.finish == Finish(Ended.EXITED, 0)
        await program.wait()

    run(check)


@pytest.mark.parametrize("said", [b"", b"\1\0", b"\1\0\0\0\0\0\0\2", b"\1\0\0\0\0\0\0\2x"])
def test_one_whose_stream_was_cut_does_not_see_its_end(said: bytes) -> None:
    async def check() -> None:
        program = Program(["sh", "-c", "cat >&2; exit 6"])
        async with both() as (caller, listener):
            program.start(listener.engine)
            raw(caller, b"\1\0\0\0\0\0\0\1\n" + said)
            caller.engine.finish(ended=Finish(Ended.CUT))
            assert await read_all(caller) == b""
            assert caller.reader.finish.how is Ended.CUT
            await program.wait()
            assert program.result == Finish(Ended.KILLED, 15)

    run(check)
