"""Those who connect and are no peers, and peers who come too many."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.protocol.wire import (
    HELLO_SIZE,
    VERDICT_SIZE,
    Hello,
    Kind,
    Opening,
    Position,
    pack_frame,
    pack_hello,
)
from tests.end_to_end.data import MIB, SOON
from tests.end_to_end.helpers import Bpipe, Start, finish
from tests.support.strangers import needs_another_user, stranger

RESET = struct.pack("ii", 1, 0)
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
NOISE = random.Random(6).randbytes(4096)
HELLO = pack_hello(Hello(Opening.OPEN, bytes(range(16)), 1, Position(0, 0, 64 * MIB)))


@pytest.fixture
def dial() -> Iterator[Callable[[Bpipe], socket.socket]]:
    """Makes bare connections to a listener."""
    with contextlib.ExitStack() as stack:

        def dial(listener: Bpipe) -> socket.socket:
            kind, _, where = listener.address.rpartition(":")
            if kind == "unix":
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(where)
            else:
                sock = stack.enter_context(socket.create_connection((kind, int(where))))
            sock.settimeout(10)
            return sock

        yield dial


Dial = Callable[[Bpipe], socket.socket]


def closes(sock: socket.socket) -> bytes:
    """What comes from a connection until it is closed."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            found += data
    return found


def serves(start: Start, listener: Bpipe) -> None:
    """The listener serves a real peer, at once and as if nobody else were there."""
    began = time.monotonic()
    caller = start.bpipe("connect", listener.address, stdin=PIPE)
    caller.wait_connected()
    assert time.monotonic() - began < SOON
    caller.feed(5 * MIB)
    assert listener.drain().wait_end() == 5 * MIB
    assert finish(caller, listener) == [0, 0]
    assert not any("lost" in line for line in caller.lines + listener.lines)


