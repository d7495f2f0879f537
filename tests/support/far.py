"""The far side by hand: an interpreter that is sent a line, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bpipe.remote import PYTHON, bundle
from bpipe.remote.carrier import PROMPT, Errand


class Token:
    """What makes relays and a holder belong together, and the lines that say so."""

    def __init__(self) -> None:
        self.bytes = secrets.token_bytes(32)
        self.name = f"bpipe-{hashlib.sha256(self.bytes).hexdigest()[:32]}"
        self.words: dict[str, Any] = {
            "nonce": secrets.token_hex(8),
            "token": self.bytes.hex(),
            "name": self.name,
            "patience": 10.0,
        }

    @property
    def relay(self) -> bytes:
        """The line of a session that is established."""
        return bundle.line(bundle.RELAY, self.words)

    def starter(self, what: str | Sequence[str]) -> bytes:
        """The line of one that is not."""
        return bundle.line(bundle.HOLDER, {**self.words, "errand": Errand(what).words})


class Far:
    """A python3 from this folder that has its prompt, over pipes or over one socket."""

    def __init__(self, folder: Path, *, pipes: bool = False, **more: Any) -> None:
        argv = [str(folder / PYTHON[0]), *PYTHON[1:]]
        self._piped = pipes
        if pipes:
            stdin, self.sends = os.pipe()
            self.hears, stdout = os.pipe()
        else:
            ours, its = socket.socketpair()
            self.sends, self.hears = os.dup(ours.fileno()), ours.detach()
            stdin, stdout = os.dup(its.fileno()), its.detach()
        self.process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, **more
        )
        os.close(stdin)
        os.close(stdout)
        assert self.read(len(PROMPT)) == PROMPT

    def __enter__(self) -> Far:
        return self

    def __exit__(self, *error: object) -> None:
        self.hang_up()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        while data:
            data = data[os.write(self.sends, data) :]

    def read(self, count: int) -> bytes:
        """So many bytes, or what comes before the end."""
        found = b""
        while len(found) < count:
            assert select.select([self.hears], [], [], 20)[0], f"nothing but {found!r}"
            try:
                data = os.read(self.hears, count - len(found))
            except ConnectionResetError:
                break
            if not data:
                break
            found += data
        return found

    def answer(self, line: bytes, nonce: str) -> dict[str, Any]:
        """What it says to this line, of which nothing else may be said."""
        self.send(line)
        found = b""
        while not found.endswith(b"\n") and (data := self.read(1)):
            found += data
        begin = b"\0bpipe:" + nonce.encode() + b" "
        assert found.startswith(begin), found
        answer: dict[str, Any] = json.loads(found[len(begin) :])
        return answer

    def say_end(self) -> None:
        """Nothing more is sent."""
        if self._piped:
            os.close(self.sends)
            self.sends = -1
        else:
            with socket.socket(fileno=os.dup(self.sends)) as sock:
                sock.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Nothing is sent nor heard any more."""
        for name in ("sends", "hears"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def end(self) -> int:
        """Its exit status. It has said nothing on stderr."""
        assert self.process.stderr is not None
        status = self.process.wait(20)
        assert self.process.stderr.read() == b""
        return status


def listen(token: Token) -> socket.socket:
    """In place of a holder."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.bind("\0" + token.name)
    sock.listen()
    return sock


def holders(name: str) -> Iterator[int]:
    """The pids of those who listen at this name."""
    with open("/proc/net/unix") as file:
        inodes = {line.split()[6] for line in file if line.split()[-1] == f"@{name}"}
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and inodes & _sockets(each):
            yield int(each.name)


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        for each in (process / "fd").iterdir():
            target = os.readlink(each)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether it ends in this time."""
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)
