"""What ssh is called with, read as ssh itself reads it: options, a destination, and a command.

Nothing here knows of bpipe's own options but that they begin with ``--``, and which of them take
a value. From the first word of the command on nothing is read: the words are joined by spaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

FLAGS: Final = "1246ACGKMNTVXYZafgknqstvxy"
VALUED: Final = "BDEFIJLOPQRSWbceilmopw"  # with an argument

_ANSWERED: Final = "GVQ"  # what ssh itself answers, and connects to nobody
_OURS: Final = "Tns"  # not for the ssh that carries: -n is about our stdin, -T is always said
_ONCE: Final = "AKSXY"  # what has to do with the first connection only

HELP: Final = {"-h", "--help"}

_ALONE: Final = "is for an ssh without a command"
_FORWARDED: Final = (
    "nothing is forwarded, as it would end with the first connection; bpipe listen --to and"
    " bpipe connect --from carry other connections"
)
_REFUSED: Final = {
    "t": "no terminal is carried: for a shell use ssh itself, mosh or et",
    "f": "bpipe stays with its command: use -n, and & behind it",
    "N": f"that {_ALONE}: use ssh itself",
    "W": "that is for ssh itself; or have a command connect, as in bpipe ssh HOST nc HOST PORT",
    "O": "ssh itself controls a master connection; the first connection here uses one",
    "M": "no master connection is made here: ssh itself makes one, and the first connection"
    " here uses it",
    "L": _FORWARDED,
    "R": _FORWARDED,
    "D": _FORWARDED,
    "w": _FORWARDED,
}

# The first of two values of one option counts for ssh, but flags are obeyed in any place.
_EVERY: Final = ("-T", "-oRemoteCommand=none", "-oControlMaster=no")
_LATER: Final = (
    "-akx",
    "-oBatchMode=yes",
    "-oControlPath=none",
    "-oClearAllForwardings=yes",
    "-oPermitLocalCommand=no",
)

_SFTP_SERVERS: Final = (
    "/usr/lib/openssh/sftp-server",  # Debian
    "/usr/libexec/openssh/sftp-server",  # Red Hat
    "/usr/lib/ssh/sftp-server",  # Arch, Alpine, SUSE
    "/usr/libexec/sftp-server",  # BSD, macOS
    "/usr/libexec/ssh/sftp-server",
    "/usr/lib/sftp-server",
    "/usr/local/libexec/sftp-server",
)
# In single quotes all shells agree: what is in them is for sh.
SFTP: Final = (
    f"exec sh -c 'for s in {' '.join(_SFTP_SERVERS)}; do test -x $s && exec $s; done; "
    'echo "bpipe: no sftp-server was found" >&2; exit 127\''
)


class NotSsh(ValueError):
    """What cannot be read, or cannot be done; one line for people."""


class Call(NamedTuple):
    """What is wanted."""

    ours: list[str]  # long options, and their values
    options: list[tuple[str, str | None]]  # ssh's: a letter, and its argument
    destination: str
    command: str

    @property
    def reads_stdin(self) -> bool:
        """Whether our stdin is for the command."""
        return not self._has("n")

    @property
    def host(self) -> str:
        """The destination, for people."""
        return self.destination.removeprefix("ssh://").rstrip("/")

    def first(self) -> list[str]:
        """What ssh is called with for the first connection, up to its command."""
        return self._argv(_EVERY, self.options)

    def later(self) -> list[str]:
        """The same for those that follow: nobody can be asked then, and nothing is forwarded."""
        kept = [each for each in self.options if each[0] not in _ONCE]
        ticket = ["-oGSSAPIAuthentication=yes"] if self._has("K") else []
        return self._argv((*_EVERY, *_LATER, *ticket), kept)

    def _argv(self, ours: Sequence[str], options: list[tuple[str, str | None]]) -> list[str]:
        words = ["ssh", *ours]
        for letter, value in options:
            if letter not in _OURS:
                words += [f"-{letter}"] if value is None else [f"-{letter}", value]
        return [*words, "--", self.destination]

    def _has(self, letter: str) -> bool:
        return any(letter == each for each, _ in self.options)


class ForSsh(NamedTuple):
    """What ssh itself answers: the words for it."""

    words: list[str]


def read(words: Sequence[str], valued: Collection[str] = ()) -> Call | ForSsh:
    """What these words ask for. ``valued``: which of bpipe's own options take a value.

    Raises NotSsh.
    """
    reader = _Reader(list(words), valued)
    reader.read()
    if any(letter in _ANSWERED for letter, _ in reader.options):
        return ForSsh(["ssh", *reader.passed])
    return reader.call()


def so_far(words: Sequence[str], valued: Collection[str] = ()) -> list[str]:
    """The destination, if it is there, and the words of a command that need not be complete."""
    reader = _Reader(list(words), valued)
    with contextlib.suppress(NotSsh):
        reader.read()
    return [] if reader.destination is None else [reader.destination, *reader.command]


class _Reader:
    def __init__(self, words: list[str], valued: Collection[str]) -> None:
        self.ours: list[str] = []
        self.options: list[tuple[str, str | None]] = []
        self.passed: list[str] = []  # all that is not ours
        self._left = words
        self._valued = valued
        self.destination: str | None = None
        self.command: list[str] = []

    def read(self) -> None:
        while self._left:
            word = self._left[0]
            if word == "--":
                self._pass()
                self._read_rest()
            elif word.startswith("--") or (word == "-h" and self.destination is None):
                self._read_ours()
            elif word.startswith("-") and word != "-":
                self._read_letters(self._pass()[1:])
            elif self.destination is None:
                self.destination = self._pass()
            else:
                self._read_rest()

    def call(self) -> Call:
        for letter, _ in self.options:
            if letter in _REFUSED:
                raise NotSsh(f"-{letter}: {_REFUSED[letter]}")
        if HELP & set(self.ours):  # nothing else counts
            return Call(self.ours, [], "", "")
        if not self.destination:
            raise NotSsh("a destination is missing: bpipe ssh HOST COMMAND")
        command = " ".join(self.command)
        if ("s", None) in self.options:
            if command != "sftp":
                raise NotSsh(f"-s: sftp is the only subsystem that is known, not {command!r}")
            command = SFTP
        if not command:
            raise NotSsh("a command is missing: for a shell use ssh itself, mosh or et")
        return Call(self.ours, self.options, self.destination, command)

    def _pass(self) -> str:
        word = self._left.pop(0)
        self.passed.append(word)
        return word

    def _read_rest(self) -> None:
        """Nothing more is read; after ``--`` the destination may still be missing."""
        if self.destination is None and self._left:
            self.destination = self._pass()
        self.command = [self._pass() for _ in range(len(self._left))]

    def _read_ours(self) -> None:
        word = self._left.pop(0)
        if self.destination is not None:
            raise NotSsh(f"{word}: bpipe's own options come before the destination")
        self.ours.append(word)
        if word in self._valued and self._left:
            self.ours.append(self._left.pop(0))

    def _read_letters(self, letters: str) -> None:
        """Flags may be bundled, and the last of them may be an option with its argument."""
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in FLAGS:
                self.options.append((letter, None))
            elif letter not in VALUED:
                raise NotSsh(f"-{letter}: ssh has no such option")
            elif not letters and not self._left:
                raise NotSsh(f"-{letter} needs an argument")
            else:
                self.options.append((letter, letters or self._pass()))
                return
