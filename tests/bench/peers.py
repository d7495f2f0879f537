"""The programs that are compared, and how each is started as a listener and as a caller."""

from __future__ import annotations

import enum
import functools
import re
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bpipe.cli.values import size
from tests.bench.processes import Child, Children, File, wait_listening

LOOPBACK: Final = "127.0.0.1"


class Way(enum.Enum):
    """How a session is used."""

    BOTH = enum.auto()
    ONE = enum.auto()  # from the caller's stdin to the listener's stdout


class Ends(NamedTuple):
    """Two commands, with the names of ``Place`` in braces."""

    listen: str
    connect: str


class Flags(NamedTuple):
    """What is added (as ``{way}``) when bytes go one way only."""

    receive: str
    send: str


NO_FLAGS: Final = Flags("", "")


@dataclass(frozen=True)
class Tool:
    """One program, as people would use it."""

    name: str
    tcp: Ends
    unix: Ends | None = None  # None: it has no Unix sockets
    one_way: Flags = NO_FLAGS
    behind: str = ""  # started beside the listener: what has its stdin and stdout
    two_way: bool = True
    encrypts: bool = False

    def missing(self) -> str:
        """Why it cannot be run on this machine; empty if it can."""
        commands = [*self.tcp, self.behind] if self.behind else list(self.tcp)
        for program in sorted({command.split()[0] for command in commands}):
            if program != "bpipe" and shutil.which(program) is None:
                return f"{program} is not installed"
        for option in ("--secret", "--links"):
            if option in self.tcp.connect and not _bpipe_can(option):
                return f"this bpipe has no {option}"
        return ""


BPIPE: Final = Tool(
    "bpipe",
    tcp=Ends(
        "bpipe listen --insecure {way} {host}:{port}",
        "bpipe connect --insecure {way} {host}:{port}",
    ),
    unix=Ends("bpipe listen {way} unix:{path}", "bpipe connect {way} unix:{path}"),
    one_way=Flags("--recv-only", "--send-only"),
)
SEALED: Final = Tool(
    "bpipe sealed",
    tcp=Ends(
        "bpipe listen --secret {key} {way} {host}:{port}",
        "bpipe connect --secret {key} {way} {host}:{port}",
    ),
    unix=Ends(
        "bpipe listen --secret {key} {way} unix:{path}",
        "bpipe connect --secret {key} {way} unix:{path}",
    ),
    one_way=Flags("--recv-only", "--send-only"),
    encrypts=True,
)
PEERS: Final = (
    Tool(
        "nc",
        tcp=Ends("nc {way} -l {host} {port}", "nc {way} {host} {port}"),
        unix=Ends("nc {way} -l -U {path}", "nc {way} -U {path}"),
        one_way=Flags("-d", "-N"),
    ),
    Tool(
        "socat",
        tcp=Ends(
            "socat {way} TCP-LISTEN:{port},bind={host},reuseaddr -",
            "socat {way} - TCP:{host}:{port}",
        ),
        unix=Ends("socat {way} UNIX-LISTEN:{path} -", "socat {way} - UNIX-CONNECT:{path}"),
        one_way=Flags("-u", "-u"),
    ),
    Tool(
        "socat 1M",
        tcp=Ends(
            "socat -b 1048576 {way} TCP-LISTEN:{port},bind={host},reuseaddr -",
            "socat -b 1048576 {way} - TCP:{host}:{port}",
        ),
        unix=Ends(
            "socat -b 1048576 {way} UNIX-LISTEN:{path} -",
            "socat -b 1048576 {way} - UNIX-CONNECT:{path}",
        ),
        one_way=Flags("-u", "-u"),
    ),
    Tool(
        "ncat",
        tcp=Ends("ncat {way} -l {host} {port}", "ncat {way} {host} {port}"),
        unix=Ends("ncat {way} -l -U {path}", "ncat {way} -U {path}"),
        one_way=Flags("--recv-only", "--send-only"),
    ),
    Tool(
        "ncat --ssl",
        tcp=Ends("ncat --ssl {way} -l {host} {port}", "ncat --ssl {way} {host} {port}"),
        one_way=Flags("--recv-only", "--send-only"),
        encrypts=True,
    ),
    Tool(
        "mbuffer",
        tcp=Ends(
            "mbuffer -q -s 128k -m 64M -I {port}", "mbuffer -q -s 128k -m 64M -O {host}:{port}"
        ),
        two_way=False,
    ),
    Tool(
        "spiped",
        tcp=Ends(
            "spiped -d -F -s [{host}]:{port} -t {spare} -k {key}",
            "spipe -t [{host}]:{port} -k {key}",
        ),
        behind="nc {way} -l -U {spare}",
        one_way=Flags("-d", ""),
        encrypts=True,
    ),
)


class Place(NamedTuple):
    """Where a listener listens, and what else its command needs."""

    host: str
    port: int
    path: str  # of a Unix socket
    spare: str  # of another one
    key: str  # a file


