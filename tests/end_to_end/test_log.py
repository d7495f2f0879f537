"""Events for programs, and the same in words, of a session that is interrupted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from bpipe import __version__
from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Start, finish

pytestmark = pytest.mark.slow


def events(text: str) -> list[dict[str, Any]]:
    """The objects of a log."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.smoke
def test_the_log_tells_an_outage_and_the_totals(start: Start, tmp_path: Path) -> None:
    logs = tmp_path / "listener", tmp_path / "caller"
    listener = start.bpipe(
        "listen", "127.0.0.1:0", "--recv-only", "--log-json", str(logs[0]), stdout=PIPE
    )
    proxy = start.proxy(listener.address, [Cut(Fault.RESET, True, MIB)])
    options = ["--send-only", "--log-json", str(logs[1]), "--log-interval", "100ms", "-q"]
    caller = start.bpipe("connect", proxy.address, *options, stdin=PIPE)
    producer = caller.feed(None)
    listener.drain().wait_count(3 * MIB)
    until(lambda: "progress" in logs[1].read_text(), "a progress event")
    producer.finish()
    assert finish(caller, listener) == [0, 0]
    assert caller.lines == []
    said = events(logs[1].read_text())
    names = [event["event"] for event in said]
    assert "progress" in names
    told = [name for name in names if name not in ("progress", "retrying", "peer-finished")]
    assert told == ["started", "connected", "lost", "resumed", "done"]
    assert names.count("peer-finished") == 1
    done = said[-1]
    assert done["sent"] == done["confirmed"] == producer.written
    assert (done["status"], done["reason"], done["reconnects"]) == (0, None, 1)
    (lost,) = [event for event in said if event["event"] == "lost"]
    assert "reset" in lost["reason"]
    assert lost["code"] == "reset"
    times = [event["time"] for event in said]
    assert times == sorted(times)
    heard = events(logs[0].read_text())
    assert [event["event"] for event in heard[:3]] == ["started", "listening", "connected"]
    assert listener.address == f"127.0.0.1:{heard[1]['port']}" == heard[1]["address"]
    for events_of, role, pid in ((heard, "listen", listener.pid), (said, "connect", caller.pid)):
        started = events_of[0]
        assert (started["role"], started["pid"], started["version"]) == (role, pid, __version__)
        assert len({event["run"] for event in events_of}) == 1
    assert heard[0]["run"] != said[0]["run"]
    (progress, *_) = [event for event in said if event["event"] == "progress" and event["rate"]]
    assert progress["size"] is None
    assert heard[-1]["received"] == heard[-1]["delivered"] == producer.written


def test_a_log_on_stderr_takes_the_place_of_the_words(start: Start, path: Path) -> None:
    caller = start.bpipe(
        "connect", str(path), "--connect-timeout", "0", "--log-json", "-", "-v", "--status", "auto"
    )
    assert caller.wait() == 3
    done = events(caller.text)[-1]
    assert (done["event"], done["status"]) == ("done", 3)
    assert "no such file" in done["reason"]


def test_progress_is_said_in_words_without_a_log(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), "--log-interval", "100ms")
    listener.wait_line(r"^bpipe: connecting unix:.*; sent 0 B", times=3)


def test_twice_verbose_tells_the_frames(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), "-vv", stdout=PIPE)
    caller = start.bpipe("connect", str(path), "-vv", stdin=PIPE)
    caller.feed(10)
    assert listener.read_all() != b""
    assert finish(caller, listener) == [0, 0]
    for end, expected in (
        (
            caller,
            [r"= attached", r"> ACK 0", r"> DATA 0 \+10", r"< ACK 11", r"> BYE", r"= over"],
        ),
        (listener, [r"= attached", r"< DATA 0 \+10", r"< FIN 10", r"> ACK 11", r"< BYE"]),
    ):
        for each in expected:
            assert re.search(f"^bpipe: {each}", end.text, re.MULTILINE), end.text


def test_a_log_that_cannot_be_opened_is_a_usage_error(start: Start, path: Path) -> None:
    caller = start.bpipe("connect", str(path), "--log-json", "/nowhere/at/all")
    assert caller.wait() == 2
    assert caller.text == "bpipe: cannot open the log /nowhere/at/all: no such file or directory"


def test_a_log_that_nobody_reads_is_not_waited_for(
    start: Start, path: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    caller = start.bpipe("connect", str(path), "--log-json", str(fifo))
    assert caller.wait() == 2
    assert caller.text.startswith(f"bpipe: cannot open the log {fifo}: ")


def test_a_log_that_fails_or_blocks_does_not_hold_up_the_data(
    start: Start, path: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    unread = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    options = ["--log-interval", "100ms"]
    listener = start.bpipe(
        "listen", str(path), "--log-json", "/dev/full", *options, "--recv-only", stdout=PIPE
    )
    caller = start.bpipe("connect", str(path), "--log-json", str(fifo), *options, stdin=PIPE)
    producer = caller.feed(100 * MIB)
    assert listener.drain().wait_end() == 100 * MIB
    assert finish(caller, listener) == [0, 0]
    assert not producer.broken
    listener.wait_line("^bpipe: /dev/full: no space left on device; nothing more is logged$")
    os.close(unread)
