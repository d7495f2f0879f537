"""What the tests of secrets share: passphrases, and a terminal on which one is asked for."""

from __future__ import annotations

import os
import termios
from pathlib import Path
from subprocess import PIPE

from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Bpipe, Start, finish

PASSPHRASE = "correct horse battery staple"
GUESSED = (
    "bpipe: a passphrase can be guessed by others who try many: have bpipe keygen --words FILE make"
    " words, which cannot, and use them on both ends"
)


def write_phrase(path: Path, text: str = PASSPHRASE) -> Path:
    """A file with a passphrase that only its owner can read."""
    path.touch(0o600)
    path.write_bytes(text.encode())
    return path


def exchange(listener: Bpipe, caller: Bpipe, total: int = MIB) -> None:
    """Bytes go both ways, all of them arrive, and both ends say so."""
    caller.feed(total)
    listener.feed(total, offset=5)
    there, back = listener.drain(), caller.drain(offset=5)
    assert [there.wait_end(), back.wait_end()] == [total, total]
    assert finish(caller, listener) == [0, 0]


class Console:
    """A real terminal, at whose other side a test sits."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.name = os.ttyname(self.slave)
        self.shown = ""

    def run(self, start: Start, *arguments: str, before: str = ":") -> Bpipe:
        """A bpipe whose terminal this is, and whose stdin and stdout are pipes."""
        take = f"""{before}; exec setsid sh -c ': <{self.name}; exec "$@"' sh "$@" """
        return start.bpipe(*arguments, shell=take, stdin=PIPE, stdout=PIPE)

    def wait_asked(self) -> None:
        """Wait until it asks, and does not show what is typed."""
        while "Secret: " not in self.shown:
            self.shown += os.read(self.master, 1000).decode()
        assert not self.echoes

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.master, text.encode())

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def close(self) -> None:
        """Hang up."""
        os.set_blocking(self.master, False)
        os.close(self.slave)
        os.close(self.master)
