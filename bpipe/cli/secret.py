"""Where the secret comes from, and where a new one goes: files and the terminal, never an option.

What is said about a secret names its file and what is wrong with it, and nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import stat
from pathlib import Path
from typing import Final

from bpipe.errors import SecretError, explain
from bpipe.protocol import secret
from bpipe.protocol.secret import Secret

LARGEST: Final = 4096  # bytes of a secret's file

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def keep_out_of_dumps() -> None:
    """From here on, no core dump of this process has in it what is in its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/coredump_filter", "w") as memory:
        memory.write("0")  # Linux hands dumps to a program whatever the limit is


def load_secret(path: Path) -> Secret:
    """The secret in this file, which may be a pipe; then this blocks. Raises SecretError.

    What is checked is what was opened, whatever the name means by now. A ``~`` that no shell has
    replaced means what it does there.
    """
    path = Path(os.path.expanduser(path))
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if secret.conceal(str(path)) != str(path):
            raise SecretError(
                "--secret takes the file of a secret, and not the secret itself, which others can"
                " see on a command line"
            ) from None
        raise SecretError(f"the secret {path}: no such file; bpipe keygen makes one") from None
    except OSError as error:
        raise SecretError(f"the secret {path}: {explain(error)}") from None
    try:
        _check(os.fstat(opened), path)
        data = _read(opened)
    except OSError as error:
        raise SecretError(f"the secret {path}: {explain(error)}") from None
    finally:
        os.close(opened)
    return _parse(data, str(path))


def _check(status: os.stat_result, path: Path) -> None:
    """SecretError for a file that somebody else could have read or written."""
    if status.st_uid not in (os.geteuid(), 0):
        raise SecretError(f"the secret {path} belongs to another user: use a copy of your own")
    if status.st_mode & _OTHERS and not stat.S_ISDIR(status.st_mode):
        mode = stat.S_IMODE(status.st_mode)
        advice = f"chmod 600 it, or, if you cannot, --secret <(cat {shlex.quote(str(path))})"
        raise SecretError(f"the secret {path} is open to others (mode {mode:04o}): {advice}")


def _read(descriptor: int) -> bytes:
    data = b""
    while len(data) <= LARGEST and (more := os.read(descriptor, LARGEST + 1 - len(data))):
        data += more
    return data


def _parse(data: bytes, name: str) -> Secret:
    if len(data) > LARGEST:
        raise SecretError(
            f"the secret {name} is longer than {LARGEST} bytes: bpipe keygen makes one"
        )
    try:
        return Secret.parse(data)
    except ValueError as error:
        raise SecretError(f"the secret {name} {error}") from None


def ask_secret() -> Secret:
    """Ask on the terminal itself: stdin carries data. Raises SecretError."""
    from bpipe.cli.prompt import ask

    try:
        text = ask("Secret: ")
    except OSError:
        raise SecretError("no terminal to ask for the secret on: use --secret FILE") from None
    if not text:
        raise SecretError("no secret was typed")
    return _parse(text, "that was typed")


def write_key(path: Path, *, words: bool = False) -> None:
    """Write a new key to a file that is not there yet, for its owner's eyes. Raises OSError."""
    line = (secret.generate_words() if words else secret.generate()) + "\n"
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(opened, "wb", buffering=0) as file:
            os.fchmod(opened, 0o600)  # whatever the umask took away
            file.write(line.encode())
            os.fsync(opened)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
