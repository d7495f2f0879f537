"""What the shells are told when the tab key is pressed."""

from __future__ import annotations

import os

from bpipe.report.settings import When

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
