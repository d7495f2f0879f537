"""What becomes of the ends of a session with three links, each of which was cut again and again."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import pytest

from bpipe.demo.faults import Cut, random_cuts
from tests.end_to_end.data import PATIENCE, pattern
from tests.end_to_end.helpers import Bpipe, Proxy, Start, finish

pytestmark = pytest.mark.slow

QUICK: Final = "--heartbeat", "100ms", "--buffer", "256K"
CUTS: Final = 12  # long before the end: an end whose peer has left may wait for that one
REACH: Final = 60_000  # bytes into a connection: the furthest cut
EACH: Final = 2_000_000  # bytes


def cuts() -> Iterator[Cut]:
    return random_cuts(random.SystemRandom(), CUTS, REACH)


def connect(start: Start, proxy: Proxy, *more: str, stdin: int = PIPE, stdout: int = PIPE) -> Bpipe:
    options = "--links", "3", "--retry-max", "20ms", *QUICK
    return start.bpipe("connect", proxy.address, *options, *more, stdin=stdin, stdout=stdout)


def test_a_program_takes_all_and_its_end_is_told(start: Start) -> None:
    program = "wc -c; kill -SEGV $$"
    listener = start.bpipe("listen", "127.0.0.1:0", *QUICK, "--", "sh", "-c", program)
    proxy = start.proxy(listener.address, cuts())
    caller = connect(start, proxy)
    caller.feed(EACH)
    assert caller.read_all().split() == [b"%d" % EACH]
    assert finish(caller, listener) == [128 + signal.SIGSEGV] * 2
    assert len(proxy.faults.made) == CUTS


def test_a_file_is_what_was_sent_and_what_was_there_is_not_sent(
    start: Start, tmp_path: Path
) -> None:
    file, source = tmp_path / "file", tmp_path / "source"
    data = bytes(pattern(0, EACH // 2)) * 6
    source.write_bytes(data)
    file.write_bytes(data[: EACH // 2] + b"changed" + data[EACH // 2 + 7 : EACH])
    output = "--output", str(file), *QUICK
    listener = start.bpipe("listen", "127.0.0.1:0", *output)
    proxy = start.proxy(listener.address, cuts())
    with source.open("rb") as stdin:
        caller = connect(start, proxy, stdin=stdin.fileno(), stdout=DEVNULL)
    assert finish(caller, listener) == [0, 0]
    assert file.read_bytes() == data
    assert os.listdir(tmp_path) == ["file", "source"]
    assert len(proxy.faults.made) == CUTS


@pytest.mark.parametrize(
    ("how", "statuses"),
    [("the consumer leaves", [141, 141]), ("^C", [1, -signal.SIGINT]), ("killed", [4, -9])],
)
def test_both_ends_hear_that_it_is_over(start: Start, how: str, statuses: list[int]) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts())
    caller = connect(start, proxy, *(["--give-up-after", "1s"] if how == "killed" else []))
    caller.feed(None)
    listener.feed(None)
    consumer = caller.drain()
    count = 0
    while len(proxy.faults.made) < CUTS or count < EACH:
        count += len(os.read(listener.stdout.fileno(), 1 << 16))
    if how == "the consumer leaves":
        listener.stdout.close()
    else:
        listener.signal(signal.SIGINT if how == "^C" else signal.SIGKILL)
    assert finish(caller, listener) == statuses
    consumer.thread.join(PATIENCE)
    assert consumer.wrong is None
