"""How soon bytes flow again through a carrier that accepts connections while its own path is dead.

``ssh -L`` is one: its listening socket does not know that the network behind it is away. What was
connected before the path came back is dead for ever; the clock runs from its return.
"""

from __future__ import annotations

import contextlib
import math
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from bpipe.report.format import format_duration
from tests.bench.peers import BPIPE, LOOPBACK, SEALED, Session, Tool
from tests.bench.processes import PATIENCE, Children
from tests.bench.recovery import FLOWING, Stream, wait
from tests.bench.rounds import Options, attempt, choose, progress, scratch
from tests.bench.table import Column, Sample, Table, show_seconds

OUTAGES: Final = (1.5, 2.0, 3.0, 5.0, 6.5, 8.0, 12.0)  # seconds
ROUNDS: Final = 5

COLUMNS: Final = [
    Column("back", "back after", show_seconds),
    Column("back", "best", show_seconds, min),
    Column("back", "worst", show_seconds, max),
]


class Carrier:
    """Relays connections to a port of the loopback, while it lives. Always accepts them."""

    def __init__(self, port: int) -> None:
        self._target = LOOPBACK, port
        self._life: object | None = object()  # another one after each outage; None in it
        self._sockets = [socket.create_server((LOOPBACK, 0))]
        self.address: tuple[str, int] = self._sockets[0].getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Carrier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # this ends the threads
            sock.close()

    def die(self) -> None:
        """From now on nothing is forwarded, and nobody is told."""
        self._life = None

    def live(self) -> None:
        """The path is back, for new connections."""
        self._life = object()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                caller, _ = self._sockets[0].accept()
                self._sockets.append(caller)
                if self._life is None:
                    continue
                listener = socket.create_connection(self._target)
                self._sockets.append(listener)
                for ends in ((caller, listener), (listener, caller)):
                    threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        life = self._life
        with contextlib.suppress(OSError):  # one of them is closed
            while (data := source.recv(1 << 16)) and self._life is life is not None:
                sink.sendall(data)
            if self._life is life:
                sink.shutdown(socket.SHUT_WR)


def run(options: Options) -> Iterator[Table]:
    """The table of this benchmark; outages are suffered side by side."""
    tools, without = choose(options, lambda tool: tool in (BPIPE, SEALED))
    table = Table("Recovery behind a carrier that is dead, and accepts", COLUMNS, [], notes=without)
    with scratch(options) as folder:
        runs = {
            f"{tool.name}, dead for {format_duration(outage)}": partial(
                _suffer, tool, folder, outage
            )
            for tool in tools
            for outage in options.seconds or OUTAGES
        }
        table.samples = {name: [] for name in runs}
        for number in range(1, (options.rounds or ROUNDS) + 1):
            progress(f"{table.title}: round {number}")
            with ThreadPoolExecutor(len(OUTAGES)) as pool:
                for done in [pool.submit(attempt, table, *each) for each in runs.items()]:
                    done.result()
        progress("")
    yield table


def _suffer(tool: Tool, folder: Path, outage: float) -> Sample:
    """One stream, and one outage of its carrier."""
    with contextlib.ExitStack() as stack:
        children = Children()
        session = Session(children, tool, folder)
        with children:
            receiver = session.listen()
            carrier = stack.enter_context(Carrier(session.place.port))
            sender = session.connect(stdin=subprocess.PIPE, reach=carrier.address)
            stream = Stream(sender, receiver)
            stack.callback(stream.join)  # when the processes have ended
            wait(lambda: len(stream.arrivals) >= FLOWING, PATIENCE)
            carrier.die()
            time.sleep(outage)  # this is what is measured
            carrier.live()
            back_at = time.monotonic()
            wait(lambda: stream.first_after(back_at) < math.inf, PATIENCE)
            return {"back": stream.first_after(back_at)}
