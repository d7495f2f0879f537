"""A relay: it joins its stdin and stdout to the holder's socket, and ends nothing when it ends.

It is what every attempt starts on the far side. Little is imported here: the attempt waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

HALF = 16  # bytes of the token: the first we say, the second the holder does
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which has its name from Python 3.10 on
_CREDENTIALS = 12  # bytes: pid, user, group

CHUNK = 1 << 18  # bytes that are moved at once
PIPE_SIZE = 1 << 20  # bytes: the most that everybody may have by default
FAREWELL = 5000  # milliseconds without a movement, after the holder has said its last


def main(parcel: Mapping[str, Any], answer: Callable[[str, object], None]) -> None:
    """The whole life of a relay; where the session has not begun, it may start the holder first.

    Raises RuntimeError with a text for people if there can be no holder, OSError if there is none
    now.
    """
    sock: socket.socket | None
    holder: socket.socket | None = None  # one that was started
    address, token = "\0" + parcel["name"], bytes.fromhex(parcel["token"])
    if "errand" in parcel:
        from bpipe.remote import starter

        sock, holder = starter.connect(address)
    else:
        sock = _connect(address)
    if sock is not None:
        sock.sendall(token[:HALF])
        if holder is None and not _is_holder(sock, token, parcel["patience"]):
            if "errand" in parcel:
                raise RuntimeError("the name of the holder there is another process's")
            sock = None
    how = "none" if sock is None else "there" if holder is None else "new"
    answer(parcel["nonce"], {"holder": how, **_place()})
    if sock is None:
        return
    if holder is not None:  # it starts while the greeting comes
        try:
            starter.equip(holder, parcel)
            there = _is_holder(sock, token, parcel["patience"])
        except OSError:
            there = False
        if not there:
            return  # all is answered that can be: the next attempt may be better
    join(sock)


def _connect(address: str) -> socket.socket | None:
    """A connection to who has the name; None if nobody has."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(address)
    except ConnectionRefusedError:
        return None
    return sock


def _is_holder(sock: socket.socket, token: bytes, patience: float) -> bool:
    """Whether a process of this user is there, and it knows the second half.

    TimeoutError if it says nothing in these seconds, ConnectionError if it hangs up: it may be
    busy, or leaving, and the next attempt knows more.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)
    if int.from_bytes(credentials[4:8], sys.byteorder) != os.geteuid():
        return False
    sock.settimeout(patience)
    try:
        half = sock.recv(HALF, socket.MSG_WAITALL)
    except socket.timeout:
        raise TimeoutError(f"the holder there does not answer in {patience:g} s") from None
    except OSError:
        half = b""
    if not half:
        raise ConnectionError("the holder there has hung up")
    return half == token[HALF:]


def _place() -> dict[str, object]:
    """Where this is, and whether it has an agent that ends with this connection."""
    name = os.uname().nodename
    try:
        with open("/etc/machine-id") as file:
            machine = file.read().strip()
    except OSError:
        machine = ""
    agent = bool(os.environ.get("SSH_AUTH_SOCK"))
    return {"at": f"{machine} {name}", "name": name, "agent": agent}


class Way:
    """One direction, from a descriptor to another. None of them blocks.

    It is spliced, if either is a pipe and this Python and system can do that; else copied.
    """

    def __init__(self, source: int, target: int) -> None:
        self.ended = False
        self._source = source
        self._target = target
        self._splices = hasattr(os, "splice")
        self._full = False  # the target, as far as is known
        self._rest = memoryview(b"")  # what was read, and is not written yet

    @property
    def waits_for(self) -> tuple[int, int]:
        """A descriptor, and what poll(2) has to say of it."""
        return (self._target, select.POLLOUT) if self._full else (self._source, select.POLLIN)

    def step(self) -> None:
        """Go on; it has ended when its source has."""
        try:
            if self._splices:
                self._splice()
            else:
                self._copy()
        except BlockingIOError:  # it may be either, if it is spliced
            self._full = not self._full or bool(self._rest)
        except OSError as error:
            self.ended = not self._splices or error.errno not in (errno.EINVAL, errno.ENOSYS)
            self._splices = False

    def _splice(self) -> None:
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        self.ended = not os.splice(self._source, self._target, CHUNK, flags=flags)

    def _copy(self) -> None:
        if not self._rest:
            self._rest = memoryview(os.read(self._source, CHUNK))
            self.ended = not self._rest
        if self._rest:
            self._rest = self._rest[os.write(self._target, self._rest) :]
        self._full = bool(self._rest)


def join(sock: socket.socket) -> None:
    """Copy both ways until the holder has said its last, or nobody takes what it says."""
    _prepare(sock.fileno())
    back, forth = Way(sock.fileno(), 1), Way(0, sock.fileno())
    closed = False
    while not back.ended:
        wanted = {1: 0} if closed else {1: 0, sock.fileno(): 0}  # their end is told in any case
        for way in (back, forth):
            if not way.ended:
                descriptor, event = way.waits_for
                wanted[descriptor] = wanted.get(descriptor, 0) | event
        found = _poll(wanted, FAREWELL if closed else None)
        if (closed and not found) or found.get(1, 0) & (select.POLLERR | select.POLLHUP):
            return
        closed |= bool(found.get(sock.fileno(), 0) & select.POLLHUP)
        for way in (back, forth):
            if not way.ended and found.get(way.waits_for[0]):
                way.step()
                if way is forth and way.ended:
                    _say_end(sock)


def _prepare(*others: int) -> None:
    """Have nothing block, and large amounts moved in few turns, as far as the system allows."""
    for descriptor in (0, 1, *others):
        os.set_blocking(descriptor, False)
    enlarge(0)  # not stdout: what lies there, newer words have to wait for
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def enlarge(descriptor: int) -> None:
    """Let this pipe hold more, if it is one and the system allows that."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, PIPE_SIZE)


def _poll(wanted: dict[int, int], limit: int | None) -> dict[int, int]:
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll(limit))


def _say_end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone
        sock.shutdown(socket.SHUT_WR)
