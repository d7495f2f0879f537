"""A lane of the relay: packets wait for their turn and their way, are lost, or do not fit."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.bench.relay import Lane, Weather

PACKET = bytes(1000)


class Ends:
    """What the lane reads from and writes to, whose packets stay whole as a tun device's do."""

    def __init__(self, weather: Weather) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        self.near, source = socket.socketpair(type=kind)
        sink, self.far = socket.socketpair(type=kind)
        self._held = source, sink
        self.lane = Lane(source.fileno(), sink.fileno(), weather, seed=1)

    def close(self) -> None:
        for each in (self.near, self.far, *self._held):
            each.close()

    def send(self, count: int, now: float) -> None:
        """The near end sends so many."""
        for _ in range(count):
            self.near.send(PACKET)
        self.lane.take(now)

    def arrived(self, now: float) -> int:
        """How many have arrived since the last time."""
        self.lane.deliver(now)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.far.recv(1 << 16) == PACKET:
                count += 1
        return count


@contextlib.contextmanager
def lane(**weather: float) -> Iterator[Ends]:
    ends = Ends(Weather(**weather))  # type: ignore[arg-type]  # the queue's is a whole number
    try:
        yield ends
    finally:
        ends.close()


def test_a_packet_waits_for_its_turn_and_its_way() -> None:
    with lane(rate=10_000, delay=1.0) as ends:
        ends.send(3, now=0.0)
        assert ends.arrived(1.09) == 0
        assert ends.arrived(1.11) == 1
        assert ends.lane.next_at == pytest.approx(1.2)
        assert ends.arrived(1.31) == 2
        assert ends.lane.next_at is None


def test_what_does_not_fit_into_the_queue_is_dropped() -> None:
    with lane(rate=10_000, delay=0.0, queue=5000) as ends:
        ends.send(20, now=0.0)  # one is under way when five wait
        assert ends.arrived(10.0) == 6
        ends.send(1, now=10.0)
        assert ends.arrived(11.0) == 1


def test_some_are_lost() -> None:
    with lane(delay=0.0, loss=0.5) as ends:
        ends.send(60, now=0.0)
        assert 15 < ends.arrived(0.0) < 45


def test_what_is_under_way_in_the_dark_is_lost() -> None:
    with lane(delay=1.0) as ends:
        ends.send(1, now=0.0)
        ends.lane.dark = True
        ends.send(1, now=0.5)
        assert ends.arrived(1.1) == 0
        ends.lane.dark = False
        assert ends.arrived(2.0) == 0
        ends.send(1, now=2.0)
        assert ends.arrived(3.0) == 1
