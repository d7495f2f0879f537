"""Who belongs to a program, and in which order they end; the rest is in ``test_child``."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpipe.ends.child import MARK
from bpipe.ends.kin import Group, Kin, Program, kin_of
from bpipe.net.processes import open_handle
from tests.end_to_end.data import until
from tests.support.programs import alive, behind_cat, folder, reader, readers, saw_the_end

__all__ = ["folder"]

LINUX = sys.platform.startswith("linux")


def started(argv: list[str]) -> tuple[subprocess.Popen[bytes], Program]:
    """A program, and what is told of it."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    pipe = os.fstat(process.stdin.fileno())
    ended = lambda: process.poll() is not None  # noqa: E731
    return process, Program(process.pid, -1, (pipe.st_dev, pipe.st_ino), ended)


def go(steps: Iterator[float]) -> None:
    """To the end."""
    for delay in steps:
        time.sleep(delay)


def no_folder(*_: object) -> str:
    raise FileNotFoundError(errno.ENOENT, "no such file or directory")


@pytest.mark.parametrize("link", [no_folder, lambda _: "1"])
def test_elsewhere_the_group_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[..., str]
) -> None:
    process, program = started(reader(folder))
    until(lambda: readers(folder), "the reader")
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", link)
        group = kin_of(program)
    assert isinstance(group, Group)
    go(group.steps())
    assert process.wait() == -signal.SIGTERM
    assert not saw_the_end(folder)
    go(group.steps())  # it has ended: nobody is signalled
    process.communicate()


@pytest.mark.parametrize(
    "kind", [pytest.param(Kin, marks=pytest.mark.skipif(not LINUX, reason="Linux only")), Group]
)
def test_they_may_be_asked_by_several_signals(folder: Path, kind: type[Kin] | type[Group]) -> None:
    (folder / "deaf").mkdir()
    asks = (signal.SIGHUP, signal.SIGTERM)
    plain, program = started(reader(folder))
    deaf, other = started(["nohup", *reader(folder / "deaf")])
    until(lambda: readers(folder) and readers(folder / "deaf"), "the readers")
    go(kind(program._replace(asks=asks), patience=1000).steps())
    go(kind(other._replace(asks=asks), patience=0.1 if kind is Group else 1000).steps())
    assert (plain.wait(), deaf.wait()) == (-signal.SIGHUP, -signal.SIGTERM)
    assert not saw_the_end(folder)
    assert not saw_the_end(folder / "deaf")
    for each in (plain, deaf):
        each.communicate()


@pytest.mark.parametrize("hurried", [False, True])
def test_elsewhere_who_goes_on_is_killed(folder: Path, hurried: bool) -> None:
    process, program = started(reader(folder, "stubborn"))
    until(lambda: readers(folder), "the reader")
    group = Group(program, patience=1000 if hurried else 0.1)
    steps = group.steps()
    next(steps)
    until(lambda: (folder / "asked").exists(), "SIGTERM")
    if hurried:
        group.hurry()
    go(steps)
    assert process.wait() == -signal.SIGKILL
    assert not saw_the_end(folder)
    process.communicate()


if not LINUX:
    pytest.skip("the rest is of Linux only", allow_module_level=True)


def test_who_may_not_be_signalled_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, program = started(reader(folder))
    until(lambda: readers(folder), "the reader")

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    kin = Kin(program._replace(handle=open_handle(process.pid)), patience=0.0)
    steps = kin.steps()
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pidfd_send_signal", forbidden)
        patch.setattr(os, "killpg", forbidden)
        for _ in range(100):
            next(steps)
        assert kin.immune == [process.pid]
        assert alive(process.pid)
    go(steps)
    assert process.wait() == -signal.SIGKILL
    assert kin.immune == []
    assert not saw_the_end(folder)
    process.communicate()


def test_who_is_killed_stands_still_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, program = started(reader(folder, "stubborn"))
    until(lambda: readers(folder), "the reader")
    sent = []
    real = signal.pidfd_send_signal

    def send(handle: int, number: int) -> None:
        sent.append(signal.Signals(number).name)
        real(handle, number)

    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    go(Kin(program._replace(handle=open_handle(process.pid)), patience=0.1).steps())
    order = [name for name, before in zip(sent, ["", *sent], strict=False) if name != before]
    assert order[:5] == ["SIGSTOP", "SIGTERM", "SIGCONT", "SIGSTOP", "SIGKILL"]
    process.communicate()


def test_without_a_descriptor_to_look_with_nobody_counts_as_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, program = started(behind_cat(folder))
    until(lambda: readers(folder), "the reader")
    steps = Kin(program).steps()

    def lacking(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", lacking)
        for _ in range(20):
            next(steps)
        assert all(map(alive, readers(folder)))
    go(steps)
    assert not saw_the_end(folder)
    process.communicate()


def test_who_is_related_to_nobody_any_more_is_known_by_its_environment(folder: Path) -> None:
    """The shell is killed by somebody: what was behind its cat had a session of its own."""
    os.environ[MARK] = str(folder)
    try:
        process, program = started(behind_cat(folder, before="setsid "))
    finally:
        del os.environ[MARK]
    until(lambda: readers(folder), "the reader")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    go(Kin(program._replace(mark=f"{MARK}={folder}".encode())).steps())
    assert not saw_the_end(folder)
    process.communicate()


def test_what_a_program_has_left_behind_lives_if_nobody_reads_its_stream(folder: Path) -> None:
    mark = f"{MARK}={folder}"
    leaves = f"{mark} setsid {shlex.join(reader(folder))} < {folder}/other &"
    os.mkfifo(folder / "other")
    process, program = started(["sh", "-c", leaves])
    with open(folder / "other", "w"):
        until(lambda: readers(folder), "the reader")
        assert process.wait() == 0
        go(Kin(program._replace(mark=mark.encode())).steps())
        assert all(map(alive, readers(folder)))
    process.communicate()
    until(lambda: not any(map(alive, readers(folder))), "the end")


def test_of_one_that_has_ended_by_itself_only_who_reads_the_same_pipe_is_ended(
    folder: Path,
) -> None:
    (folder / "it").mkdir()
    (folder / "other").mkdir()
    process, program = started(["setsid", *reader(folder / "it")])
    other, _ = started(["setsid", *reader(folder / "other")])
    assert (process.wait(), other.wait()) == (0, 0)
    until(lambda: readers(folder / "it") and readers(folder / "other"), "the readers")
    go(Kin(program).steps())
    assert not saw_the_end(folder / "it")
    assert all(map(alive, readers(folder / "other")))
    for each in (process, other):
        each.communicate()
    until(lambda: not any(map(alive, readers(folder / "other"))), "the end")
    assert saw_the_end(folder / "other")
