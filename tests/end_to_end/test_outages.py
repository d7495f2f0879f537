"""The network is away, or one end is: what is noticed, how soon, and what is said in the end."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, SOON, until
from tests.end_to_end.helpers import Bpipe, Start, finish

QUICK = ("--heartbeat", "200ms")
LOST = r"^bpipe: (\S+: )?gave up after \d+ s without a connection: "


def confirmed(end: Bpipe) -> int:
    """How many bytes it says are confirmed."""
    found = re.search(r"(\d+) bytes? (?:are |is )?confirmed", end.text)
    assert found is not None, end.text
    return int(found[1])


# --- one end is gone ---


@pytest.mark.slow
def test_a_killed_receiver_is_given_up_and_what_it_has_taken_is_said(
    start: Start, path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with copy.open("wb") as sink:
        receiving = start.bpipe("listen", str(path), stdout=sink)
    sending = start.bpipe("connect", str(path), "--give-up-after", "3", stdin=PIPE)
    producer = sending.feed(None)
    producer.wait_written(100 * MIB)
    receiving.signal(signal.SIGKILL)
    killed = time.monotonic()
    assert sending.wait() == 4
    assert time.monotonic() - killed > 2.5
    sending.wait_line(LOST)
    assert 30 * MIB < confirmed(sending) <= copy.stat().st_size
    producer.wait_broken()


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [("connect", "listen"), pytest.param("listen", "connect", marks=pytest.mark.slow)],
)
def test_the_end_that_is_left_never_exits_0(
    start: Start, path: Path, sender: str, receiver: str
) -> None:
    receiving = start.bpipe(receiver, str(path), "--give-up-after", "500ms", stdout=PIPE)
    sending = start.bpipe(sender, str(path), stdin=PIPE)
    sending.feed(None)
    consumer = receiving.drain()
    consumer.wait_count(20 * MIB)
    sending.signal(signal.SIGKILL)
    assert receiving.wait() == 4
    receiving.wait_line(LOST)
    assert consumer.wait_end() >= 20 * MIB


@pytest.mark.slow
def test_a_listener_that_was_started_anew_does_not_go_on_with_the_old_stream(
    start: Start, path: Path
) -> None:
    first = start.bpipe("listen", str(path), stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    sending.feed(None)
    first.drain().wait_count(20 * MIB)
    first.signal(signal.SIGKILL)
    first.wait()
    second = start.bpipe("listen", str(path), stdout=PIPE)
    assert sending.wait() == 4
    assert "no longer knows this session" in sending.text
    assert confirmed(sending) > 0
    assert second.running
    assert "connected" not in second.text
    third = start.bpipe("connect", str(path), stdin=PIPE)  # it serves whoever comes next
    third.feed(MIB)
    assert second.drain().wait_end() == MIB
    assert finish(second, third) == [0, 0]


@pytest.mark.slow
def test_a_process_that_was_stopped_for_ten_seconds_goes_on(start: Start, tmp_path: Path) -> None:
    pairs = []
    for stopped in ("sender", "receiver"):
        receiving = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
        sending = start.bpipe("connect", receiving.address, stdin=PIPE)
        pairs.append((receiving, sending, (sending if stopped == "sender" else receiving)))
    streams = [(sending.feed(100 * MIB), receiving.drain()) for receiving, sending, _ in pairs]
    for (_, consumer), (receiving, sending, victim) in zip(streams, pairs, strict=True):
        consumer.wait_count(10 * MIB)
        victim.signal(signal.SIGSTOP)
        assert receiving.running
        assert sending.running
    stopped_at = time.monotonic()
    for receiving, sending, victim in pairs:
        (sending if victim is receiving else receiving).wait_lost(15)  # three heartbeats
    until(lambda: time.monotonic() - stopped_at >= 10, "ten seconds to pass")
    for _, _, victim in pairs:
        victim.signal(signal.SIGCONT)
    for (_, consumer), (receiving, sending, _) in zip(streams, pairs, strict=True):
        assert consumer.wait_end() == 100 * MIB
        assert finish(receiving, sending) == [0, 0]


@pytest.mark.slow
def test_the_only_connection_is_not_given_up_because_its_listener_was_stopped(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "--give-up-after", "0", stdout=PIPE)
    caller = start.bpipe("connect", listener.address, "--give-up-after", "0", stdin=PIPE)
    consumer = listener.drain()
    caller.feed(100 * MIB)
    consumer.wait_count(10 * MIB)
    listener.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    until(lambda: time.monotonic() - stopped_at >= 2.5, "a link to be in doubt for a second")
    listener.signal(signal.SIGCONT)
    assert consumer.wait_end() == 100 * MIB
    assert finish(caller, listener) == [0, 0]
    assert "lost" not in caller.text


# --- the path is away ---


@pytest.mark.slow
def test_silence_is_noticed_at_both_ends_and_a_path_that_returns_is_used(start: Start) -> None:
    receiving = start.bpipe("listen", "127.0.0.1:0", *QUICK, stdout=PIPE)
    proxy = start.proxy(receiving.address)
    sending = start.bpipe("connect", proxy.address, *QUICK, stdin=PIPE)
    producer = sending.feed(None)
    consumer = receiving.drain()
    for outage in (1, 2):
        consumer.wait_count(consumer.count + 5 * MIB)
        proxy.freeze()
        frozen = time.monotonic()
        for end in (receiving, sending):
            end.wait_lost(3 * 0.2 + SOON, times=outage)
        assert time.monotonic() - frozen > 0.3
        proxy.thaw()
        for end in (receiving, sending):
            end.wait_back(SOON, times=outage)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert finish(receiving, sending) == [0, 0]


@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.ONE_WAY])
def test_a_silent_connection_is_replaced_when_a_new_one_is_answered(
    start: Start, fault: Fault
) -> None:
    receiving = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    proxy = start.proxy(receiving.address, [Cut(fault, False, 400)])
    sending = start.bpipe("connect", proxy.address, "--heartbeat", "5", stdin=PIPE)
    producer, consumer = sending.feed(None), receiving.drain()
    why = r"nothing was heard for (\d\.\d) s, and a new connection is answered"
    silence = re.search(why, sending.wait_line(why))
    assert silence is not None
    assert 1.2 <= float(silence[1]) < 5  # what was sent is owed an answer, whatever the heartbeat
    sending.wait_back(SOON)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert finish(receiving, sending) == [0, 0]


@pytest.mark.slow
def test_an_idle_session_outlives_an_outage(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address)
    caller = start.bpipe("connect", proxy.address, *QUICK, stdin=PIPE, stdout=PIPE)
    caller.wait_connected()
    proxy.freeze()
    for end in (caller, listener):
        end.wait_lost(3 * 0.2 + SOON)
    caller.feed(10)
    proxy.thaw()
    assert listener.drain().wait_end() == 10
    listener.stdin.close()
    assert finish(caller, listener) == [0, 0]


# --- before the first link ---


@pytest.mark.parametrize(
    ("where", "timeout", "least"),
    [
        ("tcp", "0", 0.0),
        ("unix", "0", 0.0),
        pytest.param("tcp", "700ms", 0.7, marks=pytest.mark.slow),
    ],
)
def test_nobody_there(start: Start, path: Path, where: str, timeout: str, least: float) -> None:
    began = time.monotonic()
    address = str(path) if where == "unix" else "127.0.0.1:1"
    caller = start.bpipe("connect", address, "--connect-timeout", timeout, stdin=PIPE)
    assert caller.wait() == 3
    assert least <= time.monotonic() - began < least + SOON
    assert len(caller.lines) == 1
    assert re.match("bpipe: .*(connection refused|no such file)", caller.text)


@pytest.mark.slow
def test_one_that_is_silent_is_nobody(start: Start, path: Path) -> None:
    proxy = start.proxy("127.0.0.1:1", path=path)
    proxy.freeze()
    caller = start.bpipe("connect", proxy.address, "--connect-timeout", "500ms")
    assert caller.wait() == 3


@pytest.mark.parametrize("kind", ["tcp", pytest.param("unix", marks=pytest.mark.slow)])
def test_a_caller_that_is_early_gets_through(start: Start, path: Path, kind: str) -> None:
    first = start.bpipe("listen", "127.0.0.1:0" if kind == "tcp" else f"unix:{path}")
    address = first.address
    first.signal(signal.SIGKILL)  # now the port is known, and free
    first.wait()
    caller = start.bpipe("connect", address, "-v", stdin=PIPE)
    caller.feed(MIB)
    caller.wait_line("connection refused|no such file")
    listener = start.bpipe("listen", address, stdout=PIPE)
    appeared = time.monotonic()
    caller.wait_connected()
    assert time.monotonic() - appeared < SOON
    assert listener.drain().wait_end() == MIB
    assert finish(caller, listener) == [0, 0]
