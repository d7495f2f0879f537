"""Which secret is meant, where it comes from, and where a new one goes.

A secret comes from a file or from the terminal, never from an option. What is said about it names
its file and what is wrong with it, and nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from bpipe.cli.complain import complain
from bpipe.ends.streams import stderr_goes_with
from bpipe.errors import SecretError, explain
from bpipe.report.settings import Level, Settings

if TYPE_CHECKING:
    from bpipe.cli.options import Trust
    from bpipe.protocol.secret import Secret

LARGEST: Final = 4096  # bytes of a secret's file

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def choose_secret(trust: Trust, settings: Settings) -> Secret | None:
    """The secret that these options mean; None if there is none.

    It is that of the pipe with the name that was given. A passphrase is warned of, where that is
    to be said.
    """
    path = trust.secret
    if path == Path():
        raise typer.BadParameter("--secret takes the file of a secret: name one")
    if path is None and not trust.ask_secret:
        return None
    keep_out_of_dumps()
    name = trust.name or ""
    secret = ask_secret(name) if path is None else load_secret(path, name)
    quiet = settings.level == Level.QUIET or settings.log == "-" or stderr_goes_with(1)
    if secret.guessable and not quiet:
        complain(
            "a passphrase can be guessed by others who try many: have bpipe keygen --words FILE"
            " make words, which cannot, and use them on both ends"
        )
    return secret


def credentials(trust: Trust) -> str:
    """What the other end has to be given as well, of these options."""
    if trust.insecure:
        return "--insecure"
    secret = "--ask-secret" if trust.ask_secret else _file_option(trust)
    if not trust.name:
        return secret
    # One that a terminal would not show as it is cannot be typed either.
    return f"{secret} --name {shlex.quote(trust.name) if trust.name.isprintable() else 'TEXT'}"


def _file_option(trust: Trust) -> str:
    """How the other end is told the file of the secret; nothing if there is none."""
    name = str(trust.secret or "")
    if name.startswith(("/dev/", "/proc/")):
        return "--secret FILE"  # <(...)
    home = os.path.expanduser("~/")
    name = os.path.expanduser(name)
    tilde, name = ("~/", name[len(home) :]) if name.startswith(home) else ("", name)
    return f"--secret {tilde}{shlex.quote(name)}" if name else ""


def keep_out_of_dumps() -> None:
    """From here on, no core dump of this process has in it what is in its memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/coredump_filter", "w") as memory:
        memory.write("0")  # Linux hands dumps to a program whatever the limit is


def load_secret(path: Path, name: str = "") -> Secret:
    """The secret in this file, which may be a pipe; then this blocks. Raises SecretError.

    ``name`` is that of the pipe between the two ends.
    What is checked is what was opened, whatever the name means by now. A ``~`` that no shell has
    replaced means what it does there.
    """
    path = Path(os.path.expanduser(path))
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        from bpipe.protocol.secret import conceal

        if conceal(str(path)) != str(path):
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
    return _parse(data, name, str(path))


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


def _parse(data: bytes, name: str, where: str) -> Secret:
    """``where`` tells people which secret is meant."""
    from bpipe.protocol.secret import Secret  # without one that is not needed

    if len(data) > LARGEST:
        raise SecretError(
            f"the secret {where} is longer than {LARGEST} bytes: bpipe keygen makes one"
        )
    try:
        return Secret.parse(data, name)
    except ValueError as error:
        raise SecretError(f"the secret {where} {error}") from None


def ask_secret(name: str = "") -> Secret:
    """Ask on the terminal itself: stdin carries data. Raises SecretError.

    ``name`` is that of the pipe.
    """
    from bpipe.cli.prompt import ask

    try:
        text = ask("Type the words that bpipe keygen --words made, or a passphrase.\nSecret: ")
    except OSError:
        raise SecretError("no terminal to ask for the secret on: use --secret FILE") from None
    if not text:
        raise SecretError("no secret was typed")
    return _parse(text, name, "that was typed")


def write_key(path: Path, *, words: bool = False) -> None:
    """Write a new key to a file that is not there yet, for its owner's eyes. Raises OSError."""
    from bpipe.protocol import secret

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
