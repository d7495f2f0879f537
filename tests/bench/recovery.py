"""How soon bytes flow again after an outage, from the moment when the path is back.

All tools go through the same outage side by side, each with a thin stream from its caller to
its listener. The path is a wire between two network namespaces; where there can be none, each
tool has a proxy that freezes, and then TCP's own timers, which are what the peers wait for, do
not show.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from bpipe.report.format import format_duration
from tests.bench.peers import Session, Side, Tool
from tests.bench.processes import PATIENCE, Children, Stuck
from tests.bench.relay import Weather
from tests.bench.rounds import Options, choose, progress, scratch, table_for
from tests.bench.table import Column, Sample, Table, show_seconds, show_size
from tests.bench.wire import FAR, Wire, missing
from tests.end_to_end.helpers import Proxy, Start

OUTAGES: Final = (1.0, 5.0, 20.0, 60.0)  # seconds
ROUNDS: Final = 5
SPREAD: Final = 0.5  # seconds that an outage may be longer
STEP: Final = 0.01  # seconds between two pieces of a stream
PIECE: Final = bytes(1 << 10)
FLOWING: Final = 50  # pieces that have come through before the outage
BLACK_HOLE: Final = "black hole"
LINK_DOWN: Final = "link down"
LOST: Final = "^bpipe: connection lost: "
FLOOR: Final = "the outage"
PATH: Final = Weather(delay=0.01)

COLUMNS: Final = [
    Column("back", "back after", show_seconds),
    Column("back", "worst", show_seconds, max),
    Column("noticed", "noticed after", show_seconds),
    Column("noticed", "worst noticed", show_seconds, max),
    Column("again", "sent again", show_size, max),
]


class Stream:
    """A thin stream through one session, and when its bytes came out.

    It ends with the processes; ``join`` after that.
    """

    def __init__(self, sender: Side, receiver: Side) -> None:
        self.arrivals: list[float] = []  # time.monotonic(); one for each read
        self.sides = sender, receiver
        ends = sender.main.stdin, receiver.main.stdout
        self._threads = [
            # With descriptors of their own: the harness closes those of the processes.
            threading.Thread(target=work, args=[os.dup(end.fileno())])
            for work, end in zip((self._feed, self._drain), ends, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _feed(self, descriptor: int) -> None:
        with open(descriptor, "wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
            while file.write(PIECE):
                time.sleep(STEP)

    def _drain(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as file:
            while file.read(1 << 16):
                self.arrivals.append(time.monotonic())

    def join(self) -> None:
        """Wait for its end."""
        for thread in self._threads:
            thread.join()

    def first_after(self, when: float) -> float:
        """How long after this time a byte came; inf: none did."""
        return min((at for at in self.arrivals if at > when), default=math.inf) - when


class Network(Protocol):
    """Where the streams go through."""

    def join(self, children: Children, tool: Tool, folder: Path) -> Stream:
        """A stream through a new session."""

    def cut(self) -> None:
        """The outage begins."""

    def restore(self) -> None:
        """It is over."""


class Wired:
    """Two namespaces, for black holes and for a link that goes down."""

    def __init__(self, stack: contextlib.ExitStack, kind: str) -> None:
        self._wire = stack.enter_context(Wire(PATH))
        black = kind == BLACK_HOLE
        self.cut = self._wire.darken if black else self._wire.unplug
        self.restore = self._wire.lighten if black else self._wire.plug

    def join(self, children: Children, tool: Tool, folder: Path) -> Stream:
        """A stream through a new session."""
        wire = self._wire
        session = Session(children, tool, folder, host=FAR, near=wire.near, far=wire.far)
        receiver = session.listen()
        return Stream(session.connect(stdin=subprocess.PIPE), receiver)


class Proxied:
    """A proxy for each session, for black holes only."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._start = stack.enter_context(Start())
        self._proxies: list[Proxy] = []

    def join(self, children: Children, tool: Tool, folder: Path) -> Stream:
        """A stream through a new session."""
        session = Session(children, tool, folder)
        receiver = session.listen()
        proxy = self._start.proxy(f"{session.place.host}:{session.place.port}")
        self._proxies.append(proxy)
        host, _, port = proxy.address.rpartition(":")
        sender = session.connect(stdin=subprocess.PIPE, reach=(host, int(port)))
        return Stream(sender, receiver)

    def cut(self) -> None:
        """The outage begins."""
        for proxy in self._proxies:
            proxy.freeze()

    def restore(self) -> None:
        """It is over."""
        for proxy in self._proxies:
            proxy.thaw()


def run(options: Options) -> Iterator[Table]:
    """One table for each kind and length of outage."""
    why_not = missing()
    tools, without = choose(options, lambda tool: tool.two_way)
    if why_not:
        without.append(f"without a {LINK_DOWN}, and through proxies that freeze: {why_not}")
    with scratch(options) as folder:
        for kind in [BLACK_HOLE] if why_not else [BLACK_HOLE, LINK_DOWN]:
            for outage in options.seconds or OUTAGES:
                title = f"Recovery from a {kind} of {format_duration(outage)}"
                table = table_for(tools, without, title, COLUMNS)
                table.add(FLOOR, {"back": outage})
                for number in range(1, (options.rounds or ROUNDS) + 1):
                    progress(f"{title}: round {number}")
                    with contextlib.ExitStack() as stack:
                        network = Proxied(stack) if why_not else Wired(stack, kind)
                        _suffer(network, table, tools, folder, outage)
                progress("")
                yield table


def _suffer(network: Network, table: Table, tools: list[Tool], folder: Path, outage: float) -> None:
    """Lead a stream through every tool, and all of them through one outage."""
    with contextlib.ExitStack() as ends, Children() as children:
        streams = {}
        for tool in tools:
            try:
                streams[tool.name] = stream = network.join(children, tool, folder)
            except Stuck as error:
                table.notes.append(f"{tool.name} failed: {error}")
            else:
                ends.callback(stream.join)
        wait(lambda: all(len(each.arrivals) >= FLOWING for each in streams.values()), PATIENCE)
        cut_at = time.monotonic()
        network.cut()
        time.sleep(lasting(outage))  # this is what is measured
        network.restore()
        back_at = time.monotonic()
        # The peers wait for a timer of TCP's that has doubled since the outage began.
        wait(
            lambda: all(each.first_after(back_at) < math.inf for each in streams.values()),
            outage + PATIENCE,
        )
        for name, stream in streams.items():
            table.add(name, _judge(stream, cut_at, back_at))


def lasting(outage: float) -> float:
    """About so many seconds: its end is not to meet a timer that began with it, or to miss it."""
    return outage + random.uniform(0.0, min(SPREAD, outage / 5))


def wait(condition: Callable[[], bool], patience: float) -> None:
    """Wait for a condition, but for no longer than this."""
    until = time.monotonic() + patience
    while not condition() and time.monotonic() < until:
        time.sleep(STEP)


def _judge(stream: Stream, cut_at: float, back_at: float) -> Sample:
    """What an outage did to one stream; only bpipe says what it has noticed."""
    sample = {"back": stream.first_after(back_at)}
    lost = [at - cut_at for side in stream.sides for at, _ in side.said(LOST, cut_at)]
    if lost and cut_at + max(lost) < back_at:
        sample["noticed"] = max(lost)
    if lost:
        sample["again"] = sum(side.sent_again(cut_at) for side in stream.sides)
    return sample
