"""From where connections go out: an address of this machine, or one of its interfaces.

An interface is the way out, whatever the routes say. An address is only what the packets have as
theirs: which way they take is said by the routes, or by rules that look at that address.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Final, NamedTuple, cast

from bpipe.errors import AddressError, LinkLost, code_of, explain
from bpipe.net.address import VERSIONS, family_of
from bpipe.net.resolve import Endpoint

_LONGEST: Final = 15  # bytes of an interface's name
_BIND_ADDRESS_NO_PORT: Final = 24  # IP_BIND_ADDRESS_NO_PORT, which has its name from 3.12 on


class Origin(NamedTuple):
    """Of the connections of one link."""

    name: str  # for people; an interface's, if there is no address
    family: socket.AddressFamily = socket.AF_UNSPEC  # that of the address
    sockaddr: tuple[str | int, ...] | None = None  # the address, with port 0

    def __str__(self) -> str:
        return self.name

    def suited(self, endpoints: list[Endpoint], name: str) -> list[Endpoint]:
        """Those that can be called from here; AddressError if none can. ``name`` is theirs."""
        if self.family == socket.AF_UNSPEC:
            return endpoints
        suited = [each for each in endpoints if each.family == self.family]
        if not suited:
            raise AddressError(f"{name} has no {VERSIONS[self.family]} address, as {self} has")
        return suited

    def check(self) -> None:
        """AddressError if this cannot be used now."""
        try:
            self._try()
        except OSError as error:
            raise AddressError(self._why(error), code_of(error)) from None

    def _try(self) -> None:
        family = socket.AF_INET if self.sockaddr is None else self.family
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            self._take(sock)

    def _why(self, error: OSError) -> str:
        if self.sockaddr is not None:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{self} is not an address of this machine"
            return f"{self}: {explain(error)}"
        if error.errno == errno.ENODEV:
            there = ", ".join(name for _, name in socket.if_nameindex())
            return f"{self} is neither an address nor an interface of this machine, as {there}"
        if error.errno == errno.EPERM:
            return f"{self}: an interface can be used from Linux 5.7 on; use one of its addresses"
        return f"{self}: {explain(error)}"

    def use(self, sock: socket.socket) -> None:
        """Have this socket begin here, when it connects. LinkLost if that cannot be now."""
        try:
            self._take(sock)
        except OSError as error:
            raise LinkLost(f"{self}: {explain(error)}", code_of(error)) from None

    def _take(self, sock: socket.socket) -> None:
        if self.sockaddr is None:
            option: int = socket.SO_BINDTODEVICE
            sock.setsockopt(socket.SOL_SOCKET, option, os.fsencode(self.name))
            return
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # else a port is used up for all destinations
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind(self.sockaddr)


def parse_origin(text: str) -> Origin:
    """What is meant: an address in digits, or else an interface. AddressError if it is neither."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    family = family_of(bare.partition("%")[0])
    if family is None:
        return _interface(text)
    try:
        found = socket.getaddrinfo(bare, 0, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError as error:
        raise AddressError(f"{text}: {error.strerror}") from None
    return Origin(bare, family, cast("tuple[str | int, ...]", found[0][4]))


def _interface(text: str) -> Origin:
    name = os.fsencode(text)
    if not 1 <= len(name) <= _LONGEST or b"/" in name or b"\0" in name or name.split() != [name]:
        raise AddressError(f"{text!r} is neither an address nor an interface of this machine")
    if not hasattr(socket, "SO_BINDTODEVICE"):
        raise AddressError(f"only Linux can use an interface: name one of the addresses of {text}")
    return Origin(text)
