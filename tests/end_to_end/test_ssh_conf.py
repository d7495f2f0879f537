"""What stands in a user's ssh_config, and what a server puts up with."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Program, Start
from tests.end_to_end.recipes import Shell
from tests.end_to_end.sshd import Far, Near, Sshd, serve

pytestmark = pytest.mark.slow

SIZE = 2 * MIB
FULL = 3.0  # seconds in which a server takes nobody


def carry(near: Near, far: Far, *options: str) -> Program:
    """Bytes go there and back, and the ssh is killed in between."""
    program = near.ssh(far, "cat; exit 3", *options, stdin=PIPE, stdout=PIPE)
    consumer = program.drain()
    half = program.feed(None)
    consumer.wait_count(SIZE)
    near.kill()
    consumer.wait_count(consumer.count + SIZE)
    half.finish()
    assert consumer.wait_end() == half.written
    assert program.wait() == 3
    far.wait_nothing_left()
    return program


def test_a_terminal_a_command_a_master_and_a_jump_do_no_harm(near: Near, sshd: Sshd) -> None:
    far, path = sshd.far(), near.shell.folder / "master"
    lines = (
        "RequestTTY force",
        "RemoteCommand echo not this",
        f"ProxyJump {sshd.far().name}@between",
    )
    master = "ControlMaster auto", f"ControlPath {path}", "ControlPersist 60"
    near.configure("\n    ".join(["Host far", *lines, *master, ""]))
    carry(near, far)
    assert not path.exists()


def test_a_master_that_lives_is_used_once(near: Near, sshd: Sshd) -> None:
    path, far = near.shell.folder / "master", sshd.far()
    near.configure(f"ControlPath {path}\n")
    near.shell.run("ssh", "-M", "-N", str(far))
    until(path.exists, "a master")
    program = near.ssh(far, "cat; exit 3", stdin=PIPE, stdout=PIPE)
    consumer, producer = program.drain(), program.feed(None)
    consumer.wait_count(SIZE)
    near.kill()  # the master, or who uses it
    consumer.wait_count(consumer.count + SIZE)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert program.wait() == 3


def occupied(port: int) -> contextlib.ExitStack:
    """Two who call, and then say nothing: they hold their places until this is closed."""
    stack = contextlib.ExitStack()
    for _ in range(2):
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    return stack


def test_patience_with_a_server_that_is_full(start: Start, shell: Shell) -> None:
    with serve("MaxStartups 2\n") as sshd:
        near, far = Near(shell, sshd), sshd.far()
        proxy = near.through(start)
        others = occupied(sshd.port)
        program = near.ssh(far, "cat; exit 3", stdin=PIPE, stdout=PIPE)
        consumer, producer = program.drain(), program.feed(None)
        for number in itertools.count():
            time.sleep(FULL)  # that is how long it is full
            assert proxy.faults.connections <= 4 * (number + 1)
            others.close()
            consumer.wait_count(consumer.count + MIB)
            if number == 1:
                break
            others = occupied(sshd.port)
            near.kill()
        producer.finish()
        assert consumer.wait_end() == producer.written
        assert program.wait() == 3
