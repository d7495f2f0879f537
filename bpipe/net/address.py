"""Addresses as people type them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import sys
from typing import Final, NamedTuple

from bpipe.errors import AddressError

DEFAULT_PORT: Final = 27473  # "bpipe" on a telephone keypad
EVERYWHERE: Final = "*"  # the host that means every address of this machine

_FORMS: Final = "an address is HOST:PORT, :PORT, [IPv6]:PORT or unix:PATH"
_LONGEST: Final = 107  # bytes of a Unix socket's path
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:[\w.-]|[^\x00-\x7f\ud800-\udfff])*|\*")
VERSIONS: Final = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


class Address(NamedTuple):
    """Where to listen or to connect: a host and a port, or the path of a Unix socket.

    A path that begins with a null character is the name of an abstract one, which is no file
    (Linux). An empty host is loopback, ``*`` is every address of this machine. Port 0 lets the
    system choose. ``family``, AF_INET or AF_INET6, leaves out the addresses of the other one.
    ``descriptor`` is a socket that listens there already: a listener takes it over, and binds none.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    descriptor: int | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return unix(self.path)
        return join(self.host or "localhost", self.port)

    @property
    def abstract(self) -> bool:
        """Whether this is a Unix socket that is no file, so that nothing but its user guards it."""
        return self.path is not None and self.path.startswith("\0")


def join(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets where IPv6 needs them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unix(path: str) -> str:
    """``unix:PATH``; of an abstract socket, ``unix:@NAME``. ``parse`` understands either."""
    if path.startswith("\0"):
        return f"unix:@{path[1:]}"
    return f"unix:./{path}" if path.startswith("@") else f"unix:{path}"


def parse(
    text: str,
    port: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> Address:
    """The address that ``text`` (and ``port``, given apart) means; AddressError if it means none.

    ``HOST:PORT``, ``HOST PORT``, ``HOST``, ``:PORT``, a bare port, ``[V6]:PORT``, ``unix:PATH``, or
    anything with a slash, which is a path; ``unix:@NAME`` is an abstract socket. A port may be the
    name of a service.
    """
    require_text(text)
    if text.startswith("unix:") or ("/" in text and not _URL.match(text)):
        if family != socket.AF_UNSPEC:
            raise AddressError(f"a Unix socket has no {VERSIONS[family]} address: {text}")
        return Address(path=_path(text, port))
    host, port = _split(text, port)
    if not _HOST.fullmatch(host) and not _is_ipv6(host):
        raise AddressError(f"{_FORMS}, and not {text}")
    literal = family_of(host)
    if literal is not None and family not in (socket.AF_UNSPEC, literal):
        raise AddressError(f"{host} is no {VERSIONS[family]} address")
    return Address(host, _port(port, text), None, family)


def require_text(text: str) -> None:
    """AddressError for what a system call would cut short, or cannot be given at all."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        raise AddressError(f"an address cannot have this character in it: {text!r}")


def _path(text: str, port: str | None) -> str:
    path = text.removeprefix("unix:")
    if path.startswith("~/"):
        path = os.path.expanduser(path)  # behind unix: no shell has done it
    if port is not None:
        raise AddressError(f"a Unix socket has no port: {text} {port}")
    if not path:
        raise AddressError("unix: needs a path")
    if text.startswith("@"):
        raise AddressError(f"an abstract Unix socket is unix:{text}, and a file ./{text}")
    what, name = ("name", path[1:]) if path.startswith("@") else ("path", path)
    if len(os.fsencode(name)) > _LONGEST:
        raise AddressError(f"the {what} of a Unix socket is at most {_LONGEST} bytes long: {name}")
    return _abstract(name) if what == "name" else path


def _abstract(name: str) -> str:
    if sys.platform != "linux":
        raise AddressError(f"only Linux has abstract Unix sockets (a file: unix:./@{name})")
    if not name:
        raise AddressError("unix:@ needs a name")
    return f"\0{name}"


def _split(text: str, port: str | None) -> tuple[str, str | None]:
    """The host, and the port if there is one."""
    if _URL.match(text):
        raise AddressError(f"{_FORMS}, and not a URL: {text}")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"an IPv6 address is written [ADDRESS]:PORT, not {text}")
        if not _is_ipv6(host):
            raise AddressError(f"not an IPv6 address: {text}")
        return host, _either(rest[1:], port, text)
    if text.count(":") > 1:
        if (meant := _bracketed(text, port)) is None:
            raise AddressError(f"{_FORMS}, and not {text}")
        raise AddressError(f"an IPv6 address needs brackets: {meant}")
    if ":" in text:
        host, _, number = text.partition(":")
        return host, _either(number, port, text, given=True)
    if text.isascii() and text.isdigit() and port is None:
        return "", text
    if not text:
        raise AddressError(_FORMS)
    return text, port


def _either(number: str, port: str | None, text: str, *, given: bool = False) -> str | None:
    if (number or given) and port is not None:
        raise AddressError(f"two ports were given: {text} {port}")
    if given and not number:
        raise AddressError(f"a port is missing after the colon: {text}")
    return number or port


def _port(port: str | None, text: str) -> int:
    if port is None:
        return DEFAULT_PORT
    if port.isascii() and port.isdigit():
        if len(port) <= 5 and int(port) <= 65535:
            return int(port)
    elif re.fullmatch(r"[\w.+-]*[a-z][\w.+-]*", port, re.ASCII | re.IGNORECASE):
        with contextlib.suppress(OSError):
            return socket.getservbyname(port, "tcp")
    text = text if text.endswith(port) else f"{text} {port}"
    raise AddressError(f"a port is a number from 0 to 65535, or a service's name: {text}")


def _is_ipv6(host: str) -> bool:
    return family_of(host) == socket.AF_INET6


def family_of(host: str) -> socket.AddressFamily | None:
    """The family of an address in digits; None for a name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _bracketed(text: str, port: str | None) -> str | None:
    """What was probably meant; None if that was no IPv6 address."""
    head, _, tail = text.rpartition(":")
    if port is None and tail.isdigit() and _is_ipv6(head):
        return f"[{head}]:{tail}"
    return f"[{text}]:{port or DEFAULT_PORT}" if _is_ipv6(text) else None


def to_listen_at(address: str | Address, *, sealed: bool) -> Address:
    """Where to listen: no host is loopback, or, where there is a secret, everywhere."""
    where = parse(address) if isinstance(address, str) else address
    anywhere = sealed and not where.host and where.path is None
    return where._replace(host=EVERYWHERE) if anywhere else where


def require_callable(address: Address) -> None:
    """AddressError for what can be listened at, or written to, but never connected to."""
    if address.path is None:
        if address.port == 0 or address.host == EVERYWHERE:
            raise AddressError(f"{address} is for a listener: nobody can connect to it")
        return
    if address.abstract:
        return
    with contextlib.suppress(OSError):  # the listener may make it later
        if not stat.S_ISSOCK(os.stat(address.path).st_mode):
            raise AddressError(f"{address.path} exists and is not a socket")
