"""An sshd of the tests' own, with far sides to log in to, and the near side that calls them.

The server has a mount namespace of its own. There it has another ``/etc/passwd``, to which each
far side adds a user: with its shell, its Python, its home, and a user id that nobody else has, by
which its processes are known. The far sides' ``/tmp`` is theirs, and empty.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bpipe.demo.faults import Cut
from tests.end_to_end.data import PATIENCE, until
from tests.end_to_end.helpers import File, Program, Proxy, Start
from tests.end_to_end.recipes import Shell, free_port, need
from tests.end_to_end.remains import children

PRIVILEGES: Final = Path("/run/sshd")  # without which root's sshd does not start
PLACES: Final = "/usr/local/bin:/usr/bin:/bin"
THERE: Final = Path("/srv")  # where the far sides see the folder of the server
FIRST_ID: Final = 61_000

SSHD: Final = f"""
ListenAddress {{address}}
Port {{port}}
HostKey {THERE}/host
AuthorizedKeysFile {THERE}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitUserEnvironment yes
MaxSessions 30
PerSourcePenalties no
Subsystem sftp internal-sftp
"""

SSH: Final = """
Host *
    HostName {address}
    Port {port}
    IdentityFile {key}
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    KexAlgorithms curve25519-sha256
    LogLevel ERROR
