"""What is known of the consumer behind a descriptor: a pipe's, a socket's, a file's."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpipe.ends.consumer import (
    BROKEN,
    GONE,
    broken,
    close_writing,
    has_left_bytes,
    unread,
)
from tests.end_to_end.data import until
from tests.support.pairs import Files, files, is_closed

__all__ = ["files"]

Sockets = tuple[socket.socket, socket.socket]


def unix() -> Sockets:
    return socket.socketpair()


def tcp() -> Sockets:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        return near, listening.accept()[0]


@pytest.fixture(params=[unix, tcp])
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    make: Callable[[], Sockets] = request.param
    near, far = make()
    with near, far:
        yield near, far


def events(descriptor: int) -> int:
    """What poll says of it when nothing is asked."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return sum(what for _, what in poll.poll(0))


def test_what_lies_in_a_pipe_is_unread_until_it_is_read(files: Files) -> None:
    reader, writer = files.pipe()
    assert unread(writer) == 0
    os.write(writer, b"12345")
    assert unread(writer) == 5
    os.read(reader, 2)
    assert unread(writer) == 3


def test_what_a_unix_socket_has_not_given_is_unread() -> None:
    near, far = unix()
    with near, far:
        near.send(b"12345")
        assert unread(near.fileno()) > 0
        far.recv(100)
        assert unread(near.fileno()) == 0


def test_nobody_knows_what_is_unread_of_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"12345")
        assert unread(file.fileno()) == 0


@pytest.mark.parametrize("left", [b"", b"bytes"])
def test_a_pipe_whose_reader_has_gone(files: Files, left: bytes) -> None:
    reader, writer = files.pipe()
    os.write(writer, left)
    assert not events(writer) & BROKEN
    os.close(reader)
    assert events(writer) & BROKEN
    error = broken(writer)
    assert error.errno == errno.EPIPE
    assert has_left_bytes(writer, error) is bool(left)


def test_a_socket_whose_reader_has_gone(sockets: Sockets) -> None:
    near, far = sockets
    near.send(b"never read")
    far.close()
    until(lambda: events(near.fileno()) & BROKEN, "the reset")
    error = broken(near.fileno())
    assert error.errno == errno.ECONNRESET
    assert error.errno in GONE
    assert has_left_bytes(near.fileno(), error)


def test_a_unix_socket_whose_reader_has_read_all_before_it_left() -> None:
    near, far = unix()
    with near:
        near.send(b"read")
        assert far.recv(100) == b"read"
        far.close()
        error = broken(near.fileno())
        assert error.errno == errno.EPIPE
        assert not has_left_bytes(near.fileno(), error)


def test_closing_ends_the_stream_where_the_producer_has_the_same_socket(sockets: Sockets) -> None:
    near, far = sockets
    copy = os.dup(near.fileno())
    try:
        close_writing(near.detach())
        assert far.recv(100) == b""
        far.send(b"the other way")
        assert os.read(copy, 100) == b"the other way"
    finally:
        os.close(copy)


def test_closing_a_pipe(files: Files) -> None:
    reader, writer = files.pipe()
    close_writing(writer)
    assert is_closed(writer)
    assert os.read(reader, 1) == b""


def test_closing_says_what_could_not_be_kept(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    _, writer = files.pipe()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refuse)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            close_writing(writer)
    assert caught.value.errno == errno.EDQUOT
