"""Lines are written by threads: in order, never in the way of anybody, and into no wrong file."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from bpipe.report.output import QUEUED, LineThread, Log, LogError, open_log, write_all
from tests.support.outputs import ended, say_much
from tests.support.pairs import Files, files

__all__ = ["files"]


def test_jobs_are_done_in_order_by_a_thread_that_takes_no_signals() -> None:
    done: list[Any] = []
    with ended("mine"):
        thread = LineThread("mine")
        for number in range(100):
            assert thread.do(lambda number=number: done.append(number))  # type: ignore[misc]
        thread.do(lambda: done.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        thread.close()
    assert done[:-1] == list(range(100))
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGTTOU} <= done[-1]
    assert signal.SIGTTIN not in done[-1]


def test_what_is_too_much_is_dropped_but_not_the_last() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[int]()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    with ended("mine"):
        thread = LineThread("mine")
        thread.do(wait)
        assert begun.wait(10)
        taken = [thread.do(lambda: done.append(1)) for _ in range(2 * QUEUED)]
        assert taken == [True] * QUEUED + [False] * QUEUED
        assert thread.do(lambda: done.append(2), last=True)
        go_on.set()
        thread.close()
    assert done == [1] * QUEUED + [2]


def test_an_error_of_the_system_ends_it_and_nobody_waits() -> None:
    def fail() -> None:
        raise BrokenPipeError

    with ended("mine"):
        thread = LineThread("mine")
        thread.do(fail)
        thread.close()
    assert thread.do(lambda: None)  # nobody can be told


def test_all_of_it_is_written_where_somebody_has_set_nonblocking(files: Files) -> None:
    reader, writer = files.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(1 << 20)
    thread = threading.Thread(target=write_all, args=(writer, data))
    thread.start()
    found = b""
    while len(found) < len(data):
        found += os.read(reader, 1 << 16)
    thread.join(10)
    assert found == data


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log = Log(str(path), pytest.fail)
    log.say("one")
    log.say("two")
    log.close()
    assert path.read_text() == "before\none\ntwo\n"


def test_a_new_log_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        Log(str(path), pytest.fail).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_fails_says_so_once() -> None:
    failures: list[str] = []
    log = Log("/dev/full", failures.append)
    for _ in range(2 * QUEUED):
        log.say("line")
    log.close()
    assert failures == ["no space left on device"]


def test_a_log_that_takes_nothing_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with ended("Log", lambda: drained(reader)):
        say_much(Log(str(path), lambda why: None))
    os.close(reader)


def drained(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except BlockingIOError:
        pass


def test_a_log_is_not_where_the_data_goes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as data, pytest.raises(LogError, match="is where the data goes") as caught:
        open_log(str(path), data.fileno(), pytest.fail)
    assert caught.value.code == "log"
    with (tmp_path / "other").open("wb") as data:
        open_log(str(path), data.fileno(), pytest.fail).close()


def test_a_log_follows_no_link_but_those_of_the_process_itself(
    tmp_path: Path, files: Files
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(LogError, match=r"cannot open the log .*/link: it is a symbolic link"):
        open_log(str(tmp_path / "link"), 1, pytest.fail)
    assert not (tmp_path / "victim").exists()
    reader, writer = files.pipe()
    log = open_log(f"/dev/fd/{writer}", 1, pytest.fail)
    log.say("line")
    log.close()
    assert os.read(reader, 100) == b"line\n"


def test_why_a_log_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot open the log .*: no such file or directory"):
        open_log(str(tmp_path / "no" / "log"), 1, pytest.fail)
