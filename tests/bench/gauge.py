"""``python -m tests.bench.gauge PORT SECONDS [NEXT]``: note when bytes come at PORT, and how many.

They are discarded, or carried on to the port NEXT of this machine. SIGUSR1 is an outage of
so many seconds: what is connected is cut, and nobody gets in. SIGTERM ends it; then it says when
each read was, by ``time.monotonic()``, and how many bytes it had, in a line each.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Final

_LOOK: Final = 0.01  # seconds
_MOST: Final = 1 << 18  # bytes of a read


class Gauge:
    """What comes at a port, and its connections."""

    def __init__(self, port: int, outage: float, onward: int | None) -> None:
        self._port = port
        self._outage = outage
        self._onward = onward
        self._seen: list[tuple[float, int]] = []
        self._sockets: list[socket.socket] = []
        self._away_until = 0.0
        self._over = False

    def run(self) -> None:
        """Until SIGTERM."""
        with contextlib.suppress(OSError):  # what is seen late looks as if it had come at once
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        signal.signal(signal.SIGUSR1, self._go_away)
        signal.signal(signal.SIGTERM, self._end)
        while not self._over:
            time.sleep(max(0.0, self._away_until - time.monotonic()))
            with socket.create_server(("", self._port)) as server:
                server.settimeout(_LOOK)
                while not self._over and time.monotonic() > self._away_until:
                    with contextlib.suppress(TimeoutError):
                        self._join(server.accept()[0])
            self._cut()
        for at, count in self._seen:
            print(at, count)

    def _go_away(self, number: int, frame: FrameType | None) -> None:
        self._away_until = time.monotonic() + self._outage

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._over = True

    def _cut(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def _join(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        onward = None
        if self._onward is not None:
            onward = socket.create_connection(("127.0.0.1", self._onward))
            onward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(onward, sock, False), daemon=True).start()
            self._sockets.append(onward)
        threading.Thread(target=self._carry, args=(sock, onward, True), daemon=True).start()
        self._sockets.append(sock)

    def _carry(self, source: socket.socket, sink: socket.socket | None, noted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_MOST):
                if noted:
                    self._seen.append((time.monotonic(), len(data)))
                if sink is not None:
                    sink.sendall(data)
        for sock in (source, sink):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    port, outage, *onward = sys.argv[1:]
    Gauge(int(port), float(outage), int(onward[0]) if onward else None).run()
