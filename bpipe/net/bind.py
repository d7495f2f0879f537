"""Begin to listen: at all that an address means; which file becomes one, and which never is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import Final

from bpipe.errors import AddressError
from bpipe.net.address import Address, join
from bpipe.net.bound import Bound, identity
from bpipe.net.resolve import UNPROTECTED, Endpoint, require_local, resolve

_BACKLOG: Final = 4096  # connections that wait in the kernel; the system may allow less
_umask: Final = threading.Lock()


async def bind(address: Address, *, anywhere: bool = False, why: str = UNPROTECTED) -> Bound:
    """Listen at every endpoint of ``address``; AddressError or OSError if that cannot be.

    Without ``anywhere`` only loopback and Unix addresses are bound: ``why``, for people. At a Unix
    path this may block the event loop for a second, while another process begins to listen in the
    same folder.
    """
    if address.descriptor is not None:
        return _take_over(address.descriptor, address, anywhere=anywhere)
    if address.path is not None and address.abstract:
        return Bound([bind_abstract(address.path)], str(address))
    if address.path is not None:
        sock = bind_path(address.path)
        return Bound([sock], str(address), path=address.path, identity=identity(address.path))
    endpoints = await resolve(address, passive=True)
    if not anywhere:
        require_local(address, endpoints, why)
    sockets = bind_all(endpoints, address.port)
    port = sockets[0].getsockname()[1]
    host = str(endpoints[0].sockaddr[0]) if len(endpoints) == 1 else address.host
    exposed = not all(endpoint.local for endpoint in endpoints)
    return Bound(sockets, join(host or "localhost", port), exposed)


def _take_over(descriptor: int, address: Address, *, anywhere: bool) -> Bound:
    """Listen with a socket that listens already. Its file, if it has one, is not ours to remove."""
    sock = socket.socket(fileno=descriptor)
    try:
        os.set_inheritable(descriptor, False)
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            sock.listen(_BACKLOG)  # from now on, callers are told that it is this user's
            return Bound([sock], str(address))
        endpoint = Endpoint(sock.family, sock.getsockname())
        if not anywhere:
            require_local(address, [endpoint])
        return Bound([sock], str(address), not endpoint.local)
    except BaseException:
        sock.close()
        raise


def bind_all(endpoints: list[Endpoint], port: int) -> list[socket.socket]:
    """Listen at each of these, at the same port; OSError if that cannot be."""
    sockets: list[socket.socket] = []
    for endpoint in endpoints:
        try:
            sock = _bind(endpoint, port)
        except OSError as error:
            unusable = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if error.errno in unusable and (sockets or endpoint != endpoints[-1]):
                continue  # localhost has an IPv6 address also where IPv6 is switched off
            for sock in sockets:
                sock.close()
            raise
        sockets.append(sock)
        port = sock.getsockname()[1]
    return sockets


def _bind(endpoint: Endpoint, port: int) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not endpoint.mapped)
        assert isinstance(endpoint.sockaddr, tuple)
        sock.bind((endpoint.sockaddr[0], port, *endpoint.sockaddr[2:]))
        sock.setblocking(False)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_abstract(name: str) -> socket.socket:
    """Listen at a name that is no file. Anybody can call it: the listener asks who it is."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_path(path: str) -> socket.socket:
    """Listen at ``path``: mode 0600, in place of a socket that nobody listens at, never of another.

    The folder is locked meanwhile, so that of two who start at once one finds the other.
    """
    with _locked(os.path.dirname(path) or "."):
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            with _private():
                sock.bind(path)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """What is created meanwhile has mode 0600 from the start.

    A chmod after that would need the name, behind which there may be another file by then.
    """
    with _umask:  # it is that of the whole process
        before = os.umask(0o177)
        try:
            yield
        finally:
            os.umask(before)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Lock the folder, but do not depend on it: anybody can hold such a lock for ever."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield  # one that can be written and not read
        return
    try:
        for _ in range(20):
            with contextlib.suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        yield
    finally:
        os.close(opened)


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # it is alive, or not ours to judge: bind() will say so
