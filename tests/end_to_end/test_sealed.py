"""A sealed session on a network that breaks and one that lies."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from bpipe.protocol.sealed import SealedHandshake
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Proxy, Start, finish

pytestmark = pytest.mark.slow


UP = SealedHandshake.hello_size + SealedHandshake.frame_size  # bytes of a greeting
DOWN = SealedHandshake.verdict_size + SealedHandshake.frame_size
QUICK = ("--heartbeat", "100ms")
EAGER = (*QUICK, "--retry-max", "10ms")
HEARTBEAT = 1.0  # seconds, of an idle session


@pytest.mark.slow
def test_cuts_anywhere(start: Start, key: Path) -> None:
    faults = Fault.RESET, Fault.EOF
    cuts = [Cut(faults[offset % 2], True, offset) for offset in range(0, UP + 100, 7)]
    cuts += [Cut(faults[offset % 2], False, offset) for offset in range(0, DOWN + 100, 7)]
    cuts += [Cut(fault, up, 3 * MIB + 1) for fault in faults for up in (True, False)]
    secret = "--secret", str(key)
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts)
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


def test_a_flipped_bit_of_an_idle_session_is_noticed_within_a_heartbeat(
    start: Start, key: Path
) -> None:
    """Whatever the bit: a length that has grown is not waited for."""
    places = [(True, 0), (False, 5), (True, 15), (False, 31)]  # kind, length, number, and tag
    armed: list[tuple[bool, int]] = []
    flipped: list[float] = []

    def tamper(connection: int, up: bool, offset: int, data: bytes) -> bytes:
        if not armed or up is not armed[0][0] or offset < UP + DOWN:
            return data
        changed = bytearray(data)
        changed[armed.pop()[1]] ^= 1 << connection % 8
        flipped.append(time.monotonic())
        return bytes(changed)

    secret = "--secret", str(key), "--heartbeat", f"{HEARTBEAT}s"
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, stdin=PIPE)
    proxy = start.proxy(listener.address, tamper=tamper)
    caller = start.bpipe("connect", proxy.address, *secret, "--retry-max", "10ms", stdin=PIPE)
    caller.wait_connected()
    for count, place in enumerate(places, start=1):
        armed.append(place)
        until(partial(lambda count: len(flipped) == count, count), "the flip")
        until(partial(lambda count: proxy.faults.connections > count, count), "the next link")
        assert time.monotonic() - flipped[-1] < HEARTBEAT
    for end in (caller, listener):
        end.stdin.close()
    assert finish(caller, listener) == [0, 0]


@pytest.mark.parametrize("name", ["here", "there"])
def test_a_call_that_is_led_to_another_listener_comes_back(
    start: Start, key: Path, path: Path, name: str
) -> None:
    """The other one says that it knows no such session; of another name, it says nothing."""
    front, other = path.with_name("front"), path.with_name("other")
    secret = "--secret", str(key), "--retry-max", "50ms"
    listener = start.bpipe("listen", str(path), *secret[:2], "--name", "here", stdout=PIPE)
    elsewhere = start.bpipe("listen", str(other), *secret[:2], "--name", name)
    cut = Cut(Fault.RESET, True, 3 * MIB)
    right = start.proxy(listener.address, [cut], path.with_name("right"))
    wrong = start.proxy(elsewhere.address, path=path.with_name("wrong"))

    def lead(proxy: Proxy) -> None:
        link = path.with_name("link")
        link.symlink_to(proxy.address.removeprefix("unix:"))
        link.replace(front)

    lead(right)
    caller = start.bpipe("connect", str(front), *secret, "--name", "here", stdin=PIPE)
    caller.wait_connected()
    lead(wrong)
    caller.feed(8 * MIB)
    until(lambda: wrong.faults.connections > 3, "calls that are led astray")
    lead(right)
    assert listener.drain().wait_end() == 8 * MIB
    assert finish(caller, listener) == [0, 0]
    assert elsewhere.running


def test_a_listener_that_was_started_anew_does_not_know_the_session(
    start: Start, key: Path, path: Path
) -> None:
    secret = "--secret", str(key)
    listener = start.bpipe("listen", str(path), *secret, stdout=PIPE)
    listener.wait_line("listening")
    caller = start.bpipe("connect", str(path), *secret, "-vv", stdin=PIPE)
    caller.wait_connected()
    caller.stdin.write(b"12345")
    assert listener.stdout.read(5) == b"12345"
    listener.signal(signal.SIGKILL)
    listener.wait()
    again = start.bpipe("listen", str(path), *secret)
    again.wait_line("listening")
    caller.wait_line("the listener does not know this session", times=2)  # it is final after 30 s
    caller.signal(signal.SIGINT)
    assert caller.wait() == -signal.SIGINT
    assert again.running
