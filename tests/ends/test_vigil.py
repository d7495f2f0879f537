"""What the guard's process does with what it hears; the rest is in ``test_guard``."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from bpipe.ends.vigil import ENDED, LET_GO, PIPE, RECORD, STARTED, cut_short, watch
from tests.support.pairs import Files, files

__all__ = ["files"]


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of bpipe, and of the guard."""
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no business of the guard's."""
    with subprocess.Popen(["sleep", "999"]) as process:
        yield process
        process.kill()


def test_all_is_heard_that_was_said_before_the_end(
    sockets: tuple[socket.socket, socket.socket], files: Files, other: subprocess.Popen[bytes]
) -> None:
    ours, its = sockets
    pipes = [files.pipe() for _ in range(3)]
    for key, (_, writing) in enumerate(pipes):
        socket.send_fds(ours, [RECORD.pack(PIPE, key, 0, b"")], [writing])
        os.close(writing)
        ours.send(RECORD.pack(STARTED, key, other.pid, b""))
    ours.send(RECORD.pack(LET_GO, 1, 0, b""))
    ours.send(RECORD.pack(ENDED, 2, 0, b""))
    ours.close()  # so nobody hears its answer
    held = watch(its)
    assert sorted(held) == [0, 2]
    assert os.read(pipes[1][0], 1) == b""
    cut_short([held[2]])  # it has ended by itself, and its number is another's
    assert os.read(pipes[2][0], 1) == b""
    assert other.poll() is None
    held[0].close()


def test_what_is_let_go_is_answered(
    sockets: tuple[socket.socket, socket.socket], files: Files
) -> None:
    ours, its = sockets
    reading, writing = files.pipe()
    socket.send_fds(ours, [RECORD.pack(PIPE, 7, 0, b"")], [writing])
    os.close(writing)
    record = RECORD.pack(LET_GO, 7, 0, b"")
    ours.send(record)
    ours.send(record[:3])  # nothing that was cut off is followed
    ours.shutdown(socket.SHUT_WR)
    assert watch(its) == {}
    assert ours.recv(99) == record
    assert os.read(reading, 1) == b""


def test_a_socket_that_breaks_has_ended() -> None:
    ours, its = socket.socketpair()
    ours.close()
    its.close()
    assert watch(its) == {}
