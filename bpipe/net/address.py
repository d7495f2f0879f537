"""Addresses: what people type, what sockets take, and what may be used without a secret."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import struct
import threading
from typing import Final, NamedTuple, cast

from bpipe.errors import AddressError

DEFAULT_PORT: Final = 27473  # "bpipe" on a telephone keypad
EVERYWHERE: Final = "*"  # the host that means every address of this machine
_FLOOD: Final = 16  # addresses of one name that are tried, at most


class Address(NamedTuple):
    """Where to listen or to connect: a host and a port, or the path of a Unix socket.

    An empty host is loopback, ``*`` is every address of this machine. Port 0 lets the system
    choose.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return join(self.host or "localhost", self.port)


class Endpoint(NamedTuple):
    """An address that is resolved: what a socket takes."""

    family: socket.AddressFamily
    sockaddr: str | tuple[str | int, ...]

    def __str__(self) -> str:
        if isinstance(self.sockaddr, str):
            return f"unix:{self.sockaddr}"
        return join(str(self.sockaddr[0]), int(self.sockaddr[1]))

    @property
    def local(self) -> bool:
        """Whether only this machine can be at the other side."""
        if isinstance(self.sockaddr, str):
            return True
        ip = self._ip(self.sockaddr)
        return bool((getattr(ip, "ipv4_mapped", None) or ip).is_loopback)

    @property
    def mapped(self) -> bool:
        """Whether this is an IPv4 address in the clothes of an IPv6 one."""
        if isinstance(self.sockaddr, str):
            return False
        return getattr(self._ip(self.sockaddr), "ipv4_mapped", None) is not None

    @staticmethod
    def _ip(sockaddr: tuple[str | int, ...]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])


def join(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets where IPv6 needs them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(text: str, port: str | None = None) -> Address:
    """The address that ``text`` (and ``port``, given apart) means; AddressError if it means none.

    ``HOST:PORT``, ``HOST PORT``, ``HOST``, ``:PORT``, a bare port, ``[V6]:PORT``, ``unix:PATH``, or
    anything with a slash, which is a path.
    """
    if text.startswith("unix:") or "/" in text:
        path = text.removeprefix("unix:")
        if port is not None:
            raise AddressError(f"a Unix socket has no port: {text} {port}")
        if not path:
            raise AddressError("unix: needs a path")
        if len(path.encode(errors="surrogateescape")) > 107:
            raise AddressError(f"the path of a Unix socket is at most 107 bytes long: {path}")
        return Address(path=path)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"an IPv6 address is written [ADDRESS]:PORT, not {text}")
        return Address(_ipv6(host, text), _port(_either(rest[1:], port, text), text))
    if text.count(":") > 1:
        raise AddressError(f"an IPv6 address needs brackets: {_bracketed(text, port)}")
    if ":" in text:
        host, _, number = text.partition(":")
        return Address(host, _port(_either(number, port, text, given=True), text))
    if text.isascii() and text.isdigit() and port is None:
        return Address("", _port(text, text))
    if not text:
        raise AddressError("an address is HOST:PORT, :PORT, [IPv6]:PORT or unix:PATH")
    return Address(text, _port(port, f"{text} {port}"))


def _either(number: str, port: str | None, text: str, *, given: bool = False) -> str | None:
    if (number or given) and port is not None:
        raise AddressError(f"two ports were given: {text} {port}")
    if given and not number:
        raise AddressError(f"a port is missing after the colon: {text}")
    return number or port


def _port(number: str | None, text: str) -> int:
    if number is None:
        return DEFAULT_PORT
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and int(number) <= 65535):
        raise AddressError(f"a port is a number from 0 to 65535: {text}")
    return int(number)


def _ipv6(host: str, text: str) -> str:
    if not _is_ipv6(host):
        raise AddressError(f"not an IPv6 address: {text}")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _bracketed(text: str, port: str | None) -> str:
    """What was probably meant."""
    head, _, tail = text.rpartition(":")
    if port is None and tail.isdigit() and _is_ipv6(head):
        return f"[{head}]:{tail}"
    return f"[{text}]:{port or DEFAULT_PORT}"


async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
    """All endpoints of an address, in the resolver's order; AddressError if there are none.

    The resolver blocks, so it runs in a daemon thread of its own: the event loop's executor
    would be waited for at exit.
    """
    if address.path is not None:
        return [Endpoint(socket.AF_UNIX, address.path)]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Endpoint]] = loop.create_future()

    def settle(result: list[Endpoint] | AddressError) -> None:
        if answer.done():
            return
        if isinstance(result, AddressError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread's
        result = _look_up(address, passive)
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    threading.Thread(target=work, name="bpipe-resolve", daemon=True).start()
    return await answer


def _look_up(address: Address, passive: bool) -> list[Endpoint] | AddressError:
    flags = socket.AI_PASSIVE if passive else 0
    host = address.host or "localhost"
    name = None if passive and host == EVERYWHERE else host
    try:
        found = socket.getaddrinfo(name, address.port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        return AddressError(f"cannot resolve {host}: {reason}")
    endpoints = [
        Endpoint(family, cast("tuple[str | int, ...]", sockaddr))
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(endpoints))[:_FLOOD]


def require_local(address: Address, endpoints: list[Endpoint]) -> None:
    """AddressError if one of these can be reached from another machine."""
    for endpoint in endpoints:
        if not endpoint.local:
            raise AddressError(
                f"{address} is not loopback, and nothing would protect the connection: use"
                " --secret FILE on both ends (bpipe keygen makes one), or --insecure on both if"
                " the network is trusted"
            )


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other side of a Unix socket runs as this process's user."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # the mode of the socket's file is what there is
    credentials = sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())
