"""What is asked and told over rtnetlink(7): which way packets to a peer go, and what has gone.

Bytes only. The numbers are those of linux/netlink.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, and of each family addresses and routes

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, number, sender
_ROUTE: Final = struct.Struct("=8BI")  # family, lengths of peer and local, ..., type; flags
_LINK: Final = struct.Struct("=BxHiII")  # family, kind, device, flags, what has changed
_ADDRESS: Final = struct.Struct("=4Bi")  # family, length of the prefix, flags, scope; device
_ATTRIBUTE: Final = struct.Struct("=HH")  # length with these four bytes, type
_NUMBER: Final = struct.Struct("=i")

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _GETROUTE = 16, 17, 20, 21, 24, 26
_REQUEST: Final = 1
_UNICAST: Final = 1  # a route that leads to another machine
_RUNNING: Final = 0x40  # of a device: it is up, and so is what is behind it
_TO, _FROM, _DEVICE, _GATEWAY, _SOURCE, _VIA = 1, 2, 4, 5, 7, 18
_AT, _AT_LOCAL = 1, 2  # an address; ours, where there is a peer's


class Path(NamedTuple):
    """What two ends are: addresses as the network has them."""

    peer: bytes
    local: bytes = b""  # empty: whichever the kernel takes
    device: int = 0  # its number; 0: whichever the kernel takes
    interface: str = ""  # the device's name, if that was chosen: its number may change

    @property
    def family(self) -> socket.AddressFamily:
        """That of both addresses."""
        return socket.AF_INET if len(self.peer) == 4 else socket.AF_INET6


class Way(NamedTuple):
    """Which way the kernel would send packets."""

    device: int  # its number
    gateway: bytes  # to whom; empty: to the peer itself
    source: bytes  # from which address, if the path does not say


class Gone(NamedTuple):
    """A device is not running any more, or has lost an address."""

    device: int
    address: bytes = b""


def question(path: Path) -> bytes:
    """Which way?"""
    attributes = _attribute(_TO, path.peer)
    if path.local:
        attributes += _attribute(_FROM, path.local)
    if path.device:
        attributes += _attribute(_DEVICE, _NUMBER.pack(path.device))
    lengths = len(path.peer) * 8, len(path.local) * 8
    body = _ROUTE.pack(path.family, *lengths, 0, 0, 0, 0, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), _GETROUTE, _REQUEST, 0, 0) + body


def answer(data: bytes) -> Way | None:
    """What the kernel says to that; None: there is no way to another machine."""
    for kind, body in _messages(data):
        if kind == _NEWROUTE and len(body) >= _ROUTE.size and body[7] == _UNICAST:
            found = dict(_attributes(body[_ROUTE.size :]))
            gateway = found.get(_GATEWAY) or found.get(_VIA) or b""
            return Way(_number(found.get(_DEVICE)), gateway, found.get(_SOURCE, b""))
    return None


def gone(data: bytes) -> Iterator[Gone]:
    """What has gone, by these messages; it may be back since."""
    for kind, body in _messages(data):
        if kind in (_NEWLINK, _DELLINK) and len(body) >= _LINK.size:
            _, _, device, flags, _ = _LINK.unpack_from(body)
            if kind == _DELLINK or not flags & _RUNNING:
                yield Gone(device)
        elif kind == _DELADDR and len(body) >= _ADDRESS.size:
            found = dict(_attributes(body[_ADDRESS.size :]))
            address = found.get(_AT_LOCAL) or found.get(_AT)
            if address:
                yield Gone(_ADDRESS.unpack_from(body)[4], address)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each; what is not whole ends them."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[_HEADER.size : length]
        data = data[_padded(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_padded(length) :]


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _number(value: bytes | None) -> int:
    if value is None or len(value) < _NUMBER.size:
        return 0
    found: int = _NUMBER.unpack_from(value)[0]
    return found
