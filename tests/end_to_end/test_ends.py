"""How a session ends: half-close, consumers that leave early, and directions that are not used."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.end_to_end.data import MIB, PATIENCE, SOON, until
from tests.end_to_end.helpers import Start, finish

WAYS = pytest.mark.parametrize(("near", "far"), [("connect", "listen"), ("listen", "connect")])
HINT = "^bpipe: the peer has finished; waiting for the end of stdin.*--recv-only"


@pytest.mark.parametrize("sender", ["connect", "listen"])
def test_head_at_the_far_side_ends_the_near_producer(start: Start, sender: str) -> None:
    yes = start.program("yes", stdout=PIPE)
    if sender == "connect":
        far = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
        near = start.bpipe("connect", far.address, stdin=yes)
    else:
        near = start.bpipe("listen", "127.0.0.1:0", stdin=yes)
        far = start.bpipe("connect", near.address, stdout=PIPE)
    head = start.program("head", "-c", "1M", stdin=far, stdout=PIPE)
    assert head.read_all() == b"y\n" * (MIB // 2)
    assert head.wait() == 0
    ended = time.monotonic()
    assert finish(near, far, yes) == [141, 141, -13]
    assert time.monotonic() - ended < SOON


def test_a_consumer_that_leaves_while_nothing_moves_ends_both(start: Start, path: Path) -> None:
    far = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    near = start.bpipe("connect", str(path), stdin=PIPE)
    near.wait_connected()
    far.stdout.close()
    assert finish(far, near) == [141, 141]
    assert "closed its pipe" in near.text


@pytest.mark.smoke
@WAYS
def test_the_answer_comes_after_the_request_has_ended(
    start: Start, path: Path, near: str, far: str
) -> None:
    asking = start.bpipe(near, str(path), stdin=PIPE, stdout=PIPE)
    answering = start.bpipe(far, str(path), stdin=PIPE, stdout=PIPE)
    asking.stdin.write(b"hi\n")
    asking.stdin.close()
    assert answering.read_all() == b"hi\n"  # up to its end: the half-close has arrived
    for piece in (b"a", b"slow", b"answer"):
        answering.stdin.write(piece)
        assert os.read(asking.stdout.fileno(), 100) == piece
    answering.stdin.close()
    assert asking.read_all() == b""
    assert finish(asking, answering) == [0, 0]


def test_one_direction_goes_on_beside_an_empty_one(start: Start, path: Path) -> None:
    receiving = start.bpipe("connect", str(path), stdout=PIPE)
    sending = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    assert sending.read_all() == b""  # the end of the empty direction
    sending.feed(5 * MIB)
    assert receiving.drain().wait_end() == 5 * MIB
    assert finish(receiving, sending) == [0, 0]


@pytest.mark.slow
def test_two_blocked_stdouts_do_not_deadlock_the_two_directions(start: Start) -> None:
    total = 200_000_000
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", listener.address, stdin=PIPE, stdout=PIPE)
    producers = [listener.feed(total, offset=0), caller.feed(total, offset=777)]
    for producer in producers:
        producer.wait_stuck(64 * MIB)  # the buffer is full
    consumers = [caller.drain(offset=0), listener.drain(offset=777)]
    assert [consumer.wait_end() for consumer in consumers] == [total, total]
    assert finish(caller, listener) == [0, 0]


def test_recv_only_does_not_read_stdin(start: Start, path: Path) -> None:
    receiving = start.bpipe("listen", str(path), "--recv-only", stdin=PIPE, stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE, stdout=PIPE)
    receiving.stdin.write(b"not for you")
    sending.feed(MIB)
    assert receiving.drain().wait_end() == MIB
    assert sending.read_all() == b""
    assert finish(receiving, sending) == [0, 0]


@WAYS
def test_send_only_takes_nothing_and_ends_the_peers_producer(
    start: Start, path: Path, near: str, far: str
) -> None:
    yes = start.program("yes", stdout=PIPE)
    sending = start.bpipe(near, str(path), "--send-only", stdin=PIPE, stdout=PIPE)
    receiving = start.bpipe(far, str(path), stdin=yes, stdout=PIPE)
    assert yes.wait() == -13  # while the other direction goes on
    sending.feed(MIB)
    assert receiving.drain().wait_end() == MIB
    assert sending.read_all() == b""
    assert finish(sending, receiving) == [0, 141]


def test_send_only_needs_no_end_of_a_peers_idle_stdin(start: Start, path: Path) -> None:
    sending = start.bpipe("connect", str(path), "--send-only", stdin=PIPE)
    receiving = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    sending.feed(MIB)
    assert receiving.drain().wait_end() == MIB
    assert finish(sending, receiving) == [0, 0]


@pytest.mark.parametrize("option", ["--send-only", "--recv-only"])
def test_two_ends_that_use_the_same_direction_have_nothing_to_do(
    start: Start, path: Path, option: str
) -> None:
    listener = start.bpipe("listen", str(path), option)
    caller = start.bpipe("connect", str(path), option)
    assert finish(listener, caller) == [0, 0]


@pytest.mark.slow
def test_a_hint_when_only_stdin_is_waited_for(start: Start, path: Path) -> None:
    told = path.with_name("told")  # by an option that stdin is what matters
    start.bpipe("listen", str(told), "--recv-only")
    sending = start.bpipe("connect", str(told), "--send-only", stdin=PIPE)
    sending.wait_connected()
    away = path.with_name("away")
    start.bpipe("listen", str(away), "--recv-only")
    stopped = start.bpipe("connect", str(away), "-v", stdin=PIPE)
    stopped.wait_line("^bpipe: the peer has finished, after")
    stopped.signal(signal.SIGSTOP)  # so that it could not read its stdin
    waiting = start.bpipe("listen", str(path), stdin=PIPE)
    ended = start.bpipe("connect", str(path))
    waiting.wait_connected()
    connected = time.monotonic()
    waiting.wait_line(HINT)
    assert time.monotonic() - connected > 1
    waiting.stdin.close()
    assert finish(waiting, ended) == [0, 0]
    assert len([line for line in waiting.lines if "recv-only" in line]) == 1
    assert "recv-only" not in sending.text
    stopped.signal(signal.SIGCONT)
    stopped.signal(signal.SIGUSR1)
    stopped.wait_line("^bpipe: (connected|reconnecting) .* [01] reconnects?$")
    assert "recv-only" not in stopped.text


@pytest.mark.slow
def test_no_hint_for_a_stdin_that_waits_for_a_slow_peer(start: Start, path: Path) -> None:
    slow = start.bpipe("listen", "--buffer", "64K", str(path), stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    sending.wait_connected()
    sending.feed(16 * MIB)  # more than is read ahead of a link, and less than the buffer
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 4.6, "twice the time of the hint to pass")
    assert "recv-only" not in sending.text
    assert slow.drain().wait_end() == 16 * MIB
    assert finish(sending, slow) == [0, 0]


@pytest.mark.slow
def test_no_hint_for_a_stdin_that_has_ended(start: Start, path: Path) -> None:
    sending = start.bpipe("listen", str(path), stdin=PIPE)
    stalled = start.bpipe("connect", str(path), stdin=PIPE, stdout=PIPE)
    producer = sending.feed(2 * MIB)  # more than fits into a pipe that nobody reads
    producer.thread.join(PATIENCE)
    sending.wait_connected()
    stalled.stdin.close()
    finished = time.monotonic()
    until(lambda: time.monotonic() - finished > 2.6, "the time of the hint to pass")
    assert stalled.drain().wait_end() == 2 * MIB
    assert finish(sending, stalled) == [0, 0]
    assert "recv-only" not in sending.text + stalled.text


@pytest.mark.parametrize("listens", [True, False])
def test_what_comes_for_a_tcp_consumer_that_has_closed_is_not_delivered(
    start: Start, path: Path, listens: bool
) -> None:
    """It had everything then, and the system accepts more for a moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    commands = [("listen", "--recv-only"), ("connect", "--send-only")]
    if not listens:
        commands = [("listen", "--send-only"), ("connect", "--recv-only")]
    ends = []
    for command, option in commands:
        receives = option == "--recv-only"
        streams: dict[str, Any] = {"stdout": ours} if receives else {"stdin": PIPE}
        ends.append(start.bpipe(command, str(path), option, **streams))
        if not ends[1:]:
            ends[0].wait_line("listening")
    sender = ends[1] if listens else ends[0]
    with ours, theirs:
        sender.stdin.write(b"0123456789")
        sender.stdin.flush()
        assert theirs.recv(10) == b"0123456789"
        theirs.close()
        sender.stdin.write(b"0123456789")
        sender.stdin.close()
        assert finish(*ends) == [141, 141]
