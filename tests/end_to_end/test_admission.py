"""Nobody gets in, and nobody is in the way: a listener among many who do not know its secret."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import statistics
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.cli.keys import load_secret
from bpipe.protocol.greeting import GREETING_TIMEOUT, begin
from bpipe.protocol.wire import Hello, Opening, Position
from tests.end_to_end.data import MIB, SOON
from tests.end_to_end.helpers import Start, finish
from tests.end_to_end.storm import (
    SMALL,
    Recorder,
    Storm,
    endpoint,
    greet,
    storm_a_listener,
    storm_a_session,
)

NOISY = 0.5  # seconds: for what is to take 50 ms where nothing else runs

needs_descriptors = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < SMALL.silent + SMALL.slow + 1500,
    reason="not enough descriptors are allowed here for a storm",
)


def everything(sock: socket.socket) -> bytes:
    """What comes from a connection until it is closed."""
    sock.settimeout(10)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1000):
            found += data
    return found


@needs_descriptors
@pytest.mark.slow
def test_a_session_does_not_notice_a_storm(key: Path) -> None:
    outcome = storm_a_session(SMALL, key)
    assert outcome.wrong == []
    assert outcome.seen["open"] > SMALL.silent
    assert outcome.moved > 10 * MIB


@needs_descriptors
@pytest.mark.slow
def test_honest_callers_get_in_during_a_storm(key: Path) -> None:
    outcome = storm_a_listener(SMALL, key)
    assert outcome.wrong == []
    assert outcome.seen["made"]["replay"] > 100
    assert statistics.median(outcome.times) < NOISY  # what is late is late for other reasons, too


@pytest.mark.slow
def test_greetings_that_look_right_keep_nobody_waiting(key: Path) -> None:
    """A thousand of them a second, from somebody who has one processor."""
    flood = SMALL._replace(silent=0, slow=0, junk=0, forged=1000, replay=0, processor=0)
    outcome = storm_a_listener(flood, key)
    assert outcome.wrong == []
    assert outcome.seen["made"]["forged"] > 1000
    assert statistics.median(outcome.times) < NOISY  # a tenth of that where nothing else runs


@pytest.mark.slow
def test_a_listener_that_may_open_forty_files_serves_its_caller_all_the_same(
    start: Start, key: Path
) -> None:
    few = 'ulimit -n 40; exec "$@"'
    secret = "--secret", str(key)
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, shell=few, stdout=PIPE)
    where = endpoint(listener.address)
    recorder = Recorder()
    proxy = endpoint(start.proxy(listener.address, tamper=recorder).address)
    asyncio.run(greet(proxy, load_secret(key)))
    size = SMALL._replace(silent=300, seconds=0.0)
    storm = Storm(start, listener, size, list(recorder.hellos.values()))
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(socket.create_connection(where))
        caller = start.bpipe("connect", listener.address, *secret, stdin=PIPE)
        caller.wait_connected()
        outcome = storm.end()
    assert 0 < outcome.descriptors <= 40
    caller.feed(MIB)
    assert listener.drain().wait_end() == MIB
    assert finish(caller, listener) == [0, 0]


@pytest.mark.slow
def test_who_does_not_complete_a_greeting_is_cut_five_seconds_after_he_came(
    start: Start, key: Path
) -> None:
    """He may say one byte after the other of the right greeting, or all of it and not confirm."""
    listener = start.bpipe("listen", "127.0.0.1:0", "--secret", str(key))
    handshake = begin(load_secret(key))
    hello = handshake.pack_hello(Hello(Opening.OPEN, bytes(16), 1, Position(0, 0, 1)))
    where = endpoint(listener.address)
    with socket.create_connection(where) as slow, socket.create_connection(where) as idle:
        began = time.monotonic()
        idle.sendall(hello)
        for byte in hello:
            slow.send(bytes([byte]))
            if select.select([slow], [], [], 0.2)[0]:  # nothing is said to him: it is the end
                break
        assert everything(slow) == b""
        assert len(everything(idle)) == handshake.verdict_size
        assert GREETING_TIMEOUT - 0.1 < time.monotonic() - began < GREETING_TIMEOUT + SOON
