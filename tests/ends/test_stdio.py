"""stdin and stdout as the ends of a pipe: which of them is used, and in which direction."""

from __future__ import annotations

import os

import pytest

from bpipe.ends.stdio import Stdio
from bpipe.ends.streams import Directions, Streams
from bpipe.errors import LocalAbort
from tests.support.pairs import Files, both, drain, files, is_closed, run, take, until

__all__ = ["files"]

BOTH, SEND, RECEIVE = Directions(), Directions(send_only=True), Directions(recv_only=True)


@pytest.mark.parametrize(
    ("directions", "sends", "receives"),
    [(BOTH, True, True), (SEND, True, False), (RECEIVE, False, True)],
)
def test_which_directions_there_are(directions: Directions, sends: bool, receives: bool) -> None:
    stdio = Stdio(Streams(0, 1, False, False), directions)
    assert (stdio.sends, stdio.receives) == (sends, receives)


def test_a_terminal_is_not_read_where_the_data_goes_elsewhere() -> None:
    assert not Stdio(Streams(0, 1, True, False), BOTH).sends


def test_both_are_moved_and_what_is_written_is_seen_before(files: Files) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        out, stdout = files.pipe()
        seen = bytearray()
        async with both() as (caller, listener):
            streams = Streams(stdin, stdout, False, False)
            stdio = Stdio(streams, BOTH, lambda views: seen.extend(b"".join(views)))
            stdio.start(caller.engine)
            os.write(feed, b"out")
            assert await take(listener, 3) == b"out"
            data = bytes(1 << 17)  # more than the event loop writes by itself
            await listener.write(data)
            assert await drain(out, len(data)) == data
            os.close(feed)
            listener.finish()
            assert await listener.read() == b""
            await until(lambda: is_closed(stdout))
        assert not set(seen) - {0}

    run(check)


def test_a_stdin_that_is_not_read_is_closed(files: Files) -> None:
    async def check() -> None:
        stdin, feed = files.pipe()
        _, stdout = files.pipe()
        async with both() as (caller, _):
            Stdio(Streams(stdin, stdout, False, False), RECEIVE).start(caller.engine)
            with pytest.raises(BrokenPipeError):
                os.write(feed, b"x")
            assert not is_closed(stdout)

    run(check)


def test_a_stdout_that_carries_nothing_is_left_alone(files: Files) -> None:
    async def check() -> None:
        stdin, _ = files.pipe()
        out, stdout = files.pipe()
        async with both() as (caller, _):
            caller.stop()
            Stdio(Streams(stdin, stdout, False, False), SEND).start(caller.engine)
            os.write(stdout, b"words")
            assert os.read(out, 100) == b"words"

    run(check)


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_an_error_names_the_stream(files: Files, name: str) -> None:
    async def check() -> None:
        reader, writer = files.pipe()
        folder = os.open("/", os.O_RDONLY)
        stdin = folder if name == "stdin" else reader
        stdout = folder if name == "stdout" else writer
        async with both() as (caller, listener):
            Stdio(Streams(stdin, stdout, False, False), BOTH).start(caller.engine)
            await listener.write(b"x")
            await caller.wait_closed()
            assert isinstance(caller.failure, LocalAbort)
            assert name in str(caller.failure)

    run(check)
