"""The kernels of simulated machines: which of their paths there are, and what they tell of that."""

from __future__ import annotations

import socket
import struct
import weakref
from typing import Any

from bpipe.net.netlink import Path, Way
from tests.simulation.loop import Loop
from tests.simulation.network import Network, Socket

_INFO = struct.Struct("=8B16I")
MESSAGE = bytes(16)  # one of which nothing is known but that something has changed
DOWN = bytes.fromhex("20000000100000000000000000000000000001000000000002100000") + bytes(4)


class Kernel:
    """That of one machine: what ``Routes`` asks, and is told by."""

    def __init__(self, loop: Loop) -> None:
        self._loop = weakref.ref(loop)  # the table of kernels is one of loops that live
        self._waiting: list[bytes] = []
        self._gone: set[int] = set()  # subnets
        self.closed = False  # nobody listens

    def opened(self) -> Kernel:
        """Somebody listens."""
        self.closed = False
        self._waiting.clear()
        return self

    # --- what happens ---

    def lose(self, subnet: int) -> None:
        """There is no way to this subnet any more."""
        self._gone.add(subnet)
        self._tell(MESSAGE)

    def restore(self, subnet: int) -> None:
        """There is one again."""
        self._gone.discard(subnet)
        self._tell(MESSAGE)

    def flap(self, subnet: int) -> None:
        """The device that leads there was down for a moment."""
        self._tell(DOWN[:20] + (subnet + 1).to_bytes(4, "little") + DOWN[24:])

    def _tell(self, message: bytes) -> None:
        if not self.closed:
            self._waiting.append(message)
            loop = self._loop()
            assert loop is not None
            loop.ready_to_read(self)  # type: ignore[arg-type]

    # --- what the loop asks ---

    @property
    def readable(self) -> bool:
        return bool(self._waiting)

    # --- what the production code asks ---

    @property
    def sock(self) -> Any:
        return self

    def messages(self) -> bytes:
        if not self._waiting:
            raise BlockingIOError
        return self._waiting.pop(0)

    def way(self, path: Path) -> Way | None:
        subnet = path.peer[1]
        return None if subnet in self._gone else Way(subnet + 1, b"", b"")

    def close(self) -> None:
        self.closed = True


class Routed(Socket):
    """A socket that has addresses, and may end with a reset that overtakes everything."""

    _abrupt = False

    def setsockopt(self, *option: Any) -> None:
        self._abrupt |= option[:2] == (socket.SOL_SOCKET, socket.SO_LINGER)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """What TCP says of the connection: see tcp_info."""
        if (level, option) != (socket.IPPROTO_TCP, socket.TCP_INFO):
            raise OSError(92, "Protocol not available")
        connection, weather = self._connection, self._connection.network.weather
        now = connection.network.world.now
        stuck = bool(self.outgoing.on_the_way and weather.resumes_at(now, connection.began) > now)
        round_trip = int(2e6 * connection.latency)  # microseconds
        return _INFO.pack(0, 0, stuck, *[0] * 5, *[0] * 4, stuck, *[0] * 10, round_trip)

    def getpeername(self) -> tuple[str, int]:
        return self._address(not self.calls), self.number

    def getsockname(self) -> tuple[str, int]:
        return self._address(self.calls), self.number

    def _address(self, calls: bool) -> str:
        network = self._connection.network
        assert isinstance(network, Subnet)
        return f"10.{network.number}.0.{1 if calls else 2}"

    def close(self) -> None:
        if self._abrupt and not self.closed:
            connection, network = self._connection, self._connection.network
            peer = connection.callee if self.calls else connection.caller
            now = network.world.now
            if network.weather.back_at(now) == now:
                network.world.at(now + connection.latency, peer.hear_reset)
            self.outgoing.lost = self.incoming.lost = True
        super().close()


class Subnet(Network):
    """A network with addresses of its own."""

    number = 0

    def named(self, number: int) -> Subnet:
        """With this number in its addresses."""
        self.number, self.kind = number, Routed
        return self
