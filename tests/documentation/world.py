"""Two machines, ``here`` and ``far.example``, as namespaces: each with a network of its own, a user
``me``, files, and bpipe in the PATH. An sshd of the far one lets both users of the near one in.

What is written to the disk of either is written to memory, and is gone in the end; what there is
besides, as programs, is that of the real machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import bpipe
from bpipe.cli.keys import write_key
from tests.documentation.terminal import Terminal
from tests.end_to_end.data import PATIENCE, until
from tests.end_to_end.helpers import Program
from tests.end_to_end.recipes import need
from tests.end_to_end.remains import children
from tests.end_to_end.sshd import known_to_sshd

ME: Final = 1000
ADDRESSES: Final = {"here": "10.77.0.1", "far": "10.77.0.2"}

# The first process of a machine: it takes care of those whose parents are gone.
_MACHINE: Final = """
mount -t tmpfs -o mode=755 none "$1" && cd "$1" && mkdir upper work root &&
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" none root && cd root &&
mount -t proc none proc && mount -t tmpfs -o mode=755 none dev &&
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty dev &&
mkdir dev/pts dev/shm && mount -t devpts -o newinstance,ptmxmode=666 none dev/pts &&
ln -s pts/ptmx dev/ptmx && ln -s /proc/self/fd dev/fd && mount -t tmpfs none dev/shm &&
hostname "$2" && ip link set lo up &&
exec chroot . sh -c 'echo ready >&2; while :; do sleep 1000000; done'
"""
_IDLE: Final = "sleep 1000000"  # its whole life
_SHELL: Final = ("bash", "--norc", "--noprofile", "--noediting", "-i")
_TRY: Final = """
mount -t tmpfs none /mnt && cd /mnt && mkdir upper work root &&
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none root
"""
_SSHD: Final = """
HostKey /etc/ssh/host
PidFile none
UsePAM no
PasswordAuthentication no
MaxStartups 100
PerSourcePenalties no
Subsystem sftp internal-sftp
"""


class Machine:
    """One of the two."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = Path(tempfile.mkdtemp(prefix="bp-machine-"))
        apart = ["unshare", "-muinp", "--fork", "--kill-child"]
        self._process = Program([*apart, "sh", "-c", _MACHINE, "sh", str(self._folder), name])
        self._process.wait_line("^ready$")
        (self.pid,) = children(self._process.pid)
        assert not self.path("/").samefile("/"), "what is written there would be written here"
        self._terminals: list[tuple[Terminal, bool]] = []
        self.exported: list[str] = []
        self._disks: list[str] = []
        self._furnish()

    def _furnish(self) -> None:
        """What somebody has who has used the machine before."""
        names = f"{ADDRESSES['here']} here\n{ADDRESSES['far']} far.example far\n"
        self.write("/etc/hosts", f"127.0.0.1 localhost\n{names}")
        users = [line for line in Path("/etc/passwd").read_text().splitlines() if ":0:" not in line]
        users = [line for line in users if f":{ME}:" not in line]
        mine = ["root:*:0:0::/home/root:/bin/sh", f"me:*:{ME}:{ME}::/home/me:/bin/sh"]
        self.write("/etc/passwd", "\n".join([*mine, *users, ""]))
        code = Path(bpipe.__file__).parents[1]
        script = f'PYTHONPATH={code} exec {sys.executable} -m bpipe "$@"'
        self.script("bpipe", script)
        for real in (Path(sys.executable), Path(sys.executable).resolve(), code):
            for each in real.parents:
                if not each.stat().st_mode & 1:
                    self.path(each).chmod(0o755)

    def path(self, path: str | Path) -> Path:
        """The same path, as it is seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def write(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Make a file, with its folders."""
        there = self.path(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(data.encode() if isinstance(data, str) else data)
        there.chmod(mode)

    def script(self, name: str, command: str) -> None:
        """A program that all users have."""
        self.write(f"/usr/local/bin/{name}", f"#!/bin/sh\n{command}\n", 0o755)

    def own(self, path: str, user: int = ME) -> None:
        """Give this to a user, with all that is below."""
        there = self.path(path)
        for each in [there, *there.rglob("*")]:
            os.chown(each, user, user, follow_symlinks=False)

    def command(self, *words: str, root: bool = False, **variables: str) -> list[str]:
        """What runs these words there."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-i", "-p", "-r", "-w"]
        name, number = ("root", 0) if root else ("me", ME)
        drop = [f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        known = {
            **{"HOME": f"/home/{name}", "USER": name, "LOGNAME": name, "SHELL": "/bin/sh"},
            **{"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
        }
        settings = [f"{key}={value}" for key, value in {**known, **variables}.items()]
        return [*enter, "setpriv", *drop, "env", "-i", "-C", f"/home/{name}", *settings, *words]

    def run(self, *words: str, root: bool = False, **variables: str) -> str:
        """Run them to their end, which is to be a good one; returns what they say."""
        command = self.command(*words, root=root, **variables)
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def terminal(self, root: bool = False) -> Terminal:
        """One whose shell waits for a line of this user; a new one, if all others are busy."""
        for terminal, owner in self._terminals:
            if owner == root and terminal.waits:
                return terminal
        terminal = Terminal(self.command(*_SHELL, root=root, **Terminal.environment()))
        self._terminals.append((terminal, root))
        for line in ["set -o pipefail", *self.exported]:
            terminal.type(line)
            assert terminal.wait() == 0
        return terminal

    def within(self, script: str) -> None:
        """Do this to its network."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "sh", "-c", script]
        subprocess.run(enter, check=True, timeout=PATIENCE)

    def disk(self, name: str, size: int, data: bytes = b"") -> Path:
        """A block device for a while, with this in the beginning."""
        image = Path(tempfile.mkdtemp(dir=self._folder)) / name
        with image.open("wb") as file:
            file.write(data)
            file.truncate(size)
        made = subprocess.run(
            ["losetup", "-f", "--show", str(image)], capture_output=True, text=True
        )
        if made.returncode != 0:
            pytest.skip(f"there can be no loop device: {made.stderr}")
        loop = made.stdout.strip()
        self._disks.append(loop)
        there = self.path(f"/dev/{name}")
        os.mknod(there, 0o600 | 0o060000, os.stat(loop).st_rdev)
        return image

    def renew(self) -> None:
        """Take away what the last recipe has left, and put there what the next one finds."""
        self._kill()
        self._leave()
        for each in ("/dev/sdb", "/dev/sdc", "/tmp/src.sock"):
            self.path(each).unlink(missing_ok=True)
        for each in ("/home", "/src", "/dst", "/run/user"):
            shutil.rmtree(self.path(each), ignore_errors=True)
        rng = random.Random(self.name)
        self.write("/src/file", rng.randbytes(300_000))
        self.write("/src/words", "gamma\nalpha\nbeta\n")
        self.write("/src/folder/of mine", f"on {self.name}")
        for name in ("/dst", "/run/user/1000", "/home/me"):
            self.path(name).mkdir(parents=True)
        for name in ("/src", "/dst", "/run/user/1000", "/home/me"):
            self.own(name)
        self.path("/home/root").mkdir(mode=0o700)

    def _leave(self) -> None:
        """Nobody has a terminal, and there are no disks."""
        for terminal, _ in self._terminals:
            terminal.end()
        self._terminals.clear()
        self.exported.clear()
        for loop in self._disks:
            subprocess.run(["losetup", "-d", loop], check=True)
        self._disks.clear()

    def _kill(self) -> None:
        """End everything but its first process."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes(), lambda: f"the end of {self.processes()}")

    def processes(self) -> dict[int, str]:
        """What runs there, without the first one, and what that waits for: the words of each."""
        ours = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = {}
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(each / "ns" / "pid") == ours:
                    words = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(each.name)] = words.strip()
        found.pop(self.pid)
        return {pid: words for pid, words in found.items() if words and words != _IDLE}

    def end(self) -> None:
        """End it, with all that runs there."""
        self._process.end()
        self._leave()
        shutil.rmtree(self._folder)


class World:
    """Both machines, joined by a wire."""

    def __init__(self) -> None:
        self.here, self.far = Machine("here"), Machine("far")
        self._sshd: Program | None = None
        self._keys = Path(tempfile.mkdtemp(prefix="bp-keys-"))
        write_key(self._keys / "key")
        self._join()
        for name in ("host", "me", "root"):
            make = ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(self._keys / name)]
            subprocess.run(make, check=True)
        self.far.write("/etc/ssh/sshd_config", known_to_sshd(_SSHD))
        self.far.write("/etc/ssh/host", (self._keys / "host").read_bytes(), 0o600)
        self.far.path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def _join(self) -> None:
        """By a wire, which is gone with them."""
        wire = f"ip link add wire type veth peer name wire netns {self.here.pid}"
        for machine, first in ((self.far, f"{wire} && "), (self.here, "")):
            address = f"ip addr add {ADDRESSES[machine.name]}/24 dev wire"
            machine.within(f"{first}{address} && ip link set wire up")

    def renew(self) -> None:
        """As nobody had done anything so far."""
        for machine in (self.here, self.far):
            machine.renew()
        for user, owner in (("me", ME), ("root", 0)):
            home = f"/home/{user}"
            host = (self._keys / "host.pub").read_text()
            self.here.write(f"{home}/.ssh/known_hosts", f"* {host}")
            self.here.write(f"{home}/.ssh/id_ed25519", (self._keys / user).read_bytes(), 0o600)
            public = [self._keys / f"{each}.pub" for each in ("me", "root")]
            self.far.write(f"{home}/.ssh/authorized_keys", b"".join(map(Path.read_bytes, public)))
            for machine in (self.here, self.far):
                machine.own(home, owner)
        if self._sshd is not None:
            self._sshd.end()
        self._sshd = Program(self.far.command("/usr/sbin/sshd", "-De", root=True))
        self._sshd.wait_line("^Server listening on ")

    def share_key(self) -> None:
        """Both have the same one, in a file that is named in the environment."""
        key = (self._keys / "key").read_bytes()
        for machine in (self.here, self.far):
            for user, owner in (("me", ME), ("root", 0)):
                machine.write(f"/home/{user}/.bpipe.key", key, 0o600)
                machine.own(f"/home/{user}/.bpipe.key", owner)
            machine.exported.append("export BPIPE_SECRET_FILE=~/.bpipe.key")

    def end(self) -> None:
        """End both."""
        for machine in (self.here, self.far):
            machine.end()
        if self._sshd is not None:
            self._sshd.end()
        shutil.rmtree(self._keys)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Both machines; skips the test where there can be none."""
    need("sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "setpriv", "ip", "losetup")
    if os.geteuid() != 0:
        pytest.skip("only root can make the two machines")
    overlay = ["unshare", "-mn", "sh", "-c", _TRY, "sh"]
    if subprocess.run(overlay, capture_output=True).returncode != 0:
        pytest.skip("there can be no namespaces with a disk of their own here")
    world = World()
    try:
        yield world
    finally:
        world.end()