@pytest.mark.parametrize("kind", ["tcp", pytest.param("unix", marks=pytest.mark.slow)])
def test_strangers_are_in_nobodys_way(start: Start, path: Path, dial: Dial, kind: str) -> None:
    listener = start.bpipe("listen", str(path) if kind == "unix" else "127.0.0.1:0", stdout=PIPE)
    for said in (b"", HTTP, NOISE, HELLO[: HELLO_SIZE // 2], HELLO):
        dial(listener).sendall(said)
    serves(start, listener)


def test_one_who_speaks_something_else_is_told_nothing(start: Start, dial: Dial) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0")
    for said in (HTTP, NOISE, b"bpip\x02", b"\n"):
        stranger = dial(listener)
        stranger.sendall(said)
        assert closes(stranger) == b""
    assert listener.running


def test_those_who_leave_in_the_greeting_leave_nothing(start: Start, dial: Dial) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    for said in (b"", HELLO[:20], HELLO):
        for how in ("close", "reset", "half close"):
            stranger = dial(listener)
            stranger.sendall(said)
            if how == "reset":
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if how == "half close":
                stranger.shutdown(socket.SHUT_WR)
                closes(stranger)
            else:
                stranger.close()
    serves(start, listener)


def test_a_caller_that_was_never_heard_gives_way(start: Start, dial: Dial) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE, stdout=PIPE)
    listener.feed(5 * MIB)
    stranger = dial(listener)
    stranger.sendall(HELLO)
    with stranger, stranger.makefile("rb") as answer:
        assert len(answer.read(VERDICT_SIZE)) == VERDICT_SIZE
        stranger.sendall(pack_frame(Kind.CONFIRM, 0))
        ready = pack_frame(Kind.READY, 0) + pack_frame(Kind.ACK, 0)
        assert answer.read(len(ready)) == ready
        ping = pack_frame(Kind.PING, 1)
        assert answer.read(len(ping)) == ping  # after a heartbeat; and nothing of the stream
    caller = start.bpipe("connect", listener.address, stdin=PIPE, stdout=PIPE)
    caller.feed(MIB)
    assert caller.drain().wait_end() == 5 * MIB  # from its beginning
    assert listener.drain().wait_end() == MIB
    assert finish(caller, listener) == [0, 0]


@pytest.mark.slow
def test_a_greeting_that_hangs_is_ended(start: Start, dial: Dial) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    stranger = dial(listener)
    stranger.sendall(HELLO[: HELLO_SIZE // 2])
    assert closes(stranger) == b""
    serves(start, listener)


def test_a_hundred_idle_connections(start: Start, path: Path, dial: Dial) -> None:
    listener = start.bpipe("listen", str(path), stdout=PIPE)
    for _ in range(100):
        dial(listener)
    serves(start, listener)


@pytest.mark.slow
def test_connections_that_keep_coming_do_not_disturb_a_live_session(
    start: Start, dial: Dial
) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    caller = start.bpipe("connect", listener.address, stdin=PIPE)
    consumer = listener.drain()
    producer = caller.feed(None)
    for said in [b"", HTTP, HELLO, HELLO[:30], bytes(100)] * 30:
        dial(listener).sendall(said)
    consumer.wait_count(consumer.count + 10 * MIB)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    assert not any("lost" in line for line in caller.lines + listener.lines)


def test_a_second_caller_is_told_that_the_listener_is_busy(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    first = start.bpipe("connect", str(path), stdin=PIPE)
    first.wait_connected()
    began = time.monotonic()
    second = start.bpipe("connect", str(path), stdin=PIPE)
    assert second.wait() == 3
    assert time.monotonic() - began < SOON
    (line,) = second.lines
    busy = f"bpipe: unix:{path}: busy: the listener is serving another session, "
    assert re.fullmatch(re.escape(busy) + r"heard \d s ago", line)
    first.feed(MIB)
    assert listener.drain().wait_end() == MIB
    listener.stdin.close()
    assert finish(first, listener) == [0, 0]


@pytest.mark.slow
def test_a_caller_whose_link_is_lost_keeps_its_listener(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address)
    first = start.bpipe("connect", proxy.address, "--heartbeat", "200ms", stdin=PIPE)
    first.wait_connected()
    first.feed(10)
    assert listener.drain().wait_end() == 10
    proxy.freeze()
    first.wait_lost()
    second = start.bpipe("connect", listener.address)
    assert second.wait() == 3
    proxy.thaw()
    first.wait_back()
    listener.stdin.close()
    assert finish(first, listener) == [0, 0]


def test_three_links_of_junk_end_the_session_and_the_listener(start: Start) -> None:
    """Also when each of them is lost before anybody but the event loop has seen it."""
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE)
    host, _, port = listener.address.rpartition(":")
    for epoch in range(1, 4):
        opening = Opening.OPEN if epoch == 1 else Opening.RESUME
        hello = Hello(opening, bytes(16), epoch, Position(0, 0, 1000))
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(pack_hello(hello) + pack_frame(Kind.CONFIRM, 0) + b"\xff" * 16)
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1000):
                    pass
    assert listener.wait() == 1
    assert "protocol error" in listener.text


@needs_another_user
def test_a_listener_is_not_joined_to_another_user_of_the_machine(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE)
    host, _, port = listener.address.rpartition(":")
    with stranger(socket.AF_INET, host, int(port)) as he:
        assert he.hear(HELLO) == b""
    listener.wait_line("1 caller refused: .*another user.*--insecure")
    caller = start.bpipe("connect", listener.address)
    caller.wait_connected()


@needs_another_user
@pytest.mark.parametrize("insecure", [False, True], ids=["", "insecure"])
def test_a_caller_is_not_joined_to_another_user_of_the_machine(
    start: Start, insecure: bool
) -> None:
    with stranger(socket.AF_INET, "127.0.0.1") as he:
        options = ["--insecure"] if insecure else []
        address = f"127.0.0.1:{he.port}"
        caller = start.bpipe("connect", address, "--connect-timeout", "0", *options, stdin=PIPE)
        he.accept()
        if insecure:
            assert len(he.hear(b"")) == HELLO_SIZE
        assert caller.wait() == 3
        assert ("another user" in caller.text) is not insecure
