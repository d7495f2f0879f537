"""The lines that the README and the manual tell people to type, and a shell to type them in.

A test takes a recipe from there and runs it as it stands; only ports, paths and the names of hosts
are others.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.helpers import File, Program, Proxy, Start

README: Final = Path(__file__).parents[2] / "README.md"
MANUAL: Final = Path(__file__).parents[2] / "man" / "bpipe.1"
RECIPES: Final = MANUAL.with_name("bpipe-recipes.7")

_PLACES: Final = "/usr/bin:/bin:/usr/sbin:/sbin"
_PORTS: Final = range(20_000, 32_000)  # not those that the system gives to whoever asks for any


def recipe(title: str) -> list[str]:
    """The lines of the recipe with this title, of the README or of the page of recipes.

    One that goes on in the next is one. In the README those for this machine have no prompt.
    """
    expression = rf"^\*\*{re.escape(title)}\*\*(?:.+\n)+\n((?: {{4}}.+\n)+)"
    found = re.search(expression, README.read_text(), re.MULTILINE)
    if found is not None:
        return re.sub(r"\\\n +", "", found[1]).replace("\n    ", "\n").strip().splitlines()
    block = blocks(title, RECIPES)[0].replace(r"\e", "\\")
    return block.strip().splitlines()


def blocks(section: str, page: Path = MANUAL) -> list[str]:
    """What is shown literally in this section of a manual page."""
    manual = re.split(r"^\.S[sh] (.*)\n", page.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\e\n +", "", manual[manual.index(section) + 1])
    return re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", text, re.MULTILINE)


def typed(line: str) -> str:
    """What is typed of a line that begins with the prompt of some machine."""
    return re.sub(r"^(far)?[$#] ", "", line)


def other(line: str, places: dict[str, str]) -> str:
    """This line with other ports, paths or hosts; each of those that are replaced stands in it."""
    for real, ours in places.items():
        assert real in line
        line = line.replace(real, ours)
    return line


def need(*programs: str) -> None:
    """Skip the test where one of these is not installed."""
    for each in programs:
        if shutil.which(each, path=_PLACES) is None:
            pytest.skip(f"{each} is not installed")


def free_port() -> int:
    """A port at which nobody listens: for programs that cannot tell which one they were given."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def answers(port: int) -> bool:
    """Whether somebody listens at this port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def resets(count: int, largest: int, *, upward: bool | None = None) -> list[Cut]:
    """So many cuts, each within this many bytes; always the same ones."""
    rng = random.Random(count)
    return [
        Cut(Fault.RESET, rng.random() < 0.5 if upward is None else upward, rng.randrange(largest))
        for _ in range(count)
    ]


class Shell:
    """Runs lines in a folder, as somebody would type them there; bpipe is installed in it."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.folder = folder
        self._start = start
        self._entered: list[Program] = []
        self.script("bpipe", f'exec {shlex.quote(sys.executable)} -m bpipe "$@"')

    def script(self, name: str, command: str) -> None:
        """Put a program with this name before all others."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o700)

    def enter(
        self,
        line: str,
        environment: Mapping[str, str] | None = None,
        *,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> Program:
        """Type a line. What it starts is in a process group of its own."""
        return self.run("sh", "-c", line, environment=environment, stdin=stdin, stdout=stdout)

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        stdin: File = subprocess.DEVNULL,
        stdout: File = subprocess.DEVNULL,
    ) -> Program:
        """The same for a command that needs no shell. A PATH comes after our own folder."""
        added = dict(environment or {})
        places = ":".join([str(self.folder), added.pop("PATH", _PLACES), _PLACES])
        variables = [f"{name}={value}" for name, value in added.items()]
        prefix = "setsid", "env", f"-C{self.folder}", f"PATH={places}", *variables
        program = self._start.program(*prefix, *command, stdin=stdin, stdout=stdout)
        self._entered.append(program)
        return program

    def end(self) -> None:
        """End what still runs, with all that it has started."""
        for each in self._entered:
            if each.running:
                os.killpg(each.pid, signal.SIGKILL)


def listening(program: Program) -> str:
    """The port at which a bpipe listens that was typed with port 0."""
    line = program.wait_line(r"^bpipe: (listening on|connections to) ")
    found = re.search(r"\S+:(\d+)\b", line)
    assert found is not None
    return found[1]


def any_service(
    start: Start,
    shell: Shell,
    key: Path,
    port: int,
    cuts: Iterable[Cut],
    lines: list[str] | None = None,
) -> tuple[str, Proxy]:
    """The README's recipe, or other lines like it, for the service at this port.

    Returns the port here at which it can be had, and the proxy between the two that cuts.
    """
    far, near = lines or recipe("Any service")[:2]
    secret = {"BPIPE_SECRET_FILE": str(key)}
    far = other(typed(far), {":7022": ":0", "localhost:22": f"localhost:{port}"})
    proxy = start.proxy(f"127.0.0.1:{listening(shell.enter(far, secret))}", cuts)
    near = other(re.sub(r"\S+:7022", proxy.address, typed(near)), {":2222": ":0"})
    return listening(shell.enter(near, secret)), proxy
