"""Signals: those that end, those that are ignored, and those that only ask for something."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, SOON, pattern, until
from tests.end_to_end.helpers import Program, Start, finish
from tests.end_to_end.screen import Open

pytestmark = pytest.mark.slow


def handles(program: Program, number: int) -> bool:
    """Whether the process has a handler for this signal."""
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{program.pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) & 1 << (number - 1))


@pytest.mark.parametrize(
    ("victim", "name"),
    [
        pytest.param("sender", "SIGINT", marks=pytest.mark.smoke),
        ("sender", "SIGHUP"),
        ("receiver", "SIGINT"),
        ("receiver", "SIGTERM"),
    ],
)
def test_a_signal_ends_the_process_and_the_peer_is_told(
    start: Start, path: Path, name: str, victim: str
) -> None:
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    producer = sending.feed(None)
    consumer = receiving.drain()
    consumer.wait_count(20 * MIB)
    hit, other = (sending, receiving) if victim == "sender" else (receiving, sending)
    number = signal.Signals[name]
    hit.signal(number)
    signalled = time.monotonic()
    assert finish(hit, other) == [-number, 1]
    assert time.monotonic() - signalled < SOON
    assert f"interrupted by {name}" in other.text
    producer.wait_broken()
    assert consumer.wait_end() >= 20 * MIB


@pytest.mark.parametrize(
    ("command", "name"), [("connect", "SIGINT"), ("listen", "SIGTERM"), ("listen", "SIGHUP")]
)
def test_a_signal_before_there_is_a_peer(start: Start, path: Path, name: str, command: str) -> None:
    lonely = start.bpipe(command, str(path), "-v", stdin=PIPE)
    lonely.wait_line("listening|no such file")
    number = signal.Signals[name]
    lonely.signal(number)
    assert lonely.wait(SOON) == -number
    assert not path.exists()


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    start: Start, path: Path, name: str
) -> None:
    deaf = f"""trap '' {name}; exec "$@" """
    receiving = start.bpipe("listen", str(path), shell=deaf, stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    sending.stdin.write(b"12345")
    assert receiving.stdout.read(5) == b"12345"
    receiving.signal(signal.Signals[f"SIG{name}"])
    receiving.signal(signal.SIGUSR1)
    receiving.wait_line("^bpipe: connected ")  # it has looked at its signals
    sending.feed(MIB, offset=7)
    assert receiving.drain(offset=7).wait_end() == MIB
    assert finish(receiving, sending) == [0, 0]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_the_same_signal_twice_at_once_does_not_keep_the_peer_from_being_told(
    start: Start, name: str
) -> None:
    """The shell and the system both say that a window was closed; timeout(1) says it twice."""
    receiving = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    proxy = start.proxy(receiving.address)
    sending = start.bpipe("connect", proxy.address, stdin=PIPE)
    producer, consumer = sending.feed(None), receiving.drain()
    consumer.wait_count(MIB)
    proxy.freeze()
    producer.wait_stuck(0)  # so much is queued before what is said now
    number = signal.Signals[name]
    sending.signal(number)
    producer.wait_broken()  # so it has heard the first
    sending.signal(number)
    proxy.thaw()
    assert finish(sending, receiving) == [-number, 1]
    assert f"interrupted by {name}" in receiving.text


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_at_once(start: Start, path: Path, name: str) -> None:
    receiving = start.bpipe("listen", str(path))
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    producer = sending.feed(None)
    producer.wait_written(20 * MIB)
    receiving.signal(signal.SIGSTOP)  # so that nobody answers
    sending.signal(signal.SIGINT)
    producer.wait_broken()  # so much happens at the first
    assert sending.running
    first = time.monotonic()

    def ended() -> bool:
        sending.signal(signal.Signals[name])
        return not sending.running

    until(ended, "its end")
    assert sending.wait() == -signal.Signals[name]
    assert time.monotonic() - first < 1.8  # two is its patience


@pytest.mark.slow
def test_one_signal_ends_also_when_the_peer_does_not_answer(start: Start, path: Path) -> None:
    receiving = start.bpipe("listen", str(path))
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    sending.wait_connected()
    receiving.signal(signal.SIGSTOP)
    sending.signal(signal.SIGINT)
    assert sending.wait(2 + SOON) == -signal.SIGINT
    receiving.signal(signal.SIGCONT)
    assert receiving.wait() == 1  # it was told nevertheless
    assert "interrupted by SIGINT" in receiving.text


@pytest.mark.slow
def test_an_interrupt_after_everything_was_delivered_does_not_change_the_status(
    start: Start, path: Path
) -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(1 << 16))
    os.set_blocking(full, True)
    with open(full, "wb") as stderr, open(unread, "rb"):
        ending = start.bpipe("listen", str(path), stderr=stderr)  # so its last line takes a moment
        peer = start.bpipe("connect", str(path), stdin=PIPE)
        peer.wait_connected()
        until(lambda: handles(ending, signal.SIGUSR1), "the session")
        peer.stdin.close()
        assert peer.wait() == 0
        until(lambda: not handles(ending, signal.SIGUSR1), "the end of the session")
        ending.signal(signal.SIGINT)
        assert ending.wait() == 0


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_sigusr1_prints_one_line(start: Start, path: Path, quiet: list[str]) -> None:
    listener = start.bpipe("listen", str(path), *quiet, stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", str(path), stdin=PIPE)
    caller.wait_connected()
    if not quiet:
        listener.wait_connected()
    caller.stdin.write(b"12345")
    assert listener.stdout.read(5) == b"12345"
    before = len(listener.lines)
    listener.signal(signal.SIGUSR1)
    line = listener.wait_line(
        "^bpipe: connected unix:.*received 5 B, . B delivered; .*0 reconnects$"
    )
    assert listener.lines[before:] == [line]


@pytest.mark.parametrize("asked", ["connect", pytest.param("listen", marks=pytest.mark.slow)])
def test_sigusr2_reconnects_in_mid_transfer(start: Start, asked: str) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", listener.address, stdin=PIPE, stdout=PIPE)
    up, down = caller.feed(None), listener.feed(None, offset=99)
    there, back = listener.drain(), caller.drain(offset=99)
    for turn in range(1, 6):
        there.wait_count(there.count + 3 * MIB)
        (caller if asked == "connect" else listener).signal(signal.SIGUSR2)
        for end in (caller, listener):
            end.wait_back(SOON, times=turn)
    for producer in (up, down):
        producer.finish()
    assert [there.wait_end(), back.wait_end()] == [up.written, down.written]
    assert finish(caller, listener) == [0, 0]


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_who_asks_before_there_is_an_answer_ends_nothing(
    start: Start, path: Path, name: str
) -> None:
    for further in range(0, 200, 60):
        # Each line that Python says about an import is a moment.
        bpipe = start.bpipe("listen", str(path), python=["-X", "importtime"], stdin=PIPE)
        first = bpipe.lines.index(bpipe.wait_line(r"\| +bpipe\.cli$"))
        until(lambda: len(bpipe.lines) > first + further, "the imports")  # noqa: B023
        bpipe.signal(signal.Signals[name])
        bpipe.wait_line("listening")
        bpipe.signal(signal.SIGTERM)
        assert bpipe.wait() == -signal.SIGTERM


def test_sigusr2_tries_at_once_whatever_the_backoff_says(start: Start, path: Path) -> None:
    caller = start.bpipe(
        "connect", str(path), "-v", "--retry-max", "1h", "--connect-timeout", "1h", stdin=PIPE
    )
    caller.wait_line("no such file")
    listener = start.bpipe("listen", str(path), stdout=PIPE)
    listener.wait_line("listening")

    def connected() -> bool:
        caller.signal(signal.SIGUSR2)
        return "connected to" in caller.text

    until(connected, "the connection")


@pytest.mark.parametrize(
    ("name", "step"), [("SIGINT", 18), pytest.param("SIGTERM", 90, marks=pytest.mark.slow)]
)
def test_a_signal_during_the_imports_is_not_a_traceback(
    start: Start, path: Path, name: str, step: int
) -> None:
    number = signal.Signals[name]
    for further in range(0, 200, step):
        # Each line that Python says about an import is a moment.
        bpipe = start.bpipe("listen", str(path), python=["-X", "importtime"], stdin=PIPE)
        first = bpipe.lines.index(bpipe.wait_line(r"\| +bpipe\.cli$"))
        until(lambda: len(bpipe.lines) > first + further, "the imports")  # noqa: B023
        bpipe.signal(number)
        assert bpipe.wait() == -number
        said = [line for line in bpipe.lines if not line.startswith("import time:")]
        assert said in ([], [f"bpipe: listening on unix:{path}"])
        assert os.listdir(path.parent) == []


@pytest.mark.parametrize("command", ["listen", "connect"])
def test_nohup_at_a_terminal(start: Start, path: Path, terminal: Open, command: str) -> None:
    """It leaves a stdin that cannot be read, a SIGHUP that is ignored, and stderr with stdout."""
    got = path.parent / "got"
    screen = terminal()
    screen.enter(f"nohup $PYTHON -m bpipe {command} {path} > {got} &")
    far = start.bpipe("connect" if command == "listen" else "listen", str(path), stdin=PIPE)
    far.wait_connected()
    os.kill(int(next(iter(processes(f"bpipe {command} {path}")))), signal.SIGHUP)
    far.feed(MIB)
    assert far.wait() == 0
    screen.enter("clear; wait $!; echo status $?")
    screen.wait_line("status 0")
    assert got.read_bytes() == pattern(0, MIB)


def processes(command: str) -> Iterator[str]:
    """The numbers of the processes that run this."""
    for number in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if command in Path("/proc", number, "cmdline").read_text().replace("\0", " "):
                yield number
