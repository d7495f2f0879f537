"""The process's own streams, in a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bpipe.ends.streams import Directions, Streams, holds_something, reads_stdin, remaining

PROGRAM = """
import fcntl, os, sys
from bpipe.ends.streams import take_streams
streams = take_streams()
"""


def in_a_process(program: str, redirections: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run this after ``take_streams``, with these redirections of a shell."""
    command = [sys.executable, "-c", PROGRAM + program]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command],
        input=b"input",
        capture_output=True,
        timeout=20,
    )


def test_stdin_and_stdout_move_to_descriptors_of_our_own() -> None:
    done = in_a_process("os.write(streams.stdout, os.read(streams.stdin, 100) + b' copied')")
    assert done.stdout == b"input copied"
    assert done.returncode == 0


def test_nothing_else_can_read_or_write_them_by_mistake() -> None:
    done = in_a_process("assert input() == ''")
    assert b"EOFError" in done.stderr
    done = in_a_process("print('noise', flush=True); os.write(streams.stdout, b'data')")
    assert done.stdout == b"data"


def test_closing_ours_is_the_last_close() -> None:
    program = "os.close(streams.stdout); sys.stderr.write('closed\\n'); input_ = os.read(2, 1)"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""


@pytest.mark.parametrize("redirections", ["0<&-", "0<&- 1>&-", "0<&- 2>&-", "0<&- 1>&- 2>&-"])
def test_a_stdin_that_is_missing_is_empty(redirections: str) -> None:
    done = in_a_process(
        "os._exit(42 if os.read(streams.stdin, 1) == b'' and min(streams[:2]) > 2 else 1)",
        redirections,
    )
    assert done.returncode == 42


@pytest.mark.parametrize("redirections", ["1>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_a_stdout_that_is_missing_cannot_be_written(redirections: str) -> None:
    program = """
try:
    os.write(streams.stdout, b"x")
except OSError:
    os._exit(42)
"""
    assert in_a_process(program, redirections).returncode == 42


@pytest.mark.parametrize("redirections", ["2>&-", "1>&- 2>&-"])
def test_a_stderr_that_is_missing_takes_everything(redirections: str) -> None:
    assert in_a_process("os._exit(41 + os.write(2, b'x'))", redirections).returncode == 42


SAME: Final = """
from bpipe.ends.streams import silence_stderr_within_data
aside = silence_stderr_within_data(streams)
assert aside is None or os.path.sameopenfile(aside, streams.stdout)
os.write(streams.stdout, b"data")
print("words", file=sys.stderr)
os.write(2, b"more words")
"""


@pytest.mark.parametrize(
    ("redirections", "clean"),
    [
        ("> FILE 2>&1", True),
        ("> FILE 2> FILE", True),
        (">> FILE 2>> FILE", True),
        ("2>&1 | cat > FILE", True),
        ("> FILE 2> FILE.err", False),
        ("2>&1 > FILE", False),
    ],
)
def test_what_is_said_does_not_go_where_the_data_goes(
    redirections: str, clean: bool, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    done = in_a_process(SAME, redirections.replace("FILE", str(file)))
    assert file.read_bytes() == b"data"
    said = (
        done.stderr + done.stdout + b"".join(path.read_bytes() for path in tmp_path.glob("*.err"))
    )
    assert (b"words" not in said) == clean


def test_a_socket_that_is_all_three_carries_only_the_data() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", PROGRAM + SAME]
        end = theirs.fileno()
        subprocess.run(command, stdin=end, stdout=end, stderr=end, timeout=20, check=True)
        theirs.close()
        assert ours.recv(100) == b"data"
        assert ours.recv(100) == b""


def test_a_terminal_that_is_both_shows_both() -> None:
    master, slave = os.openpty()
    try:
        command = [sys.executable, "-c", PROGRAM + SAME]
        subprocess.run(command, stdout=slave, stderr=slave, timeout=20, check=True)
        assert b"more words" in os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)


def test_which_are_terminals() -> None:
    assert in_a_process("os._exit(42 if streams[2:] == (False, False) else 1)").returncode == 42
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM + "os._exit(42 if streams[2:] == (True, False) else 1)"],
            stdin=slave,
            stdout=subprocess.DEVNULL,
            timeout=20,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 42


@pytest.mark.skipif(sys.platform != "linux", reason="pipes have no other size here")
def test_pipes_are_enlarged_and_a_larger_one_is_left() -> None:
    program = "os._exit(42 if fcntl.fcntl(streams.stdin, fcntl.F_GETPIPE_SZ) == 1 << 20 else 1)"
    assert in_a_process(program).returncode == 42


def test_what_remains_of_a_regular_file_is_known_and_of_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb", buffering=0) as file:
        assert remaining(file.fileno()) == 1000
        file.seek(400)
        assert remaining(file.fileno()) == 600
        file.seek(2000)
        assert remaining(file.fileno()) == 0
        assert file.tell() == 2000
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer):
        assert remaining(reader) is None


def test_what_remains_of_a_disk_is_known(tmp_path: Path) -> None:
    losetup = shutil.which("losetup")
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    command = [losetup or "false", "--find", "--show", "--read-only", str(tmp_path / "image")]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip("cannot make a loop device here")
    try:
        with open(made.stdout.strip(), "rb", buffering=0) as disk:
            assert remaining(disk.fileno()) == 1 << 20
            disk.seek(4096)
            assert remaining(disk.fileno()) == (1 << 20) - 4096
            assert disk.tell() == 4096
    finally:
        subprocess.run([losetup or "false", "--detach", made.stdout.strip()], check=True)


@pytest.mark.parametrize(
    ("stdin_is_terminal", "stdout_is_terminal", "send_only", "recv_only", "read"),
    [
        (False, False, False, False, True),
        (False, True, False, False, True),
        (True, False, False, False, False),
        (True, True, False, False, True),
        (True, False, True, False, True),
        (False, False, False, True, False),
        (True, True, False, True, False),
    ],
)
def test_when_stdin_is_read(
    stdin_is_terminal: bool, stdout_is_terminal: bool, send_only: bool, recv_only: bool, read: bool
) -> None:
    streams = Streams(0, 1, stdin_is_terminal, stdout_is_terminal)
    assert reads_stdin(streams, Directions(send_only, recv_only)) == read


def test_whether_something_is_there_to_be_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    assert not holds_something(reader)
    os.write(writer, b"x")
    os.close(writer)
    assert holds_something(reader)
    os.read(reader, 1)
    assert not holds_something(reader)
    os.close(reader)
    assert not holds_something(reader)
    near, far = socket.socketpair()
    with near, far:
        assert not holds_something(near.fileno())
        far.send(b"x")
        assert holds_something(near.fileno())
    (tmp_path / "file").write_bytes(b"12")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert holds_something(file.fileno())
        file.seek(2)
        assert not holds_something(file.fileno())
    with Path("/dev/zero").open("rb") as zeros:
        assert not holds_something(zeros.fileno())
