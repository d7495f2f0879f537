"""Which secret is meant: that of an option, of the environment, or none."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bpipe.cli.complain import complain
from bpipe.cli.values import SECRET_VARIABLE, Level, Usage
from bpipe.ends.streams import stderr_goes_with

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret


def choose_secret(path: Path | None, ask: bool, insecure: bool, usage: Usage) -> Secret | None:
    """The secret that these options mean, or else the environment; None if there is none."""
    named = os.environ.get(SECRET_VARIABLE)
    if path is None and named and not ask and not insecure:
        path = Path(named)
    if path is None and not ask:
        return None
    if path is not None and ask:
        raise typer.BadParameter("--secret and --ask-secret contradict each other")
    if path == Path():
        raise typer.BadParameter("--secret takes the file of a secret: name one")
    if insecure:
        given = "--ask-secret" if ask else "--secret"
        raise typer.BadParameter(f"--insecure and {given} contradict each other")
    from bpipe.cli.secret import ask_secret, keep_out_of_dumps, load_secret

    keep_out_of_dumps()
    secret = ask_secret() if path is None else load_secret(path)
    quiet = usage.level == Level.QUIET or usage.log_json == "-" or stderr_goes_with(1)
    if secret.guessable and not quiet:
        complain(
            "a passphrase can be guessed by others who try many; bpipe keygen --words makes one"
            " that cannot"
        )
    return secret


def credentials(path: Path | None, ask: bool, insecure: bool) -> str:
    """What the other end has to be given as well, of these options."""
    if ask or insecure:
        return "--ask-secret" if ask else "--insecure"
    name = str(path or os.environ.get(SECRET_VARIABLE) or "")
    if name.startswith(("/dev/", "/proc/")):
        return "--secret FILE"  # <(...)
    home = os.path.expanduser("~/")
    name = os.path.expanduser(name)
    tilde, name = ("~/", name[len(home) :]) if name.startswith(home) else ("", name)
    return f"--secret {tilde}{shlex.quote(name)}" if name else ""
