"""Ends whose stream the peer writes to a file, whatever is behind them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import bpipe
from bpipe.ends import program_streams
from bpipe.ends.local import Ends
from bpipe.ends.program import Program
from bpipe.ends.program_errors import RemoteProgram
from bpipe.ends.scheduling import LoopScheduling
from bpipe.ends.sockets import Connected
from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams
from bpipe.errors import LocalAbort, PeerAborted
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Reason
from bpipe.run.join import Join, Outcome
from tests.support.pairs import Files, files, is_closed, run, until
from tests.support.receiver import BLOCK, NEEDS, Receiver
from tests.support.records import pair

__all__ = ["files"]

DATA = os.urandom(100 * BLOCK + 1000)
BASE = bytes(BLOCK) + DATA[BLOCK:]  # one block is to be sent
EQUAL = len(DATA) - BLOCK

Launch = Callable[[Sequence[str]], Ends]
PROGRAMS = pytest.mark.parametrize("launch", [Program, RemoteProgram])


class Both(NamedTuple):
    """A receiver, and a sender that some ends are joined to."""

    receiver: Receiver
    sender: bpipe.BackedPipe
    sending: asyncio.Task[Outcome]


@asynccontextmanager
async def joined(ends: Ends) -> AsyncIterator[Both]:
    async with pair(NEEDS) as (caller, listener):
        sending = asyncio.create_task(Join(caller, ends, LoopScheduling()).run())
        await listener.connect()
        yield Both(Receiver(listener, BASE), caller, sending)


def stdio(files: Files, directions: Directions = Directions()) -> tuple[Stdio, int, int]:  # noqa: B008
    """Our own stdin and stdout: the ends, where to feed, and what is stdout."""
    (stdin, feed), (_, stdout) = files.pipe(), files.pipe()
    return Stdio(Streams(stdin, stdout, False, False), directions), feed, stdout


async def give(descriptor: int, data: bytes = DATA) -> None:
    """All of it, and the end."""

    def write() -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.close(descriptor)

    await asyncio.to_thread(write)


def compared(sender: bpipe.BackedPipe) -> int:
    tally = sender.status().tally
    return tally.compared if tally is not None else 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with what is to be sent."""
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("directions", [Directions(), Directions(send_only=True)])
def test_stdin_is_compared_and_stdout_has_its_end_at_once(
    files: Files, directions: Directions
) -> None:
    async def check() -> None:
        ends, feed, stdout = stdio(files, directions)
        async with joined(ends) as (receiver, sender, sending):
            if ends.receives:
                await until(lambda: is_closed(stdout))
            telling = asyncio.ensure_future(receiver.tell_all())
            giving = asyncio.ensure_future(give(feed))
            assert await receiver.take() == DATA
            await asyncio.gather(telling, giving)
            outcome = await sending
            assert outcome.failure is None
            assert outcome.status.tally == (len(DATA), EQUAL, BLOCK, False)
            assert receiver.assembly.whole
            assert sender.reader.stopped is None
            assert is_closed(stdout) is ends.receives

    run(check)


def test_a_pump_goes_on_with_each_digest_that_comes(files: Files) -> None:
    async def check() -> None:
        ends, feed, _ = stdio(files)
        async with joined(ends) as (receiver, sender, sending):
            taking = asyncio.ensure_future(receiver.take())
            giving = asyncio.ensure_future(give(feed))
            await receiver.tell_base()
            for count in range(100):
                await receiver.tell(1)
                await until(lambda: compared(sender) == (count + 1) * BLOCK)  # noqa: B023
            await giving
            assert not sender.status().finished
            await receiver.tell()
            assert await taking == DATA
            receiver.pipe.finish()
            assert (await sending).failure is None

    run(check)


def test_a_pump_that_waits_for_a_digest_ends_with_the_session(files: Files) -> None:
    async def check() -> None:
        ends, feed, _ = stdio(files)
        async with joined(ends) as (receiver, sender, sending):
            await receiver.tell_base()
            await asyncio.to_thread(os.write, feed, DATA[: 2 * BLOCK])
            await until(lambda: sender.engine.session.terms.records)
            receiver.pipe.abort(Reason.LOCAL_ERROR, "no space left")
            outcome = await sending
            assert isinstance(outcome.failure, PeerAborted)
            with pytest.raises(BrokenPipeError):  # it may have to be seen first that it is closed
                await give(feed, bytes(1 << 24))

    run(check)


