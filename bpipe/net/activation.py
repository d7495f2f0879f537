"""A socket that listens already, passed by what has started this process: sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from bpipe.errors import AddressError
from bpipe.net.address import Address, parse

FIRST: Final = 3  # the descriptor; where there are more, they follow
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def passed(environ: Mapping[str, str]) -> Address | None:
    """The address of the socket that is passed to this process; None if there is none.

    Raises AddressError for anything else than one stream socket, of TCP or Unix, that listens.
    """
    count = environ.get("LISTEN_FDS")
    if count is None or environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # what is meant for another process stays in the environment
    if count != "1":
        raise AddressError(f"LISTEN_FDS is {count}: a listener takes one socket, and only one")
    return _address(FIRST)


def _address(descriptor: int) -> Address:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise _wrong(descriptor) from None
    try:
        if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not _listens(sock):
            raise _wrong(descriptor)
        name = sock.getsockname()
        if sock.family != socket.AF_UNIX:
            return Address(name[0], name[1], None, sock.family, descriptor)
    finally:
        sock.detach()
    address = Address(path=os.fsdecode(name), descriptor=descriptor)
    parse(str(address))  # raises AddressError for a name that could not be typed
    return address


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _wrong(descriptor: int) -> AddressError:
    return AddressError(
        f"LISTEN_FDS: descriptor {descriptor} is not a socket of TCP or Unix that listens"
    )
