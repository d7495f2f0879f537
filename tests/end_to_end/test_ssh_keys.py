"""What ssh may ask, and when; and what ends with the first connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from subprocess import PIPE

import pytest

from tests.end_to_end.console import Console
from tests.end_to_end.data import MIB, until
from tests.end_to_end.recipes import need
from tests.end_to_end.sshd import Near, Sshd, client

pytestmark = pytest.mark.slow

PASSPHRASE = "a passphrase"


def lock(near: Near) -> None:
    """Have a key that only a passphrase opens."""
    key = near.shell.folder / "key"
    shutil.copy(near.sshd.key, key)
    words = "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key)
    subprocess.run(["ssh-keygen", *words], check=True, stdout=subprocess.DEVNULL)
    near.configure(key=key)


def test_only_the_first_attempt_asks(near: Near, sshd: Sshd, console: Console) -> None:
    lock(near)
    take = f': <{console.name}; exec "$@"'  # the terminal, for a session that has none
    words = *client(), str(sshd.far()), "cat; exit 3"
    program = near.shell.run("sh", "-c", take, "sh", *words, stdin=PIPE, stdout=PIPE)
    shown = ""
    while "passphrase for key" not in shown:
        shown += os.read(console.master, 1000).decode()
    console.type(PASSPHRASE + "\n")
    consumer, producer = program.drain(), program.feed(None, pause=0.01)
    consumer.wait_count(MIB)
    near.kill()
    program.wait_line("Permission denied")
    near.configure()  # as if an agent had the key by now
    consumer.wait_count(consumer.count + MIB)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert program.wait() == 3
    os.set_blocking(console.master, False)
    with contextlib.suppress(BlockingIOError):
        assert "passphrase" not in os.read(console.master, 1000).decode()


def test_an_agent_that_has_gone_is_told_once(near: Near, sshd: Sshd) -> None:
    need("ssh-agent")
    agent = near.shell.folder / "agent"
    near.shell.run("ssh-agent", "-D", "-a", str(agent))
    until(agent.exists, "an agent")
    near.configure("ForwardAgent yes\n")
    words = *client(), str(sshd.far()), 'test -S "$SSH_AUTH_SOCK" && cat'
    there = {"SSH_AUTH_SOCK": str(agent)}
    program = near.shell.run(*words, environment=there, stdin=PIPE, stdout=PIPE)
    consumer, producer = program.drain(), program.feed(None, pause=0.01)
    for _ in range(2):
        consumer.wait_count(consumer.count + MIB)
        near.kill()
    consumer.wait_count(consumer.count + MIB)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert program.wait() == 0
    assert len([line for line in program.lines if "agent" in line]) == 1
