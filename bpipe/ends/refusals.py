"""What a stream to a file cannot be written to, and why."""

from __future__ import annotations

import os
import stat
from typing import Final

FOREIGN: Final = "it belongs to another user"

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a terminal, or another device that is no disk",
}


def refusal(found: os.stat_result, user: int, *, part: bool, heir: int = -1) -> str:
    """Why this, which is no link, is no file for this user; empty if it is one.

    ``part``: it is what is written, and not only what is replaced in the end. In that case root
    takes what belongs to the ``heir``, too, who gets it in the end.
    """
    if not stat.S_ISREG(found.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}"
    if found.st_uid != user and (user or (part and found.st_uid != heir)):
        return FOREIGN
    if part and found.st_nlink > 1:
        return "it has another name, too: remove one of them"
    return ""
