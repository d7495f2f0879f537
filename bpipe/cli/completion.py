"""What the shells are told when the tab key is pressed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bpipe.report.settings import When

_INCLUDES = 3  # how deep files of ssh's configuration may include one another
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def complete_path(incomplete: str) -> list[str]:
    """The sockets and folders that ``unix:`` can be followed by.

    Other paths the shells complete by themselves. Who can write to a folder chooses the names in
    it, and a shell may take an answer for a piece of program: nothing is offered that would have
    to be quoted. Behind ``unix:`` an @ begins a name that is no file.
    """
    import glob
    import shlex
    import stat

    if not incomplete.startswith("unix:"):
        return []
    path = os.path.expanduser(incomplete.removeprefix("unix:"))
    offered = []
    for found in sorted(glob.glob(glob.escape(path) + "*")):
        try:
            mode = os.stat(found).st_mode
        except OSError:
            continue
        if found.startswith("@") or shlex.quote(found) != found:
            continue
        if stat.S_ISSOCK(mode) or stat.S_ISDIR(mode):
            offered.append(f"unix:{found}{'/' * stat.S_ISDIR(mode)}")
    return offered


def complete_when(incomplete: str) -> list[str]:
    """The words that ``--status`` takes."""
    return [word for word in When if word.startswith(incomplete)]


def complete_interface(incomplete: str) -> list[str]:
    """The interfaces of this machine."""
    import socket

    return [name for _, name in socket.if_nameindex() if name.startswith(incomplete)]


def complete_congestion(incomplete: str) -> list[str]:
    """The names that the system allows."""
    from bpipe.net.congestion import allowed

    return [name for name in allowed() if name.startswith(incomplete)]


def complete_host(incomplete: str) -> list[str]:
    """The hosts that ssh's configuration names, and those that it has met; with the user typed.

    A host that was hashed when it was met is not known.
    """
    import shlex

    user, at, name = incomplete.rpartition("@")
    folder = os.path.expanduser("~/.ssh")
    hosts = {*_configured(f"{folder}/config"), *_met(f"{folder}/known_hosts")}
    return sorted(
        f"{user}{at}{host}"
        for host in hosts
        if host.startswith(name) and shlex.quote(host) == host and not host.startswith("-")
    )


def _configured(path: str, depth: int = 0) -> Iterator[str]:
    """The names behind each Host, also of files that are included."""
    import glob

    for line in _lines(path):
        key, _, rest = line.replace("=", " ", 1).strip().partition(" ")
        if key.lower() == "host":
            yield from (name for name in rest.split() if not set(name) & set('*?!"'))
        elif key.lower() == "include" and depth < _INCLUDES:
            for pattern in rest.split():
                where = os.path.join(os.path.dirname(path), os.path.expanduser(pattern))
                for each in sorted(glob.glob(where)):
                    yield from _configured(each, depth + 1)


def _met(path: str) -> Iterator[str]:
    """The names in the first column, without ports and markers."""
    for line in _lines(path):
        if line[:1] not in ("#", "@", "|", ""):
            for name in line.split()[0].split(","):
                host = name.removeprefix("[").partition("]")[0]
                if not set(host) & set("*?!"):
                    yield host


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError:
        return []


def shell_fault() -> str:
    """Why this process's shell cannot be told how to complete; empty if it can."""
    import shellingham  # type: ignore[import-untyped]  # what typer itself asks

    try:
        shell = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        return "cannot tell which shell this is: bash, zsh and fish can be told how to complete"
    if shell not in _SHELLS:
        return f"{shell} cannot be told how to complete: only bash, zsh and fish can"
    return ""
