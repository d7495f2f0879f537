"""To whom a TCP connection within this machine belongs at its other side: the kernel knows.

Linux tells whom any socket of this machine belongs to (sock_diag(7)), and the peer's has our two
addresses the other way round. That is one question and one answer over netlink, and takes about a
tenth of a millisecond.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final, NamedTuple

from bpipe.net.sockets import EXHAUSTED

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = 1  # NLM_F_REQUEST
_ANYHOW: Final = 0xFFFFFFFF  # any state, and no cookie
_MAPPED: Final = bytes(10) + b"\xff\xff"  # before an IPv4 address in the clothes of an IPv6 one

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, number, sender
_QUESTION: Final = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_ADDRESSES: Final = struct.Struct("!HH16s16sIII")  # ports, addresses, interface, cookie
_ANSWER: Final = struct.Struct("=BBxx48x12xII")  # family, state; user and inode

# Whose socket nobody has accepted yet: it is there, but is nobody's.
_UNACCEPTED: Final = (1, 3, 12)  # TCP_ESTABLISHED, TCP_SYN_RECV, TCP_NEW_SYN_RECV
_LISTEN: Final = 10

Side = tuple[bytes, int]  # an address as the network has it, and a port


class Owner(NamedTuple):
    """What the kernel says of a socket."""

    state: int
    user: int
    inode: int  # 0: no process has it


def user_at_other_side(sock: socket.socket) -> int | None:
    """The user of the peer's socket; None if it is not known.

    Raises OSError if the peer has gone, or there is nothing left to ask with.
    """
    if not hasattr(socket, "AF_NETLINK"):
        return None
    theirs, ours = _side(sock.getpeername()), _side(sock.getsockname())
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
            # Before the connection: if that is not accepted yet, this is who will accept it.
            holder = _ask(kernel, theirs, (bytes(len(theirs[0])), 0))
            owner = _ask(kernel, theirs, ours)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise  # who brings that about is not let in for it
        return None
    if owner is None or owner.state == _LISTEN:  # the nearest that there is
        sock.getpeername()  # raises OSError if our side knows that it has gone
        return None
    if owner.inode:
        return owner.user
    if holder is not None and owner.state in _UNACCEPTED:
        return holder.user
    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def surely_ours(sock: socket.socket) -> bool:
    """Whether a process of our own user is at the other side; False where nothing tells.

    Of a Unix socket that was asked before anything else was done with it.
    """
    try:
        return sock.family == socket.AF_UNIX or user_at_other_side(sock) == os.geteuid()
    except OSError:
        return False


def _side(name: tuple[str, int]) -> Side:
    host, port = name[:2]
    if ":" not in host:
        return socket.inet_aton(host), port
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed.removeprefix(_MAPPED), port


def _ask(kernel: socket.socket, near: Side, far: Side) -> Owner | None:
    """The socket that is at ``near`` and connected to ``far``; None if there is none."""
    (source, source_port), (target, target_port) = near, far
    family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ANYHOW) + _ADDRESSES.pack(
        source_port, target_port, source, target, 0, _ANYHOW, _ANYHOW
    )
    length = _HEADER.size + len(question)
    kernel.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + question)
    answer = kernel.recv(1 << 12, socket.MSG_DONTWAIT)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    _, state, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return Owner(state, user, inode)
