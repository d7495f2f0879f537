"""A network of two machines, made of two namespaces, whose wire is a process of this benchmark.

Theory of operation. For each path there is a tun device in each namespace, whose other side a
relay holds (``relay.py``): what one device sends waits there for its turn on the bottleneck and for
the delay of the path, and is written to the other. So a path has any rate, delay and loss on any
kernel that has namespaces and tun, and it can be cut in the two ways that matter: ``darken``
swallows every packet and tells nobody; ``unplug`` takes the device of one end down, which the
machine there knows.

With several paths, what leaves with a path's near address takes that path, also to the far address
of another: as with two ways to the net. The congestion control is an attribute of the routes: so it
is every tool's, whatever the machine's own is, and which of them it allows.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.bench import relay
from tests.bench.relay import Weather

NEAR: Final = "10.77.0.1"
FAR: Final = "10.77.0.2"
NET: Final = "10.77.0.0/16"  # of all paths

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000

_numbers = itertools.count()


class _Device:
    """The end of a path in a namespace."""

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name = name
        self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(
            self.descriptor,
            _TUNSETIFF,
            struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI),
        )
        _ip("link", "set", name, "netns", namespace)
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", name)
        _ip("-n", namespace, "link", "set", name, "up")


class Wire:
    """Two namespaces and the paths between them. Needs root; see ``missing``.

    ``paths``: one, if none is given. ``congestion``: of TCP; empty: the machine's own.
    """

    def __init__(self, *paths: Weather, seed: int = 0, congestion: str = "") -> None:
        name = f"bp{os.getpid() % 100000}-{next(_numbers)}"
        self._near, self._far = f"{name}n", f"{name}f"
        self._congestion = congestion
        self.near = ("ip", "netns", "exec", self._near)
        self.far = ("ip", "netns", "exec", self._far)
        self.paths = paths or (Weather(),)
        with contextlib.ExitStack() as stack:
            for each in (self._near, self._far):
                _ip("netns", "add", each)
                stack.callback(_ip, "netns", "delete", each)
                _ip("-n", each, "link", "set", "lo", "up")
            self._relay = self._start(stack, seed)
            for path in range(len(self.paths)):
                self._route(path)
            self._stack = stack.pop_all()

    def _start(self, stack: contextlib.ExitStack, seed: int) -> subprocess.Popen[bytes]:
        given, descriptors = [], []
        for path, weather in enumerate(self.paths):
            pair = []
            for namespace, address in zip((self._near, self._far), ends(path), strict=True):
                device = _Device(self._device(namespace, path), namespace, address)
                stack.callback(os.close, device.descriptor)
                pair.append(device.descriptor)
            descriptors += pair
            given.append((*pair, weather))
        command = [sys.executable, "-m", relay.__name__, str(2 * seed), json.dumps(given)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, pass_fds=descriptors, bufsize=0
        )
        stack.enter_context(process)  # which closes its stdin, and waits
        self._told(process)
        return process

    @staticmethod
    def _told(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise OSError("the relay has ended")

    @staticmethod
    def _device(namespace: str, path: int) -> str:
        return f"{namespace}{path}" if path else namespace

    def _route(self, path: int) -> None:
        """The routes of a path; what has its near address goes there, or nowhere."""
        for far in (False, True):
            self._bring(path, far)
        if path:
            table = str(100 + path)
            nowhere = "unreachable", NET, "table", table, "metric", "1000"
            _ip("-n", self._near, "route", "add", *nowhere)
            rule = ["from", ends(path)[0], "lookup", table, "priority", table]
            _ip("-n", self._near, "rule", "add", *rule)

    def _bring(self, path: int, far: bool) -> None:
        """The routes that come and go with a device: with the congestion control."""
        namespace, device = self._place(path, far)
        control = ["congctl", self._congestion] if self._congestion else []
        if control:
            route = f"10.77.{path}.0/24", "dev", device, "src", ends(path)[far]
            rest = "proto", "kernel", "scope", "link", *control
            _ip("-n", namespace, "route", "change", *route, *rest)
        if path and not far:
            table = "table", str(100 + path)
            _ip("-n", namespace, "route", "replace", NET, "dev", device, *table, *control)

    def _place(self, path: int, far: bool) -> tuple[str, str]:
        """A device, and the namespace that has it."""
        namespace = self._far if far else self._near
        return namespace, self._device(namespace, path)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def darken(self, path: int = 0) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._say(path, dark=True)

    def lighten(self, path: int = 0) -> None:
        """The path is back."""
        self._say(path, dark=False)

    def _say(self, path: int, *, dark: bool) -> None:
        assert self._relay.stdin is not None
        self._relay.stdin.write(f"{path} {int(dark)}\n".encode())
        self._told(self._relay)

    def unplug(self, path: int = 0, *, far: bool = False) -> None:
        """Take the near device of a path down, or the far one."""
        namespace, device = self._place(path, far)
        _ip("-n", namespace, "link", "set", device, "down")

    def plug(self, path: int = 0, *, far: bool = False) -> None:
        """Take it up again."""
        namespace, device = self._place(path, far)
        _ip("-n", namespace, "link", "set", device, "up")
        self._bring(path, far)

    def crossed(self, path: int = 0) -> int:
        """The bytes that the near end has sent into a path so far, with all headers."""
        shown = _ip("-n", self._near, "-s", "-j", "link", "show", self._device(self._near, path))
        [device] = json.loads(shown)
        count: int = device["stats64"]["tx"]["bytes"]
        return count


def ends(path: int) -> tuple[str, str]:
    """The addresses of the near and of the far end of a path."""
    return f"10.77.{path}.1", f"10.77.{path}.2"


def missing(congestion: str = "") -> str:
    """Why there can be no wire here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    try:
        with Wire(congestion=congestion):
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces with tun{congestion and ' and '}{congestion}: {error}"


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
