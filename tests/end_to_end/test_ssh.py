"""ssh and sftp through bpipe, by the README's lines, against a real sshd and through cuts."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, pattern, until
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import (
    Shell,
    answers,
    any_service,
    free_port,
    listening,
    need,
    other,
    recipe,
    resets,
    typed,
)

pytestmark = pytest.mark.slow

SIZE = 4 * MIB
PRIVILEGES = Path("/run/sshd")  # without which root's sshd does not start

SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""

SSH = """
Host far.example
    HostName 127.0.0.1
Host *
    IdentityFile {folder}/user
    User {user}
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


class Ssh:
    """A server, and clients that are let in."""

    def __init__(self, start: Start, shell: Shell) -> None:
        need("sshd", "ssh", "sftp", "ssh-keygen")
        folder = shell.folder
        for name in ("host", "user"):
            make = ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(make, check=True)
        self.port = free_port()
        (folder / "sshd.conf").write_text(SSHD.format(port=self.port, folder=folder))
        (folder / "ssh.conf").write_text(SSH.format(folder=folder, user=getpass.getuser()))
        for name in ("ssh", "sftp"):
            shell.script(name, f'exec /usr/bin/{name} -F {folder}/ssh.conf "$@"')
        if os.geteuid() == 0:
            PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
        sshd = start.program("/usr/sbin/sshd", "-De", "-f", str(folder / "sshd.conf"))
        until(lambda: answers(self.port), lambda: f"sshd: {sshd.lines}")


@pytest.fixture
def ssh(start: Start, shell: Shell) -> Ssh:
    """It is over with the test."""
    return Ssh(start, shell)


def test_ssh_survives(start: Start, shell: Shell, key: Path, ssh: Ssh) -> None:
    far, near = recipe("ssh that survives")
    secret = {"BPIPE_SECRET_FILE": str(key)}
    far = other(typed(far), {":7022": ":0", "localhost:22": f"localhost:{ssh.port}"})
    listener = shell.enter(far, secret)
    proxy = start.proxy(f"127.0.0.1:{listening(listener)}", resets(4, MIB // 2))
    near = other(typed(near), {"%h:7022": f"%h:{proxy.address.rpartition(':')[2]}"})

    client = shell.enter(f"{near} 'cat; exit 7'", secret, stdin=PIPE, stdout=PIPE)
    producer, consumer = client.feed(SIZE), client.drain()
    assert consumer.wait_end() == producer.written == SIZE
    assert client.wait() == 7
    assert client.text == ""
    assert len(proxy.faults.made) == 4


def test_sftp_through_any_service(start: Start, shell: Shell, key: Path, ssh: Ssh) -> None:
    cuts = [*resets(3, MIB, upward=True), *resets(3, MIB, upward=False)]
    port, proxy = any_service(start, shell, key, ssh.port, cuts)
    data = b"".join(pattern(n * MIB, 1_000_000) for n in range(4))
    (shell.folder / "up").write_bytes(data)
    *_, line = recipe("Any service")
    client = shell.enter(other(typed(line), {"2222": port}), stdin=PIPE, stdout=PIPE)
    there = shell.folder / "there"
    client.stdin.write(f"put up {there}\nget {there} down\n".encode())
    client.stdin.close()
    client.read_all()
    assert client.wait() == 0
    assert there.read_bytes() == (shell.folder / "down").read_bytes() == data
    assert len(proxy.faults.made) == 6
