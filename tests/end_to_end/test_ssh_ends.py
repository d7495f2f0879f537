"""How a ``bpipe ssh`` ends when it is told to, or killed, or when its holder there is."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import until
from tests.end_to_end.helpers import Program
from tests.end_to_end.sshd import Far, Near, Sshd

pytestmark = pytest.mark.slow

HOLDER = "bpipe-holder"
SOON = 20.0  # seconds until the next connection shows that the holder is gone

# It says what it is told, takes its time to end, and has a child which knows nothing of that.
STAYS = """
trap 'echo hung up >&2; exit 9' HUP
echo begun
sleep 1000 & wait
"""


@pytest.fixture
def far(sshd: Sshd) -> Far:
    """A far side of the test's own."""
    return sshd.far()


def begin(near: Near, far: Far, *options: str, command: str = STAYS) -> Program:
    """Start a command there, and wait until it has begun."""
    program = near.ssh(far, command, *options, stdin=PIPE, stdout=PIPE)
    assert os.read(program.stdout.fileno(), 6) == b"begun\n"
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_here_ends_the_command_there(near: Near, far: Far, number: int) -> None:
    program = begin(near, far)
    sockets = far.sockets()
    program.signal(number)
    assert program.wait_whatever() in (-number, 128 + number, 255)
    far.wait_nothing_left(sockets)


def test_who_ignores_a_hangup_is_ended_all_the_same(near: Near, far: Far) -> None:
    program = begin(near, far, command="trap '' HUP TERM; echo begun; while :; do sleep 1; done")
    program.signal(signal.SIGTERM)
    program.wait_whatever()
    far.wait_nothing_left()


def test_a_near_end_that_is_killed_is_given_up_there(near: Near, far: Far) -> None:
    program = begin(near, far, "--give-up-after", "3s")
    sockets = far.sockets()
    ssh = near.carriers()
    program.signal(signal.SIGKILL)
    killed = time.monotonic()
    program.wait_whatever()
    assert far.processes()
    far.wait_nothing_left(sockets)
    assert 2 < time.monotonic() - killed < 15
    until(lambda: not any(map(_lives, ssh)), "the end of ssh")


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_holder_that_is_killed_is_said(near: Near, sshd: Sshd) -> None:
    fars = sshd.far(), sshd.far()
    options = "--heartbeat", "300ms"
    programs = [begin(near, far, *options, command="echo begun; cat; echo never") for far in fars]
    sockets = fars[0].sockets()
    victims = [fars[0].find(HOLDER), *fars[1].processes()]  # of the second all, as logind does it
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for far, program in zip(fars, programs, strict=True):
        assert program.wait(SOON) == 255
        assert "far" in program.lines[-1]
        assert program.read_all() == b""  # nobody took the end of the stream for its own
        far.wait_nothing_left(sockets)


def test_who_reads_no_more_ends_the_command_there(near: Near, far: Far) -> None:
    program = near.ssh(far, "yes; sleep 1000", stdout=PIPE)
    os.read(program.stdout.fileno(), 100)
    program.stdout.close()
    assert program.wait_whatever() in (141, -signal.SIGPIPE)
    far.wait_nothing_left()


def test_a_command_that_leaves_its_stdin(near: Near, far: Far) -> None:
    began = time.monotonic()
    program = near.ssh(far, "head -c 5; exit 4", stdin=PIPE, stdout=PIPE)
    producer = program.feed(None)
    assert len(program.read_all()) == 5
    assert program.wait() == 4
    producer.wait_broken()
    assert time.monotonic() - began < 20
    far.wait_nothing_left()


def test_stdin_that_stays_open_holds_nobody(near: Near, far: Far) -> None:
    program = near.ssh(far, "exit 5", stdin=PIPE, stdout=PIPE)
    assert program.read_all() == b""
    assert program.wait() == 5
    far.wait_nothing_left()


def test_what_a_command_leaves_behind_holds_nobody_for_long(near: Near, far: Far) -> None:
    program = near.ssh(far, "sleep 60 & echo done; exit 6", stdout=PIPE)
    assert program.wait(30) == 6
    assert program.read_all() == b"done\n"
    until(lambda: list(far.processes().values()) == ["sleep 60 "], "only what was left behind")
    for pid in far.processes():
        os.kill(pid, signal.SIGTERM)
    far.wait_nothing_left()
