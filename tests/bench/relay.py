"""``python -m tests.bench.relay SEED PATHS``: what lies between the tun devices of ``wire.py``.

PATHS is JSON: for each path the descriptors of its two devices and its ``Weather``. A packet that
one device sends waits for its turn on the bottleneck and for the delay of the path, and is written
to the other. stdin says ``PATH 1`` when a path goes dark and ``PATH 0`` when it is light again;
a byte is the answer, and the end of stdin ends the relay.

A process of its own, ahead of all others where that is allowed: so no tool that is measured takes
the processor from the path, and no thread of the benchmark Python's lock. Measured on two slow
cores, with packets of 1,500 bytes: 1,000 Mbit/s at most, and for 100 Mbit/s a quarter of a core,
most of it the kernel's. The same in C took as much.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import sys
import time
from collections import deque
from typing import Final, NamedTuple

QUEUE: Final = 64 << 10  # bytes
_BATCH: Final = 64  # packets of one direction, before the other has its turn


class Weather(NamedTuple):
    """What a path does to every packet."""

    rate: float = float("inf")  # bytes per second, each way
    delay: float = 0.01  # seconds, each way
    loss: float = 0.0  # of all packets, each way, before they wait
    queue: int = QUEUE  # bytes that wait in front of the bottleneck; more are dropped


class Lane:
    """One direction of a path: the packets under way, and when each of them arrives."""

    def __init__(self, source: int, sink: int, weather: Weather, seed: int) -> None:
        self._source = source
        self._sink = sink
        self._weather = weather
        self._random = random.Random(seed)
        self._free_at = 0.0  # when the bottleneck has sent what waits
        self._packets: deque[tuple[float, bytes]] = deque()
        self.dark = False

    @property
    def next_at(self) -> float | None:
        """When the next packet arrives."""
        return self._packets[0][0] if self._packets else None

    def take(self, now: float) -> None:
        """Take what the source has sent."""
        rate, delay, loss, queue = self._weather
        full_at = now + queue / rate
        chance = self._random.random
        with contextlib.suppress(OSError):  # nothing is there, or the device is down
            for _ in range(_BATCH):
                packet = os.read(self._source, 1 << 16)
                if self.dark or chance() < loss or self._free_at > full_at:
                    continue
                self._free_at = max(now, self._free_at) + len(packet) / rate
                self._packets.append((self._free_at + delay, packet))

    def deliver(self, now: float) -> None:
        """Give the sink what has arrived by now."""
        packets = self._packets
        while packets and packets[0][0] <= now:
            packet = packets.popleft()[1]
            if not self.dark:
                with contextlib.suppress(OSError):  # the device is down
                    os.write(self._sink, packet)


def carry(paths: list[tuple[Lane, Lane]], sources: dict[int, Lane]) -> None:
    """Until stdin ends. ``sources``: the lane that takes what comes from each device."""
    poll = select.poll()
    for descriptor in (0, *sources):
        poll.register(descriptor, select.POLLIN)
    lanes = [lane for path in paths for lane in path]
    while True:
        times = [lane.next_at for lane in lanes if lane.next_at is not None]
        delay = max(0.0, min(times) - time.monotonic()) * 1000 if times else None
        for descriptor, _ in sorted(poll.poll(delay)):  # stdin is first
            if descriptor:
                sources[descriptor].take(time.monotonic())
            elif not _obey(paths):
                return
        now = time.monotonic()
        for lane in lanes:
            lane.deliver(now)


def _obey(paths: list[tuple[Lane, Lane]]) -> bool:
    """Do what stdin says; returns whether it has not ended."""
    if not (line := os.read(0, 64)):
        return False
    number, dark = map(int, line.split())
    for lane in paths[number]:
        lane.dark = dark == 1
    os.write(1, b"\n")
    return True


def main(seed: int, given: list[tuple[int, int, list[float]]]) -> None:
    """Make the lanes, and carry."""
    with contextlib.suppress(OSError):  # also before who notes what arrives: bursts cost packets
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    paths: list[tuple[Lane, Lane]] = []
    sources: dict[int, Lane] = {}
    for near, far, (rate, delay, loss, queue) in given:
        weather = Weather(rate, delay, loss, int(queue))
        pair = Lane(near, far, weather, seed), Lane(far, near, weather, seed + 1)
        sources |= {near: pair[0], far: pair[1]}
        paths.append(pair)
        seed += 2
    os.write(1, b"\n")
    carry(paths, sources)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
