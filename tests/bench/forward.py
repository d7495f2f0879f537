"""How fast connections are carried to a service: many together, one alone, and a question.

``bpipe connect --from`` and ``bpipe listen -k --to`` beside two hops of ``socat``, and, sealed,
beside ``ssh -L`` with a server of its own. The service counts what has come until the end of the
stream, and says so; or, for questions, it answers the same.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import selectors
import shutil
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.peers import LOOPBACK, bpipe, free_port
from tests.bench.processes import PATIENCE, Children, wait_listening
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import Column, Sample, Table, show_microseconds, show_middle_rate, show_size
from tests.end_to_end.callers import Echo
from tests.end_to_end.data import until

SIZE: Final = 512 << 20  # bytes, over all connections together
MANY: Final = 100  # connections
COUNT: Final = 1000  # questions
QUESTION: Final = bytes(100)
ROUNDS: Final = 5

COLUMNS: Final = [
    Column("one", "one connection", show_middle_rate),
    Column("many", "many together", show_middle_rate),
    Column("ratio", "many / one", "{:.2f}".format),
    Column("p50", "question p50", show_microseconds),
    Column("p99", "p99", show_microseconds),
]
_STEP: Final = bytes(1 << 18)
_COUNT: Final = struct.Struct("!Q")


class Tool(NamedTuple):
    """One way to a service: what is started there, and here. Names are those of ``Place``."""

    name: str
    far: str
    near: str
    needs: str = ""  # a program


class Place(NamedTuple):
    """What is filled in."""

    service: str  # where it listens
    far: int  # a port
    near: int  # a port, where connections are made
    folder: Path
    user: str


_MOST: Final = "--max-sessions 200"
TOOLS: Final = (
    Tool(
        "bpipe",
        f"bpipe listen {LOOPBACK}:{{far}} -k --insecure {_MOST} --to {{service}}",
        f"bpipe connect {LOOPBACK}:{{far}} --insecure {_MOST} --from {LOOPBACK}:{{near}}",
    ),
    Tool(
        "bpipe sealed",
        f"bpipe listen {LOOPBACK}:{{far}} -k --secret {{folder}}/key {_MOST} --to {{service}}",
        f"bpipe connect {LOOPBACK}:{{far}} --secret {{folder}}/key {_MOST}"
        f" --from {LOOPBACK}:{{near}}",
    ),
    *(
        Tool(
            name,
            f"socat {size} TCP-LISTEN:{{far}},bind={LOOPBACK},fork,reuseaddr TCP:{{service}}",
            f"socat {size} TCP-LISTEN:{{near}},bind={LOOPBACK},fork,reuseaddr"
            f" TCP:{LOOPBACK}:{{far}}",
            "socat",
        )
        for name, size in (("2 socat", ""), ("2 socat 1M", "-b 1048576"))
    ),
    Tool(
        "ssh -L",
        "/usr/sbin/sshd -D -e -f {folder}/sshd_config -p {far}",
        f"ssh -N -F none -i {{folder}}/id -p {{far}} -o StrictHostKeyChecking=no"
        " -o UserKnownHostsFile=/dev/null -o ExitOnForwardFailure=yes"
        f" -L {LOOPBACK}:{{near}}:{{service}} {{user}}@{LOOPBACK}",
        "/usr/sbin/sshd",
    ),
)


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark."""
    size = (options.sizes or (SIZE,))[0]
    wanted = [each for each in TOOLS if not options.only or each.name in options.only]
    here = [each for each in wanted if not each.needs or shutil.which(each.needs)]
    missing = [f"without {each.name}: no {each.needs}" for each in wanted if each not in here]
    title = f"Connections to a service, {show_size(size)}, one or {MANY}"
    subjects = [each.name for each in here if each.name.startswith("bpipe")]
    table = Table(title, COLUMNS, subjects, notes=missing)
    with folder() as place:
        runs: dict[str, Callable[[], Sample]] = {
            each.name: partial(_measure, each, place, size, options.count or COUNT) for each in here
        }
        interleave(table, options.rounds or ROUNDS, runs)
    yield table


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Where the keys are, and what a server of ssh needs."""
    with scratch(Options(sealed=True)) as place:
        if shutil.which("ssh-keygen"):
            for name in ("host", "id"):
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
                subprocess.run(command, check=True)
            shutil.copy(place / "id.pub", place / "authorized")
            (place / "sshd_config").write_text(
                f"HostKey {place}/host\nAuthorizedKeysFile {place}/authorized\nStrictModes no\n"
                f"ListenAddress {LOOPBACK}\nPidFile none\nUsePAM no\nPermitRootLogin yes\n"
            )
            Path("/run/sshd").mkdir(exist_ok=True)
        yield place


def _measure(tool: Tool, folder: Path, size: int, count: int) -> Sample:
    with Counter() as counter, opened(tool, folder, counter.address) as where:
        _send(where, counter, 1, 1 << 20)
        one = _send(where, counter, 1, size)
        many = _send(where, counter, MANY, size // MANY)
    with Echo() as echo, opened(tool, folder, echo.address) as where:
        times = _ask(where, count)
    return {
        "one": one,
        "many": many,
        "ratio": many / one,
        "p50": statistics.median(times),
        "p99": statistics.quantiles(times, n=100)[98],
    }


@contextlib.contextmanager
def opened(tool: Tool, folder: Path, service: str) -> Iterator[tuple[str, int]]:
    """Both processes, and where connections can be made that they carry."""
    with Children() as children:
        place = Place(service, free_port(), free_port(), folder, getpass.getuser())
        for template, port in ((tool.far, place.far), (tool.near, place.near)):
            program, *words = template.format(**place._asdict()).split()
            command = [*(bpipe() if program == "bpipe" else [program]), *words]
            wait_listening(children.start(command), port=port)
        yield LOOPBACK, place.near


def _send(where: tuple[str, int], counter: Counter, connections: int, size: int) -> float:
    """Send so many bytes over each of them, at once; returns bytes a second of all together.

    The clock runs when each has carried one byte.
    """
    with contextlib.ExitStack() as stack:
        before = counter.begun
        left = {}
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(where, PATIENCE))
            sock.sendall(b"x")
            left[sock] = size
        until(lambda: counter.begun == before + connections, "each to carry something")
        began = time.monotonic()
        counted = _push(left)
        assert counted == (size + 1) * connections
        return counted / (time.monotonic() - began)


def _push(left: dict[socket.socket, int]) -> int:
    """Send what is left for each, and its end; returns how much was counted there."""
    counted = 0
    with selectors.DefaultSelector() as selector:
        for sock in left:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE, sock)
        while selector.get_map():
            for key, _ in selector.select(PATIENCE):
                sock = key.data
                if left[sock]:
                    left[sock] -= sock.send(memoryview(_STEP)[: left[sock]])
                    if not left[sock]:
                        sock.shutdown(socket.SHUT_WR)
                        selector.modify(sock, selectors.EVENT_READ, sock)
                else:
                    counted += _COUNT.unpack(sock.recv(_COUNT.size))[0]
                    selector.unregister(sock)
    return counted


def _ask(where: tuple[str, int], count: int) -> list[float]:
    """The seconds that questions take over one connection; the first do not count."""
    times = []
    with socket.create_connection(where, PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(-count // 10, count):
            began = time.perf_counter()
            sock.sendall(QUESTION)
            left = len(QUESTION)
            while left:
                left -= len(sock.recv(left))
            if number >= 0:
                times.append(time.perf_counter() - began)
    return times


class Counter:
    """A service that counts the bytes of each connection, and says how many, in one thread."""

    def __init__(self) -> None:
        self._listening = socket.create_server((LOOPBACK, 0), backlog=512)
        self._waker, self._woken = os.pipe()[::-1]
        self.address = "{}:{}".format(*self._listening.getsockname())
        self.begun = 0  # connections that have carried something
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._waker)  # which ends the thread
        self._thread.join(PATIENCE)
        os.close(self._woken)
        self._listening.close()

    def _run(self) -> None:
        counts: dict[socket.socket, int] = {}
        memory = bytearray(1 << 18)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    if not isinstance(sock, socket.socket):
                        return
                    if sock is self._listening:
                        accepted = sock.accept()[0]
                        selector.register(accepted, selectors.EVENT_READ)
                        counts[accepted] = 0
                    elif count := sock.recv_into(memory):
                        self.begun += not counts[sock]
                        counts[sock] += count
                    else:
                        sock.sendall(_COUNT.pack(counts.pop(sock)))
                        selector.unregister(sock)
                        sock.close()