def test_nobody_takes_an_end_that_sends_nothing_for_an_empty_file(files: Files) -> None:
    async def check() -> None:
        ends, _, _ = stdio(files, Directions(recv_only=True))
        async with joined(ends) as (receiver, _, sending):
            with pytest.raises(PeerAborted, match="nothing is sent, so there is no file"):
                await receiver.take()
            assert isinstance((await sending).failure, LocalAbort)

    run(check)


@PROGRAMS
def test_a_program_reads_nothing_and_its_last_block_waits(launch: Launch, source: Path) -> None:
    async def check() -> None:
        program = launch(["sh", "-c", f"cat; cat {source}"])
        async with joined(program) as (receiver, sender, sending):
            taking = asyncio.ensure_future(receiver.take())
            await receiver.tell_base()
            await receiver.tell(100)
            await until(lambda: program.result)
            assert not sender.status().finished
            await receiver.tell()
            assert await taking == DATA
            assert receiver.assembly.whole
            assert receiver.pipe.reader.ended == Finish(Ended.EXITED, 0)
            receiver.pipe.finish()
            outcome = await sending
            assert outcome.failure is None
            assert outcome.status.tally == (len(DATA), EQUAL, BLOCK, False)

    run(check)


@PROGRAMS
@pytest.mark.parametrize(
    ("end", "how"),
    [("exit 3", Finish(Ended.EXITED, 3)), ("kill -9 $$", Finish(Ended.KILLED, 9))],
)
def test_of_one_that_fails_nobody_makes_a_file(
    launch: Launch, source: Path, end: str, how: Finish
) -> None:
    async def check() -> None:
        async with joined(launch(["sh", "-c", f"cat {source}; {end}"])) as (receiver, _, sending):
            await receiver.tell_base()
            await receiver.tell(100)
            receiver.pipe.finish()
            assert await receiver.take() == DATA
            assert not receiver.assembly.whole
            assert receiver.pipe.reader.ended == how
            outcome = await sending
            assert (outcome.failure, outcome.near) == (None, how)

    run(check)


def test_the_end_waits_for_the_exit_also_of_one_that_goes_on(
    files: Files, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    monkeypatch.setattr(program_streams, "OUTPUT_LINGER", 0.01)
    reader, writer = files.pipe()

    async def check() -> None:
        wait = f"exec >&-; read line < /proc/{os.getpid()}/fd/{reader}"
        program = Program(["sh", "-c", f"cat {source}; {wait}"])
        async with joined(program) as (receiver, sender, sending):
            await receiver.tell_all()
            taking = asyncio.ensure_future(receiver.take())
            await until(lambda: compared(sender) == 100 * BLOCK)
            await asyncio.sleep(0.1)  # in which it would be told
            assert not sender.status().finished
            os.write(writer, b"\n")
            assert await taking == DATA
            assert receiver.pipe.reader.ended == Finish(Ended.EXITED, 0)
            assert receiver.assembly.whole
            assert (await sending).failure is None

    run(check)


def test_what_a_far_program_says_goes_past_the_file(source: Path) -> None:
    async def check() -> None:
        say = "for i in 1 2 3 4 5 6 7 8 9; do head -c 9000 <&3; echo $i >&2; done; cat <&3"
        program = RemoteProgram(["sh", "-c", f"exec 3< {source}; {say}"])
        async with joined(program) as (receiver, _, sending):
            telling = asyncio.ensure_future(receiver.tell_all())
            assert await receiver.take() == DATA
            await telling
            assert receiver.errors.split() == b"1 2 3 4 5 6 7 8 9".split()
            assert receiver.assembly.whole
            assert (await sending).failure is None

    run(check)


def test_a_socket_has_its_end_at_once_and_what_it_gives_is_compared() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        owner, ours = socket.socketpair()
        owner.setblocking(False)
        async with joined(Connected(ours, "the socket")) as (receiver, _, sending):
            assert await loop.sock_recv(owner, 1) == b""
            telling = asyncio.ensure_future(receiver.tell_all())
            taking = asyncio.ensure_future(receiver.take())
            await loop.sock_sendall(owner, DATA)
            owner.close()
            assert await taking == DATA
            await telling
            assert receiver.pipe.reader.ended == UNTOLD
            assert receiver.assembly.whole
            assert (await sending).failure is None

    run(check)
