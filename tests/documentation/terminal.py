"""A terminal with a shell, at which one line after the other is typed, as somebody would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Sequence
from typing import Final

from tests.end_to_end.data import PATIENCE, until

_LISTENS: Final = r"^bpipe: (listening on|connections to) "
_PROMPT: Final = "<status $?>"  # the shell puts the exit status in
_STATUS: Final = re.compile(r"<status (\d+)>")  # what is in the background may say more then


class Terminal:
    """``shell`` is a command that becomes a shell, whose prompt is an environment variable."""

    def __init__(self, shell: Sequence[str]) -> None:
        self._said = ""
        self._typed = 0  # where that begins which the last line has said
        self._keys, terminal = os.openpty()
        mode = termios.tcgetattr(terminal)
        mode[1] &= ~termios.OPOST
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, mode)
        self._shell = subprocess.Popen(
            ["setsid", "-c", *shell], stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.wait()

    @staticmethod
    def environment() -> dict[str, str]:
        """What the shell has to be started with."""
        return {"PS1": _PROMPT, "PS2": "", "TERM": "dumb"}

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # nobody has it any more
            while data := os.read(self._keys, 1 << 16):
                self._said += data.decode(errors="replace")

    @property
    def said(self) -> str:
        """What the last line has said so far."""
        return self._said[self._typed :]

    @property
    def waits(self) -> bool:
        """Whether the shell is waiting for a line."""
        return _STATUS.search(self.said) is not None

    def type(self, line: str) -> None:
        """Type a line, of one or more rows."""
        assert self.waits
        self._typed = len(self._said)
        self.press(line + "\n")

    def press(self, keys: str) -> None:
        """Press keys, for whoever reads them."""
        os.write(self._keys, keys.encode())

    def wait_said(self, expression: str, patience: float = PATIENCE) -> None:
        """Wait until the last line has said this, or has ended."""
        until(
            lambda: re.search(expression, self.said, re.MULTILINE) or self.waits,
            lambda: f"{expression!r} in {self.said!r}",
            patience,
        )
        assert re.search(expression, self.said, re.MULTILINE), self.said

    def wait_listening(self) -> None:
        """Wait until a bpipe says that it can be called."""
        self.wait_said(_LISTENS)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until the last line has ended; returns its exit status."""
        until(lambda: self.waits, lambda: f"the end of what says {self.said!r}", patience)
        found = _STATUS.search(self.said)
        assert found is not None
        return int(found[1])

    def end(self) -> None:
        """Hang up. Whatever else has it has ended before."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        self._thread.join(PATIENCE)
        os.close(self._keys)