class Side(NamedTuple):
    """One end of a session: its processes; the last one has stdin and stdout."""

    children: list[Child]

    @property
    def main(self) -> Child:
        """Whose stdin and stdout count."""
        return self.children[-1]

    def mark(self) -> None:
        """What it has cost so far does not count."""
        for child in self.children:
            child.mark()

    def look(self) -> None:
        """Note its memory."""
        for child in self.children:
            child.look()

    @property
    def peak_memory(self) -> int:
        """The most bytes that were resident, as of the last ``look``."""
        return sum(child.peak_memory for child in self.children)

    def said(self, expression: str, since: float = 0.0) -> list[tuple[float, re.Match[str]]]:
        """What it said since then that matches, and when."""
        return [
            (line.at, found)
            for line in self.main.lines
            if line.at > since and (found := re.search(expression, line.text))
        ]

    def sent_again(self, since: float = 0.0) -> int:
        """The bytes that a bpipe says to have sent twice."""
        found = self.said(r"^bpipe: connected again .*, ([\d.]+) (\w+) sent again$", since)
        return sum(size(match[1] + match[2]) for _, match in found)

    def reap(self) -> float:
        """Wait for its end, the main process first; returns the CPU seconds since ``mark``."""
        return sum(child.reap() for child in reversed(self.children))


class Session:
    """Starts the two ends of one tool: first ``listen``, then ``connect``.

    The prefixes are commands in front of those of the caller (``near``) and of the listener
    (``far``), to have them in another network. ``reach``: where the caller finds the listener,
    if not at its port of ``host``.
    """

    def __init__(
        self,
        children: Children,
        tool: Tool,
        folder: Path,
        *,
        way: Way = Way.ONE,
        unix: bool = False,
        host: str = LOOPBACK,
        near: tuple[str, ...] = (),
        far: tuple[str, ...] = (),
    ) -> None:
        self.tool = tool
        self.children = children
        self.caller: Side | None = None  # once it is started
        self._unix = unix
        self._way = tool.one_way if way is Way.ONE else NO_FLAGS
        self._near, self._far = near, far
        token = secrets.token_hex(4)
        path, spare = str(folder / token), str(folder / f"{token}.spare")
        self.place = Place(host, free_port(), path, spare, str(folder / "key"))

    def listen(
        self, *, stdin: File | Child = subprocess.DEVNULL, stdout: File = subprocess.PIPE
    ) -> Side:
        """Start the listener, and wait until it can be called."""
        templates = [self._ends.listen]
        if self.tool.behind:
            templates.append(self.tool.behind)
        commands = [_command(each, self.place, self._way.receive) for each in templates]
        started = [self.children.start([*self._far, *each]) for each in commands[:-1]]
        main = self.children.start([*self._far, *commands[-1]], stdin=stdin, stdout=stdout)
        if self._unix:
            wait_listening(main, path=self.place.path)
        else:
            wait_listening((started or [main])[0], port=self.place.port)
        if self.tool.behind:
            wait_listening(main, path=self.place.spare)
        return Side([*started, main])

    def connect(
        self,
        *,
        stdin: File | Child,
        stdout: File = subprocess.DEVNULL,
        reach: tuple[str, int] | None = None,
    ) -> Side:
        """Start the caller."""
        place = self.place
        if reach is not None:
            place = place._replace(host=reach[0], port=reach[1])
        command = _command(self._ends.connect, place, self._way.send)
        main = self.children.start([*self._near, *command], stdin=stdin, stdout=stdout)
        self.caller = Side([main])
        return self.caller

    @property
    def _ends(self) -> Ends:
        if not self._unix:
            return self.tool.tcp
        assert self.tool.unix is not None
        return self.tool.unix


def _command(template: str, place: Place, way: str) -> list[str]:
    program, *words = template.format(way=way, **place._asdict()).split()
    return [*(bpipe() if program == "bpipe" else [program]), *words]


@functools.cache
def bpipe() -> list[str]:
    """The bpipe of this Python, as its users start it."""
    script = Path(sys.executable).with_name("bpipe")
    return [str(script)] if script.exists() else [sys.executable, "-m", "bpipe"]


@functools.cache
def _bpipe_can(option: str) -> bool:
    said = subprocess.run([*bpipe(), "connect", "--help"], capture_output=True, check=True)
    return option.encode() in said.stdout


def make_key(folder: Path, *, sealed: bool) -> None:
    """The file ``key`` for all that encrypt: one of bpipe's if bpipe is among them."""
    file = folder / "key"
    if sealed and not SEALED.missing():
        subprocess.run([*bpipe(), "keygen", str(file)], check=True, capture_output=True)
    else:
        file.write_bytes(secrets.token_bytes(32))


def free_port() -> int:
    """One that nobody uses now."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port
