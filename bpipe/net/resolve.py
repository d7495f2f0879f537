"""From an address to what sockets take: looking it up, and what may be used without a secret."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
import threading
from typing import Final, NamedTuple, cast

from bpipe.errors import AddressError
from bpipe.net.address import EVERYWHERE, VERSIONS, Address, family_of, join, require_text, unix

UNPROTECTED: Final = (
    "nothing would protect the connection: use --secret FILE on both ends (bpipe keygen makes one),"
    " or --insecure on both if the network is trusted"
)
_FLOOD: Final = 1024  # addresses of one name that are tried, at most
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_NO_SUCH_NAME: Final = {  # what a resolver says for sure; with the rest it may be right later
    getattr(socket, f"EAI_{name}", None) for name in ("NONAME", "NODATA", "ADDRFAMILY")
}


class Endpoint(NamedTuple):
    """An address that is resolved: what a socket takes."""

    family: socket.AddressFamily
    sockaddr: str | tuple[str | int, ...]

    def __str__(self) -> str:
        if isinstance(self.sockaddr, str):
            return unix(self.sockaddr)
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


async def resolve(address: Address, *, passive: bool = False) -> list[Endpoint]:
    """All endpoints of a host and port, in the resolver's order; AddressError if there are none.

    The resolver blocks, so it runs in a daemon thread of its own: the event loop's executor
    would be waited for at exit. A numeric address needs none.
    """
    if family_of(address.host.partition("%")[0]) is not None:
        found = _look_up(address, passive)
        if isinstance(found, AddressError):
            raise found
        return found
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

    try:
        threading.Thread(target=work, name="bpipe-resolve", daemon=True).start()
    except RuntimeError as error:  # there are too many; later there may be fewer
        raise OSError(errno.EAGAIN, str(error)) from None
    return await answer


def _look_up(address: Address, passive: bool) -> list[Endpoint] | AddressError:
    flags = socket.AI_PASSIVE if passive else 0
    host = address.host or _LOOPBACK.get(address.family, "localhost")
    name = None if passive and host == EVERYWHERE else host
    try:
        require_text(host)
        found = socket.getaddrinfo(
            name, address.port, family=address.family, type=socket.SOCK_STREAM, flags=flags
        )
    except AddressError as error:
        return error
    except UnicodeError:
        return AddressError(f"cannot resolve {host}: not a valid name", code="no-such-name")
    except OSError as error:
        code = "no-such-name" if error.errno in _NO_SUCH_NAME else "unresolved"
        family = VERSIONS.get(address.family)
        what = f"{host} to an {family} address" if family else host
        return AddressError(f"cannot resolve {what}: {error.strerror}", code=code)
    endpoints = [
        Endpoint(family, cast("tuple[str | int, ...]", sockaddr))
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(endpoints))[:_FLOOD]


def require_local(address: Address, endpoints: list[Endpoint], why: str = UNPROTECTED) -> None:
    """AddressError, which says why, if one of these can be reached from another machine."""
    for endpoint in endpoints:
        if not endpoint.local:
            raise AddressError(f"{address} is not loopback, and {why}")
