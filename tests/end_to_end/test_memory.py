"""Memory stays bounded, whatever the two ends of the pipe do."""

from __future__ import annotations

import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.cli.keys import write_key
from bpipe.ends.source_pump import LARGEST_READ
from bpipe.engine import READ_AHEAD
from tests.end_to_end.data import MIB, held
from tests.end_to_end.helpers import Start, finish

PROGRAM = 40 * MIB  # the interpreter and its modules
SEALING = 12 * MIB  # what encryption takes beside them


@pytest.mark.parametrize(
    ("sender", "option", "size", "sealed"),
    [
        ("connect", "1M", MIB, False),
        pytest.param("listen", "64M", 64 * MIB, False, marks=pytest.mark.slow),
        pytest.param("listen", "64M", 64 * MIB, True, marks=pytest.mark.slow),
    ],
)
def test_a_stalled_receiver_and_an_endless_producer(
    start: Start, tmp_path: Path, option: str, size: int, sender: str, sealed: bool
) -> None:
    options = ["--buffer", option]
    if sealed:
        write_key(tmp_path / "key")
        options += ["--secret", str(tmp_path / "key")]
    listener = start.bpipe("listen", "127.0.0.1:0", *options, stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", listener.address, *options, stdin=PIPE, stdout=PIPE)
    most = size + PROGRAM + sealed * SEALING
    sending, receiving = (caller, listener) if sender == "connect" else (listener, caller)
    producer = sending.feed(None)
    producer.wait_stuck(size)
    for end in (sending, receiving):
        assert end.peak_memory < most
    consumer = receiving.drain()
    consumer.wait_count(producer.written + 2 * size)  # and it goes on
    for end in (sending, receiving):
        assert end.peak_memory < most
    on_the_way = producer.written - held(receiving.stdout) - consumer.count
    assert on_the_way <= size + 2 * MIB  # in the producer's pipe, and being looked at


@pytest.mark.slow
def test_a_buffer_smaller_than_a_frame(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "--buffer", "100", stdout=PIPE)
    caller = start.bpipe("connect", listener.address, "--buffer", "1", stdin=PIPE)
    caller.feed(100)
    assert listener.drain().wait_end() == 100
    assert finish(caller, listener) == [0, 0]


def test_a_link_is_not_read_far_ahead_of_and_an_outage_has_the_whole_buffer(start: Start) -> None:
    receiving = start.bpipe("listen", "127.0.0.1:0", "--buffer", "1M", stdout=PIPE)
    sending = start.bpipe("connect", receiving.address, "--buffer", "32M", stdin=PIPE)
    producer = sending.feed(None)
    producer.wait_stuck(4 * MIB)
    unsent = 1 + READ_AHEAD // MIB + LARGEST_READ // MIB  # in stdin's pipe, and read from it
    assert producer.written - held(receiving.stdout) <= (unsent + 1) * MIB  # and in the window
    receiving.signal(signal.SIGKILL)
    producer.wait_stuck(32 * MIB)
