"""``python -m tests.end_to_end.attacker HOST PORT``: one who does not know the secret, and storms.

It opens many connections that say nothing, and some that say a greeting byte by byte; it floods
with junk, with greetings that look right, and with those of others that it has recorded. What is
dropped is opened again, as fast as ``--rate`` allows. It ends when its stdin does, and then prints
what it has seen, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import errno
import heapq
import itertools
import json
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from typing import Final

LONGEST: Final = 600.0  # seconds until it ends by itself
DRIBBLE: Final = 0.2  # seconds between two bytes of a slow one
CROWD: Final = 500  # connections of a flood at once, at most

_HEAD: Final = b"bpip\x01\x01\x01\x00"
_GONE: Final = select.EPOLLHUP | select.EPOLLERR | select.EPOLLIN
_RESET: Final = struct.pack("ii", 1, 0)


class Kind(enum.StrEnum):
    """What a connection does."""

    SILENT = "silent"
    SLOW = "slow"
    JUNK = "junk"
    FORGED = "forged"
    REPLAY = "replay"


class Bucket:
    """Lets ``rate`` things happen a second; those that were not made up for are forgotten."""

    def __init__(self, rate: float, at_once: int) -> None:
        self._rate = rate
        self._level = float(at_once)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one may happen now."""
        now = time.monotonic()
        due = (now - self._at) * self._rate
        self._level = max(self._level, min(self._level + due, self._rate / 20))
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Connection:
    """One that is open, or on its way to be."""

    def __init__(self, kind: Kind, sock: socket.socket, text: bytes) -> None:
        self.kind = kind
        self.sock = sock
        self.text = text  # what it has still to say
        self.began = time.monotonic()
        self.heard = 0  # bytes


class Attacker:
    """The connections, and what has come of them."""

    def __init__(self, where: tuple[str, int], options: argparse.Namespace) -> None:
        self.made: Counter[Kind] = Counter()  # connections
        self.open = 0  # connections, at most, at once
        self.heard: Counter[Kind] = Counter()  # bytes, at most, by one connection
        self.kept: dict[Kind, float] = {}  # seconds, at most, that one was left open
        self._where = where
        self._recorded = [bytes.fromhex(line) for line in options.hello]
        self._wanted = {
            Kind.SILENT: options.silent,
            Kind.SLOW: options.slow,
            Kind.JUNK: CROWD if options.junk else 0,
            Kind.FORGED: CROWD if options.forged else 0,
            Kind.REPLAY: CROWD if options.replay and self._recorded else 0,
        }
        self._buckets = {
            Kind.SILENT: Bucket(options.rate, options.silent),
            Kind.SLOW: Bucket(options.rate / 5, options.slow),
            Kind.JUNK: Bucket(options.junk, 1),
            Kind.FORGED: Bucket(options.forged, 1),
            Kind.REPLAY: Bucket(options.replay, 1),
        }
        self._held: Counter[Kind] = Counter()
        self._open: dict[int, Connection] = {}
        self._turns = itertools.count()
        self._due: list[tuple[float, int, Connection]] = []  # the next byte of the slow ones
        self._epoll = select.epoll()

    def run(self) -> None:
        """Storm until stdin ends."""
        self._epoll.register(sys.stdin, select.EPOLLIN)
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            self._connect_more()
            self._dribble()
            for descriptor, events in self._epoll.poll(0.01, 256):
                if descriptor == sys.stdin.fileno():
                    return
                self._look(self._open[descriptor], events)

    def report(self) -> str:
        """What was seen."""
        seen = {"made": self.made, "open": self.open, "heard": self.heard, "kept": self.kept}
        return json.dumps(seen)

    def _connect_more(self) -> None:
        for kind, bucket in self._buckets.items():
            while self._held[kind] < self._wanted[kind] and bucket.take():
                if not self._connect(kind):
                    return

    def _connect(self, kind: Kind) -> bool:
        text = {
            Kind.SILENT: b"",
            Kind.SLOW: _HEAD + random.randbytes(96),
            Kind.JUNK: random.randbytes(200),
            Kind.FORGED: _HEAD + random.randbytes(120),
            Kind.REPLAY: random.choice(self._recorded or [b""]),
        }[kind]
        sock = socket.socket()
        sock.setblocking(False)
        if sock.connect_ex(self._where) not in (0, errno.EINPROGRESS):
            sock.close()
            return False
        connection = Connection(kind, sock, text)
        self._open[sock.fileno()] = connection
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        self._held[kind] += 1
        self.made[kind] += 1
        self.open = max(self.open, len(self._open))
        return True

    def _look(self, connection: Connection, events: int) -> None:
        sock = connection.sock
        if events & select.EPOLLOUT:
            self._epoll.modify(sock, select.EPOLLIN)
            if connection.kind is Kind.SLOW:
                self._later(connection)
            elif connection.text:
                with contextlib.suppress(OSError):
                    sock.send(connection.text)
        if events & _GONE:
            try:
                data = sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            connection.heard += len(data)
            self.heard[connection.kind] = max(self.heard[connection.kind], connection.heard)
            if not data:
                self._close(connection)

    def _later(self, connection: Connection) -> None:
        at = time.monotonic() + DRIBBLE
        heapq.heappush(self._due, (at, next(self._turns), connection))

    def _dribble(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            connection = heapq.heappop(self._due)[2]
            if connection.sock.fileno() < 0 or not connection.text:
                continue
            with contextlib.suppress(OSError):
                connection.sock.send(connection.text[:1])
            connection.text = connection.text[1:]
            self._later(connection)

    def _close(self, connection: Connection) -> None:
        kind, sock = connection.kind, connection.sock
        age = time.monotonic() - connection.began
        self.kept[kind] = max(self.kept.get(kind, 0.0), round(age, 1))
        del self._open[sock.fileno()]
        self._held[kind] -= 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.attacker")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--silent", type=int, default=0, help="connections")
    parser.add_argument("--slow", type=int, default=0, help="connections")
    parser.add_argument(
        "--rate", type=float, default=1000.0, help="of those that are made again, a second"
    )
    for kind in (Kind.JUNK, Kind.FORGED, Kind.REPLAY):
        parser.add_argument(f"--{kind}", type=float, default=0.0, help="connections a second")
    parser.add_argument("--hello", action="append", default=[], help="a recorded one, in hex")
    parser.add_argument("--processor", type=int, default=-1, help="the only one that it uses")
    options = parser.parse_args()
    if options.processor >= 0:
        os.sched_setaffinity(0, {options.processor})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacker = Attacker((options.host, options.port), options)
    attacker.run()
    print(attacker.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
