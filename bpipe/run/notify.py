"""Telling what has started this process how far it is: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str, status: str = "") -> None:
    """Say a ``state``, as ``READY=1``, and in one line for people what that is.

    Says nothing where nobody has asked by NOTIFY_SOCKET. Never blocks and never fails: who does not
    listen is not told.
    """
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return
    shown = "".join(each if each.isprintable() else "?" for each in status)
    text = f"{state}\nSTATUS={shown}" if status else state
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(text.encode(), f"\0{where[1:]}" if where[0] == "@" else where)
