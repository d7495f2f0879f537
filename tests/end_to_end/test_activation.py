"""A socket that systemd has made, as descriptor 3, in the place of one of our own."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.helpers import Bpipe, Start, finish

pytestmark = pytest.mark.slow

# Listens as systemd does, keeps nothing else, and becomes the command: its process stays the same.
_ACTIVATE = """
import os, socket, sys
where, *command = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX if "/" in where else socket.AF_INET)
sock.bind(where if "/" in where else (where, 0))
sock.listen()
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="bpipe.socket")
os.execv(command[0], command)
"""


def activated(start: Start, where: str | Path, *arguments: str) -> Bpipe:
    """A listener with a socket that listens at this path, or at a port of this address."""
    launch = shlex.join([sys.executable, "-ISc", _ACTIVATE, str(where)])
    return start.bpipe("listen", *arguments, stdout=PIPE, shell=f'exec {launch} "$@"')


def test_over_tcp(start: Start) -> None:
    listener = activated(start, "127.0.0.1")
    said = listener.address_line
    assert said.endswith(", for this machine only (no secret)")
    caller = start.bpipe("connect", listener.address, stdin=PIPE)
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]


def test_over_a_unix_socket_and_a_program_is_told_nothing_of_it(start: Start, path: Path) -> None:
    listener = activated(start, path, "--", "sh", "-c", "env; ls -l /proc/$$/fd")
    assert listener.address_line == f"bpipe: listening on unix:{path}, for this user only"
    caller = start.bpipe("connect", str(path), stdout=PIPE)
    told = caller.read_all().decode()
    assert "BPIPE_PEER=" in told
    assert "LISTEN" not in told
    assert "socket:" not in told
    assert finish(caller, listener) == [0, 0]
    assert path.is_socket()  # it is not ours to remove


def test_it_is_judged_as_an_address_that_was_typed(start: Start) -> None:
    listener = activated(start, "0.0.0.0")
    assert listener.wait() == 2
    (line,) = listener.lines
    assert line.startswith("bpipe: 0.0.0.0:")
    assert "is not loopback, and nothing would protect the connection: use --secret FILE" in line


def test_systemd_itself(start: Start, path: Path) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    options = ["-l", str(path), "-E", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"]
    listener = start.bpipe(
        "listen", stdout=PIPE, shell=f'{shlex.join(["exec", activate, *options])} "$@"'
    )
    listener.wait_line("^Listening on ")
    caller = start.bpipe("connect", str(path), stdin=PIPE)  # starts it
    assert listener.address == f"unix:{path}"
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]
