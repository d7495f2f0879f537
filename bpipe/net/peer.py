"""Whose process is at the other side of a connection within this machine: the kernel knows.

A Unix socket tells it (SO_PEERCRED). Of TCP see ``owner``, which is loaded when it is asked: what
has only Unix sockets does without.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from bpipe.errors import AddressError

_CODE: Final = "another-user"


def require_same_user(sock: socket.socket, name: str, *, anywhere: bool) -> None:
    """AddressError if this connection, without a secret, is to a process of another user.

    ``anywhere``: the network is trusted, or a secret will tell; only Unix sockets are asked then.
    Raises what ``same_user`` does.
    """
    if sock.family == socket.AF_UNIX:
        if not same_user(sock):
            raise AddressError(f"{name}: the socket belongs to another user", _CODE)
    elif not anywhere and not same_user(sock):
        raise AddressError(
            f"{name}: the process at the other side belongs to another user: use --secret FILE"
            " on both ends, a Unix socket, or --insecure on both if every user here is trusted",
            _CODE,
        )


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other side runs as this process's user.

    True, too, where nothing tells: the peer is on another machine, or the system does not say.
    Raises OSError if the peer has gone, or there is nothing left to ask with.
    """
    if sock.family == socket.AF_UNIX:
        user = _unix_user(sock)
    else:
        from bpipe.net.owner import user_at_other_side

        user = user_at_other_side(sock)
    return user is None or user == os.geteuid()


def _unix_user(sock: socket.socket) -> int | None:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None  # the mode of the socket's file is what there is
    credentials = sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
