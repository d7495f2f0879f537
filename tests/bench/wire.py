"""A network of two machines, made of two namespaces, whose wire is a thread of this process.

Theory of operation. Each namespace has a tun device, whose other side is held here: what one
device sends is read, waits for its turn on the bottleneck and for the delay of the path, and is
written to the other. So the path has any rate, delay and loss on any kernel that has namespaces
and tun, and it can be cut in the two ways that matter: ``darken`` swallows every packet and
tells nobody; ``unplug`` takes the near device down, which its machine knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

NEAR: Final = "10.77.0.1"
FAR: Final = "10.77.0.2"

QUEUE: Final = 64 << 10  # bytes that wait in front of the bottleneck; more are dropped
_BATCH: Final = 64  # packets of one direction, before the other has its turn

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000

_numbers = itertools.count()


class Weather(NamedTuple):
    """What a path does to every packet."""

    rate: float = float("inf")  # bytes per second, each way
    delay: float = 0.01  # seconds, each way
    loss: float = 0.0  # of all packets


class _Device:
    """The end of the wire in a namespace of its own."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(
            self.descriptor,
            _TUNSETIFF,
            struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI),
        )
        _ip("netns", "add", name)
        _ip("link", "set", name, "netns", name)
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
        for device in ("lo", name):
            _ip("-n", name, "link", "set", device, "up")

    def close(self) -> None:
        os.close(self.descriptor)
        _ip("netns", "delete", self.name)


class _Lane:
    """One direction: the packets under way, and when each of them arrives."""

    def __init__(self, source: _Device, sink: _Device, weather: Weather, seed: int) -> None:
        self.source = source
        self._sink = sink
        self._weather = weather
        self._random = random.Random(seed)
        self._free_at = 0.0  # when the bottleneck has sent what waits
        self._packets: deque[tuple[float, bytes]] = deque()

    @property
    def next_at(self) -> float | None:
        """When the next packet arrives."""
        return self._packets[0][0] if self._packets else None

    def take(self, now: float, *, dark: bool) -> None:
        """Take what the source has sent."""
        for _ in range(_BATCH):
            try:
                packet = os.read(self.source.descriptor, 1 << 16)
            except OSError:  # nothing is there, or the device is down
                return
            waiting = max(0.0, self._free_at - now) * self._weather.rate
            if dark or self._random.random() < self._weather.loss or waiting > QUEUE:
                continue
            self._free_at = max(now, self._free_at) + len(packet) / self._weather.rate
            self._packets.append((self._free_at + self._weather.delay, packet))

    def deliver(self, now: float, *, dark: bool) -> None:
        """Give the sink what has arrived by now."""
        while self._packets and self._packets[0][0] <= now:
            packet = self._packets.popleft()[1]
            if not dark:
                with contextlib.suppress(OSError):  # the device is down
                    os.write(self._sink.descriptor, packet)


class Wire:
    """Two namespaces and the path between them. Needs root; see ``missing``."""

    def __init__(self, weather: Weather = Weather(), seed: int = 0) -> None:  # noqa: B008
        name = f"bp{os.getpid() % 100000}-{next(_numbers)}"
        self._stack = contextlib.ExitStack()
        self._dark = False
        near = self._device(f"{name}n", NEAR)
        far = self._device(f"{name}f", FAR)
        self._near = near.name
        self._lanes = _Lane(near, far, weather, 2 * seed), _Lane(far, near, weather, 2 * seed + 1)
        self._wake, wake = os.pipe()
        self._stack.callback(os.close, self._wake)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        self._stack.callback(self._thread.join)
        self._stack.callback(os.close, wake)  # first of all: this ends the thread
        self.near = ("ip", "netns", "exec", near.name)
        self.far = ("ip", "netns", "exec", far.name)

    def _device(self, name: str, address: str) -> _Device:
        device = _Device(name, address)
        self._stack.callback(device.close)
        return device

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def darken(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._dark = True

    def lighten(self) -> None:
        """The path is back."""
        self._dark = False

    def unplug(self) -> None:
        """Take the near device down."""
        _ip("-n", self._near, "link", "set", self._near, "down")

    def plug(self) -> None:
        """Take it up again."""
        _ip("-n", self._near, "link", "set", self._near, "up")

    def _carry(self) -> None:
        poll = select.poll()
        for descriptor in (self._wake, *(lane.source.descriptor for lane in self._lanes)):
            poll.register(descriptor, select.POLLIN)
        while True:
            times = [lane.next_at for lane in self._lanes if lane.next_at is not None]
            delay = max(0.0, min(times) - time.monotonic()) * 1000 if times else None
            ready = dict(poll.poll(delay))
            if self._wake in ready:
                return
            for lane in self._lanes:
                now = time.monotonic()
                if lane.source.descriptor in ready:
                    lane.take(now, dark=self._dark)
                lane.deliver(now, dark=self._dark)


def missing() -> str:
    """Why there can be no wire here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    try:
        with Wire():
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces with tun: {error}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
