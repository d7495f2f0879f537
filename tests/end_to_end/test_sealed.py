"""A sealed session on a network that breaks and one that lies."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from bpipe.protocol.sealed import SealedHandshake
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Start, finish

pytestmark = pytest.mark.slow


UP = SealedHandshake.hello_size + SealedHandshake.frame_size  # bytes of a greeting
DOWN = SealedHandshake.verdict_size + SealedHandshake.frame_size
QUICK = ("--heartbeat", "100ms")
EAGER = (*QUICK, "--retry-max", "10ms")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_cuts_anywhere(start: Start, key: Path, path: Path, kind: str) -> None:
    faults = Fault.RESET, Fault.EOF
    cuts = [Cut(faults[offset % 2], True, offset) for offset in range(0, UP + 100, 7)]
    cuts += [Cut(faults[offset % 2], False, offset) for offset in range(0, DOWN + 100, 7)]
    cuts += [Cut(fault, up, 3 * MIB + 1) for fault in faults for up in (True, False)]
    unix = kind == "unix"
    secret = "--secret", str(key)
    where = str(path) if unix else "127.0.0.1:0"
    listener = start.bpipe("listen", where, *secret, *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts, path.with_name("proxy") if unix else None)
    caller = start.bpipe("connect", proxy.address, *secret, *EAGER, stdin=PIPE, stdout=PIPE)
    producers = caller.feed(None), listener.feed(None, offset=5)
    consumers = listener.drain(), caller.drain(offset=5)
    until(lambda: len(proxy.faults.made) == len(cuts), "the last cut", 60)
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]


@pytest.mark.slow
def test_a_flipped_bit_ends_the_link_and_not_the_session(start: Start, key: Path) -> None:
    places = [
        *((True, offset) for offset in range(0, UP + 40, 5)),
        *((False, offset) for offset in range(0, DOWN + 40, 5)),
        *((upward, MIB + offset) for upward in (True, False) for offset in range(3)),
    ]
    flipped = []

    def tamper(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        where = places[connection - 1] if connection <= len(places) else None
        if where is None or where[0] != upward or not offset <= where[1] < offset + len(data):
            return data
        flipped.append(where)
        changed = bytearray(data)
        changed[where[1] - offset] ^= 1 << connection % 8
        return bytes(changed)

    secret = "--secret", str(key)
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, tamper=tamper)
    caller = start.bpipe("connect", proxy.address, *secret, *EAGER, stdin=PIPE, stdout=PIPE)
    producers = caller.feed(None), listener.feed(None, offset=5)
    consumers = listener.drain(), caller.drain(offset=5)
    until(lambda: proxy.faults.connections > len(places), "the link after the last flip", 60)
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    assert len(flipped) > len(places) * 9 // 10
    assert "protocol error" not in listener.text + caller.text


def test_a_listener_that_was_started_anew_does_not_know_the_session(
    start: Start, key: Path, path: Path
) -> None:
    secret = "--secret", str(key)
    listener = start.bpipe("listen", str(path), *secret, stdout=PIPE)
    listener.wait_line("listening")
    caller = start.bpipe("connect", str(path), *secret, stdin=PIPE)
    caller.wait_connected()
    caller.stdin.write(b"12345")
    assert listener.stdout.read(5) == b"12345"
    listener.signal(signal.SIGKILL)
    listener.wait()
    again = start.bpipe("listen", str(path), *secret)
    again.wait_line("listening")
    assert caller.wait() == 4
    assert re.search("no longer knows this session; . bytes are confirmed, . more", caller.text)
    assert again.running
