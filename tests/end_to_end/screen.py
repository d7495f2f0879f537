"""A terminal with a shell in it, as a user has it: keys go in, and what comes out is rendered."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pyte

from tests.end_to_end.data import PATIENCE, Producer, until
from tests.end_to_end.helpers import Bpipe, Proxy, Start

ROWS: Final = 24
PROMPT: Final = "$"
DRAWN: Final = r"elapsed|held|/s  |█|░"  # some part of the status line
CONNECTED: Final = r"connected( to \S+)?  ([█░]+ \d+%  )?(sent )?\d.*(B|B/s|idle).*"

# A session of its own, whose terminal is stdin.
_LOGIN: Final = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
BASH: Final = ("bash", "--norc", "--noprofile", "--noediting", "-i")


class Screen:
    """The terminal. ``bpipe`` is a command in its shell, whose prompt is a dollar sign.

    In another shell than bash, it is one if the environment's PATH has it.
    """

    def __init__(
        self,
        width: int,
        environment: dict[str, str] | None = None,
        shell: Sequence[str] = BASH,
        folder: Path | None = None,
    ) -> None:
        self.output = b""  # everything that was written to the terminal
        self._screen = pyte.Screen(width, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._keys, terminal = os.openpty()
        self.name = os.ttyname(terminal)  # where other programs can write to it
        self.resize(width)
        variables = {"TERM": "xterm-256color", "PS1": f"{PROMPT} ", "PYTHON": sys.executable}
        variables["BASH_FUNC_bpipe%%"] = '() { "$PYTHON" -m bpipe "$@"; }'
        kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self._shell = subprocess.Popen(
            [sys.executable, "-c", _LOGIN, *shell],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env={**kept, **variables, **(environment or {})},
        )
        os.close(terminal)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self.wait_last(rf"\{PROMPT}")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # the last process has left the terminal
            while data := os.read(self._keys, 1 << 16):
                with self._lock:
                    self.output += data
                    self._stream.feed(data)

    def resize(self, width: int) -> None:
        """Make the terminal as wide as this."""
        with self._lock:
            self._screen.resize(columns=width)
            fcntl.ioctl(self._keys, termios.TIOCSWINSZ, struct.pack("4H", ROWS, width, 0, 0))

    def press(self, keys: str) -> None:
        """Press keys; ``^C`` is a control character."""
        os.write(self._keys, keys.encode())

    def enter(self, command: str) -> None:
        """Type a command."""
        self.press(command + "\n")

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the empty rest."""
        with self._lock:
            lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def last(self) -> str:
        """The last line that is not empty."""
        return (self.lines or [""])[-1]

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._keys)[3] & termios.ECHO)

    @property
    def cursor_hidden(self) -> bool:
        """Whether somebody has hidden the cursor."""
        return bool(self._screen.cursor.hidden)

    def wait_last(self, expression: str) -> str:
        """Wait until the last line matches as a whole; returns it."""
        until(
            lambda: re.fullmatch(expression, self.last),
            lambda: f"{expression!r} below {self.lines}",
        )
        return self.last

    def wait_line(self, expression: str) -> None:
        """Wait until some line matches as a whole."""
        until(
            lambda: any(re.fullmatch(expression, line) for line in self.lines),
            lambda: f"{expression!r} in {self.lines}",
        )

    def end(self) -> None:
        """End the shell and what runs in it."""
        self._shell.kill()
        self._shell.wait()
        self._thread.join(PATIENCE)
        os.close(self._keys)


Open = Callable[..., Screen]  # with a width, and variables for its environment


class Far:
    """A listener behind a proxy, and the named pipe that is the stdin of who connects."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.listener: Bpipe = start.bpipe(
            "listen", "127.0.0.1:0", "--recv-only", "--heartbeat", "0.2", stdout=PIPE
        )
        self.proxy: Proxy = start.proxy(self.listener.address)
        self.consumer = self.listener.drain()
        self.fifo = folder / "data"
        os.mkfifo(self.fifo)
        options = "--send-only --heartbeat 0.2"
        self.command = f"bpipe connect {self.proxy.address} {options} < {self.fifo}"

    def produce(self) -> Producer:
        """Begin to write to the named pipe, some 50 MB each second."""
        return Producer(self.fifo.open("wb", buffering=0), None, pause=0.002)
