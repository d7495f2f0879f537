"""What the system tells of processes, and that only the one that is meant is signalled."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bpipe.net import processes
from bpipe.net.processes import Member, hold, look
from tests.end_to_end.data import until

if not sys.platform.startswith("linux"):
    pytest.skip("elsewhere nothing of it is used", allow_module_level=True)


@pytest.fixture
def cat() -> Iterator[subprocess.Popen[bytes]]:
    """A program that waits."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def refuse(number: int) -> object:
    """A call that fails with this error."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=["with a pidfd", "without"])
def manner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without":
        monkeypatch.setattr(os, "pidfd_open", refuse(errno.ENOSYS))


def member(pid: int) -> Member:
    process = look(pid)
    assert process is not None
    held = hold(process)
    assert held is not None
    return held


def test_a_process_is_told_of() -> None:
    found = look(os.getpid())
    assert found is not None
    assert found[:5] == (os.getpid(), found.state, os.getppid(), os.getpgrp(), os.getsid(0))


def test_who_can_write_to_a_pipe_is_told_apart_from_who_reads_it() -> None:
    reading, writing = os.pipe()
    found = os.fstat(reading)
    pipe = found.st_dev, found.st_ino
    with subprocess.Popen(["cat"], stdin=reading, stdout=subprocess.DEVNULL) as process:
        assert not processes.writes(process.pid, pipe)
        assert processes.writes(os.getpid(), pipe)
        os.close(writing)
        assert not processes.writes(os.getpid(), pipe)
    os.close(reading)
    assert not processes.writes(process.pid, pipe)


def test_a_process_has_a_name(cat: subprocess.Popen[bytes]) -> None:
    until(lambda: processes.name_of(cat.pid) == "cat", "its start")
    cat.kill()
    cat.wait()
    assert processes.name_of(cat.pid) == "?"


def test_a_process_is_known_by_its_environment() -> None:
    environment = {"MARK": "yes", "OTHER": "no", "EMPTY": ""}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=environment) as process:
        until(lambda: processes.carries(process.pid, b"MARK=yes"), "its start")
        assert processes.carries(process.pid, b"OTHER=no")
        assert not processes.carries(process.pid, b"MARK=ye")
        process.kill()
    assert not processes.carries(process.pid, b"MARK=yes")


@pytest.mark.usefixtures("manner")
def test_one_that_has_ended_is_gone_before_it_is_reaped(cat: subprocess.Popen[bytes]) -> None:
    held = member(cat.pid)
    assert not held.gone()
    held.send(signal.SIGTERM)
    os.waitid(os.P_PID, cat.pid, os.WEXITED | os.WNOWAIT)
    assert held.gone()
    cat.wait()
    assert held.gone()
    held.send(signal.SIGTERM)  # to nobody
    held.close()
    assert look(cat.pid) is None


@pytest.mark.usefixtures("manner")
def test_another_one_of_the_same_number_is_a_stranger(cat: subprocess.Popen[bytes]) -> None:
    process = look(cat.pid)
    assert process is not None
    before = os.listdir("/proc/self/fd")
    assert hold(process._replace(start=process.start - 1)) is None
    assert os.listdir("/proc/self/fd") == before


def test_without_a_pidfd_a_stranger_is_not_signalled(cat: subprocess.Popen[bytes]) -> None:
    process = look(cat.pid)
    assert process is not None
    Member(process._replace(start=process.start - 1), -1).send(signal.SIGTERM)
    Member(process, -1).send(signal.SIGKILL)
    assert cat.wait() == -signal.SIGKILL


def test_one_that_may_not_be_signalled_is_known_to_be(
    cat: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = member(cat.pid)
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse(errno.EPERM))
    held.send(signal.SIGTERM)
    assert held.immune
    assert not held.gone()
    held.close()


def test_one_of_which_nothing_can_be_known_is_not_gone(
    cat: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = look(cat.pid)
    assert process is not None
    monkeypatch.setattr("builtins.open", refuse(errno.EMFILE))
    with pytest.raises(OSError, match="open files"):
        look(cat.pid)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="open files"):
        hold(process)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not Member(process, -1).gone()


def test_one_that_is_hidden_from_us_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", refuse(errno.EPERM))
    assert look(os.getppid()) is None


def test_what_it_reads_and_what_it_ignores() -> None:
    deaf = ["sh", "-c", "trap '' TERM; echo; read line"]
    with subprocess.Popen(deaf, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        pipes = [os.fstat(each.fileno()) for each in (process.stdin, process.stdout)]
        reads = [processes.reads(process.pid, (each.st_dev, each.st_ino)) for each in pipes]
        assert reads == [True, False]
        assert processes.ignores(process.pid, signal.SIGTERM)
        assert not processes.ignores(process.pid, signal.SIGINT)
        process.kill()
    assert not processes.reads(process.pid, (0, 0))
    assert not processes.ignores(process.pid, signal.SIGTERM)
