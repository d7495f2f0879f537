"""What systemd gives, a socket that listens already, and what it is told."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import PATIENCE
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


# --- LISTEN_FDS ---


def test_over_tcp(start: Start) -> None:
    listener = activated(start, "127.0.0.1")
    said = listener.address_line
    assert said.endswith(", for this machine only; others need --secret (bpipe keygen)")
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


# --- NOTIFY_SOCKET ---


@pytest.fixture
def manager(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What listens to those who are started from here on."""
    name = str(path.with_name("notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield manager


def hear(manager: socket.socket) -> list[str]:
    """The lines of the next message."""
    return manager.recv(1000).decode().splitlines()


def test_a_listener_says_when_it_can_be_called_and_when_it_ends(
    start: Start, manager: socket.socket
) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "--recv-only")
    ready, status = hear(manager)
    address = status.removeprefix("STATUS=listening on ")
    assert ready == "READY=1"
    caller = start.bpipe("connect", address)  # which can be called, and says nothing before it ends
    assert finish(caller, listener) == [0, 0]
    assert hear(manager) == hear(manager) == ["STOPPING=1"]


def test_one_that_is_interrupted_says_so_before_it_tells_its_peer(
    start: Start, manager: socket.socket, path: Path
) -> None:
    listener = start.bpipe("listen", str(path))
    assert hear(manager) == ["READY=1", f"STATUS=listening on unix:{path}"]
    listener.signal(signal.SIGTERM)
    assert hear(manager) == ["STOPPING=1", "STATUS=interrupted by SIGTERM"]
    assert listener.wait() == -signal.SIGTERM


def test_one_that_cannot_listen_is_never_ready(
    start: Start, manager: socket.socket, path: Path
) -> None:
    path.touch()
    assert start.bpipe("listen", str(path)).wait() == 2
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


@pytest.mark.parametrize("asked", [False, True])
def test_what_tells_it_is_loaded_only_where_somebody_has_asked(
    start: Start, path: Path, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv("NOTIFY_SOCKET", str(path.with_name("nobody")))
    listener = start.bpipe("listen", str(path), python=["-X", "importtime"], stdout=PIPE)
    listener.wait_line("^bpipe: listening on ")
    caller = start.bpipe("connect", str(path))
    assert finish(caller, listener) == [0, 0]
    assert ("bpipe.run.notify" in listener.text) is asked
    assert "bpipe.net.activation" not in listener.text
