"""``--rate`` with real processes: measured where the bytes come out of them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, pattern
from tests.end_to_end.helpers import Start, finish

pytestmark = pytest.mark.slow

AMOUNT = 1_000_000
RATE = MIB  # bytes a second
LATE = 0.2  # seconds that it may take until somebody sees a byte: so much may come at once


class Gauge:
    """Sees when bytes go through a proxy, or come out of a process. Sums up each way."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, int]]] = {}

    def tamper(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        """For a proxy."""
        self.note(f"{'up' if upward else 'down'} {connection}", len(data))
        return data

    def note(self, way: str, count: int) -> None:
        """So many bytes are there."""
        self.seen.setdefault(way, []).append((time.monotonic(), count))

    def total(self, way: str) -> int:
        return sum(count for _, count in self.seen.get(way, ()))

    def check(self, way: str, rate: int = RATE, since: float = 0.0) -> None:
        """From the first byte on, at no time more had come than the rate allows until then."""
        seen = [each for each in self.seen[way] if each[0] >= since]
        total, began = 0, seen[0][0]
        for at, count in seen:
            total += count
            assert total <= rate * (at - began + LATE), (way, at - began, total)

    def average(self, way: str) -> float:
        """The bytes a second."""
        seen = self.seen[way]
        return self.total(way) / max(0.001, seen[-1][0] - seen[0][0])


def test_no_faster_than_the_rate_each_way_and_over_the_next_link(
    start: Start, tmp_path: Path
) -> None:
    """The end without a rate is told; what was under way at the cut is sent again."""
    gauge, file, rate = Gauge(), tmp_path / "data", tmp_path / "rate"
    file.write_bytes(os.urandom(MIB))
    rate.write_text("1M\n")
    with file.open("rb") as back:
        listener = start.bpipe("listen", "127.0.0.1:0", stdin=back, stdout=PIPE)
    cut = Cut(Fault.RESET, True, MIB * 3 // 4)
    proxy = start.proxy(listener.address, [cut], tamper=gauge.tamper)
    caller = start.bpipe("connect", proxy.address, "--rate", f"@{rate}", stdin=PIPE, stdout=PIPE)
    consumer = listener.drain()
    caller.stdin.write(pattern(0, AMOUNT))
    consumer.wait_count(AMOUNT)
    for way in ("up 1", "up 2", "down 1", "down 2"):
        gauge.check(way)
    assert gauge.average("up 1") >= 0.8 * RATE
    rate.write_text("2M")
    caller.wait_line("at most 2.0 MiB/s from now on")
    quiet = time.monotonic()
    with caller.stdin as stdin:
        stdin.write(pattern(AMOUNT, AMOUNT))
    assert caller.read_all() == file.read_bytes()
    assert consumer.wait_end() == 2 * AMOUNT
    gauge.check("up 2", 2 * RATE, quiet)
    assert finish(caller, listener) == [0, 0]


def test_it_holds_over_all_links_together(start: Start) -> None:
    """Those that are lost on the way take nothing of it with them."""
    gauge = Gauge()

    def tamper(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        gauge.note("up" if upward else "down", len(data))
        return data

    listener = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    cuts = [Cut(Fault.RESET, True, MIB // 8)] * 2
    proxy = start.proxy(listener.address, cuts, tamper=tamper)
    options = "--rate", "1M", "--links", "4", "-v"
    caller = start.bpipe("connect", proxy.address, *options, stdin=PIPE)
    consumer = listener.drain()
    caller.wait_line("link 3 is up")
    gauge.seen.clear()
    caller.feed(2 * AMOUNT)
    assert consumer.wait_end() == 2 * AMOUNT
    assert finish(caller, listener) == [0, 0]
    assert len(proxy.faults.made) == len(cuts)
    gauge.check("up")
    assert gauge.average("up") >= 0.5 * RATE  # and not a quarter of it, for each link


def test_the_second_implementation_is_told_and_tells(start: Start) -> None:
    gauge = Gauge()
    command = sys.executable, "-m", "tests.peer", "listen", "127.0.0.1:0"
    other = start.program(*command, "--allow", str(RATE // 2), stdin=PIPE, stdout=PIPE)
    where = other.wait_line("^listening ").split()[1]
    proxy = start.proxy(where, tamper=gauge.tamper)
    caller = start.bpipe("connect", proxy.address, "--rate", "1M", stdin=PIPE, stdout=PIPE)
    there, back = caller.drain(), other.drain()
    other.feed(AMOUNT // 2)
    caller.feed(AMOUNT // 4)
    assert (there.wait_end(), back.wait_end()) == (AMOUNT // 2, AMOUNT // 4)
    gauge.check("down 1")
    gauge.check("up 1", RATE // 2)
    assert finish(caller, other) == [0, 0]


def test_what_a_far_command_says_is_no_faster(start: Start) -> None:
    gauge = Gauge()
    command = "head", "-c", str(MIB), "/dev/zero"
    run = start.bpipe("run", "--via", "env", "--rate", "1M", "--", *command, stdout=PIPE)
    while data := os.read(run.stdout.fileno(), 1 << 16):
        gauge.note("stdout", len(data))
    assert run.wait() == 0
    gauge.check("stdout")
    assert gauge.total("stdout") == MIB
    assert gauge.average("stdout") >= 0.8 * RATE