"""

# Everything under /tmp is hidden in the end: what is needed lies below THERE by then.
ENTER: Final = f"""
mount --bind "$1" {THERE} && mount --bind {THERE}/passwd /etc/passwd &&
mount -t tmpfs -o mode=1777 none /tmp && shift && exec "$@"
"""


class Far(NamedTuple):
    """A far side: a user of the server."""

    name: str
    home: Path  # as it is seen from here
    number: int  # of the user
    server: Sshd

    def __str__(self) -> str:
        return f"{self.name}@far"

    def run(self, *command: str) -> str:
        """Run this in the mount namespace of the server, as root; returns what it says."""
        enter = ["nsenter", "-m", "-t", str(self.server.pid), *command]
        run = subprocess.run(enter, check=True, capture_output=True, text=True, timeout=PATIENCE)
        return run.stdout

    def mount(self, *options: str) -> None:
        """Put a file system over its home."""
        self.run("mount", *options, str(THERE / self.name))

    def processes(self) -> dict[int, str]:
        """What runs there now, without what belongs to sshd: the words of each."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ended = not words  # and waits for whoever has inherited it
                if path.stat().st_uid == self.number and not (ended or words.startswith("sshd")):
                    found[int(path.name)] = words
        return found

    def sockets(self) -> set[str]:
        """The names of the abstract sockets which its processes have."""
        table = Path("/proc/net/unix").read_text()
        names = dict(re.findall(r" (\d+) (@.*)$", table, re.MULTILINE))
        held = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                held |= {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
        return {name for inode, name in names.items() if f"socket:[{inode}]" in held}

    def find(self, name: str) -> int:
        """The process which has this name, waited for."""
        until(lambda: self._named(name), lambda: f"{name} among {self.processes()}")
        return self._named(name)[0]

    def _named(self, name: str) -> list[int]:
        return [pid for pid, words in self.processes().items() if name in words]

    def wait_nothing_left(self, sockets: set[str] | frozenset[str] = frozenset()) -> None:
        """Wait until no process is left, none of these sockets, and no file that nobody wanted."""
        self.wait_no_process()
        table = Path("/proc/net/unix").read_text()
        assert [name for name in sockets if name in table] == []
        assert self.files() == set()

    def wait_no_process(self) -> None:
        """Wait until no process is left."""
        until(lambda: not self.processes(), lambda: f"the end of {self.processes()}")

    def own(self, path: Path) -> None:
        """Give it this folder of its home, with all that lies below."""
        self.run("chown", "-R", str(self.number), str(THERE / self.name / path.name))

    def files(self) -> set[str]:
        """All files of its home but our own, and all of its /tmp."""
        ours = "-not", "-path", "*/.ssh/*", "-not", "-path", "*/fish/*"  # which makes some itself
        home = self.run("find", str(THERE / self.name), "-not", "-type", "d", *ours)
        temporary = self.run("find", "/tmp", "-uid", str(self.number))
        return {*home.split(), *temporary.split()}


class Sshd:
    """The server; see ``missing``."""

    def __init__(
        self, options: str = "", address: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        """``options`` are lines of its configuration; ``within``: a command that runs it."""
        self.folder = Path(tempfile.mkdtemp(prefix="bp-sshd-"))
        self.folder.chmod(0o755)
        self.address = address
        self.key = self.folder / "user"
        self._numbers = itertools.count(FIRST_ID + os.getpid() % 1000 * 100)
        for name in ("host", "user"):
            make = ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(make, check=True)
        shutil.copy("/etc/passwd", self.folder / "passwd")
        PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
        self.port = free_port()
        known = known_to_sshd(SSHD.format(address=address, port=self.port) + options)
        (self.folder / "sshd.conf").write_text(known)
        enter = [*within, "unshare", "-m", "sh", "-c", ENTER, "sh", str(self.folder)]
        sshd = ["/usr/sbin/sshd", "-De", "-f", str(THERE / "sshd.conf")]
        self._process = Program([*enter, *sshd])
        self.pid = self._process.pid
        self._process.wait_line("^Server listening on ")

    def far(self, shell: str = "sh", python: str = "", **variables: str) -> Far:
        """A new far side: its login shell; its Python by version ("": the one of the system)."""
        number = next(self._numbers)
        name = f"far{number}"
        home = self.folder / name
        (home / ".ssh").mkdir(parents=True)
        os.chown(home, number, number)
        where = shell if "/" in shell else shutil.which(shell, path=PLACES)
        with (self.folder / "passwd").open("a") as file:
            file.write(f"{name}:*:{number}:{number}::{THERE / name}:{where}\n")
        far = Far(name, home, number, self)
        variables = {"PATH": PLACES, **(self._python(far, python) if python else {}), **variables}
        lines = [f"{key}={value}\n" for key, value in variables.items()]
        (home / ".ssh" / "environment").write_text("".join(lines))
        return far

    def _python(self, far: Far, version: str) -> dict[str, str]:
        """The variables by which this Python is found there."""
        prefix = self.folder / f"python{version}"
        if not prefix.exists():
            (prefix / "bin").mkdir(parents=True)
            if version == "none":
                for tool in ("sh", "cat", "ls"):
                    (prefix / "bin" / tool).symlink_to(f"/bin/{tool}")
            else:
                far.run("mount", "--bind", _prefix(version), str(THERE / prefix.name))
        there = THERE / prefix.name
        if version == "none":
            return {"PATH": f"{there}/bin"}
        return {"PATH": f"{there}/bin:{PLACES}", "LD_LIBRARY_PATH": f"{there}/lib"}

    @property
    def said(self) -> list[str]:
        """The lines of its log."""
        return self._process.lines

    def end(self) -> None:
        """End it, its sessions, and what has come of them."""
        for pid in _below(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def _below(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    try:
        found = children(pid)
    except OSError:  # it has just ended
        return []
    return [*found, *(one for each in found for one in _below(each))]


def known_to_sshd(conf: str) -> str:
    """An older sshd has no penalties, and does not start with an option that it does not know."""
    test = ["/usr/sbin/sshd", "-G", "-o", "PerSourcePenalties=no", "-f", "/dev/null"]
    known = subprocess.run(test, capture_output=True, timeout=PATIENCE).returncode == 0
    return conf if known else conf.replace("PerSourcePenalties no\n", "")


@cache
def _prefix(version: str) -> str:
    """Where this version of Python is installed; skips the test if it is not."""
    places = [shutil.which(f"python{version}"), *_pyenv(version)]
    for python in places:
        ask = [str(python), "-c", "import sys; print(sys.base_prefix)"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            run = subprocess.run(ask, check=True, capture_output=True, text=True, timeout=PATIENCE)
            return run.stdout.strip()
    pytest.skip(f"there is no Python {version}")


def _pyenv(version: str) -> list[Path]:
    return sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))


@cache
def missing() -> str:
    """Why there can be no such server here; empty if there can."""
    if os.geteuid() != 0:
        return "only root can have an sshd with users of its own"
    run = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/tmp"])
    return "" if run.returncode == 0 else "mount namespaces are not allowed here"


@contextlib.contextmanager
def serve(
    options: str = "", address: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Sshd]:
    """A server; skips the test where there can be none."""
    need("sshd", "ssh", "ssh-keygen", "unshare", "nsenter")
    if why := missing():
        pytest.skip(why)
    sshd = Sshd(options, address, within)
    try:
        yield sshd
    finally:
        sshd.end()


class Near:
    """The near side: a folder with ``bpipe`` and an ``ssh`` that knows the server."""

    def __init__(self, shell: Shell, sshd: Sshd, within: Sequence[str] = ()) -> None:
        self._within = within
        self.shell = shell
        self.sshd = sshd
        self.conf = shell.folder / "ssh.conf"
        self.configure()
        shell.script("ssh", f'exec /usr/bin/ssh -F {self.conf} "$@"')

    def configure(self, first: str = "", port: int | None = None, key: Path | None = None) -> None:
        """Write the configuration of ssh: these lines, then what every call needs."""
        where = {"address": self.sshd.address, "port": port or self.sshd.port}
        self.conf.write_text(first + SSH.format(key=key or self.sshd.key, **where))

    def ssh(
        self,
        far: Far,
        command: str,
        *options: str,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> Program:
        """``bpipe ssh OPTIONS FAR COMMAND``."""
        words = *self._within, *client(), *options, str(far), command
        return self.shell.run(*words, stdin=stdin, stdout=stdout)

    def through(self, start: Start, cuts: Iterable[Cut] = ()) -> Proxy:
        """Have every call go through a proxy, which makes these cuts."""
        proxy = start.proxy(f"{self.sshd.address}:{self.sshd.port}", cuts)
        self.configure(port=int(proxy.address.rpartition(":")[2]))
        return proxy

    def carriers(self) -> list[int]:
        """The ssh processes that have been started here, and live."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mine = str(self.conf).encode() in (path / "cmdline").read_bytes()
                if mine and (path / "comm").read_text() == "ssh\n":
                    found.append(int(path.name))
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill the ssh that has been started here, once there is one."""
        until(lambda: self.kill_now(number), "an ssh")

    def kill_now(self, number: int = signal.SIGKILL) -> bool:
        """Kill it if there is one; returns whether there was."""
        for pid in self.carriers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                return True
        return False


def client() -> list[str]:
    """What is tried; or ssh itself, to see that the tests are right."""
    return os.environ.get("BPIPE_TESTS_CLIENT", "bpipe ssh").split()
