"""Simulated runs of a command that are connections, for the production ``Remote``.

What is behind one says noise first, never answers, or ends with an error; how is chosen there (see
``far.py``). Here is counted whether each is released, once, and whether there is only one attempt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from bpipe.errors import LinkLost
from bpipe.net.carrier import Fate
from bpipe.net.command import Command
from bpipe.net.connectors import Connection
from bpipe.protocol.wire import Ended, Finish
from bpipe.remote.carrier import Errand, Remote
from tests.simulation.loop import World
from tests.simulation.network import Network, Socket

MOMENT = 0.01  # seconds: one that is given up has ended by then
UNREACHABLE = 130.0  # seconds: then ssh gives up
DENIED = Fate(Finish(Ended.EXITED, 255), "ssh exited with status 255", ["Permission denied (x)"])
FAILED = DENIED._replace(said=["kex_exchange_identification: Connection reset by peer"])


class SimulatedCarrier:
    """One run."""

    def __init__(self, sock: Socket, moment: float) -> None:
        self.sock = sock
        self.gone = asyncio.get_running_loop().create_future()
        self.released = 0  # times
        self.good = False
        self._moment = moment  # seconds that it takes to end

    def release(self) -> None:
        """Its connection has ended."""
        asyncio.get_running_loop().call_later(self._moment, self.kill)

    def kill(self) -> None:
        """It has ended."""
        if not self.gone.done():
            self.gone.set_result(None)

    def let_go(self) -> None:
        """Who has the connection says that it has ended."""
        self.released += 1
        self.release()


class SimulatedCommand(Command):
    """The production command, but for the process."""

    network: Network
    world: World
    complain: Callable[[str], None]
    runs: list[SimulatedCarrier]

    async def connect(self, turn: int) -> Connection:
        before = len(self.runs)
        self.world.at(self.world.now + MOMENT, self._look_for_others, before)
        loop: Any = asyncio.get_running_loop()
        try:
            sock = await asyncio.wait_for(self.network.connect(loop), UNREACHABLE)
        except TimeoutError:
            raise LinkLost("unreachable") from None
        carrier = SimulatedCarrier(sock, self.network.weather.rng.random() * 0.5)
        self.runs.append(carrier)
        self._carriers.add(cast(Any, carrier))
        carrier.gone.add_done_callback(lambda _: self._carriers.discard(cast(Any, carrier)))

        async def fate() -> Fate | None:
            return self.network.fates.get(sock.number)

        connection = Connection(cast(Any, sock), self.name, None, carrier.let_go, fate)
        try:
            await self.begin(connection)
        except BaseException:
            sock.close()
            carrier.let_go()
            raise
        return connection

    def _look_for_others(self, count: int) -> None:
        """The attempts before this one have ended."""
        if any(not (each.good or each.released) for each in self.runs[:count]):
            self.complain("makes two attempts at once")

    def prefer(self, connection: Connection) -> None:
        for each in self.runs:
            if each.sock is cast(Any, connection.sock):
                each.good = True
        super().prefer(connection)


class SimulatedRemote(Remote, SimulatedCommand):
    """The production one; its line is not more than the words in it."""

    def __init__(self, network: Network, world: World, complain: Callable[[str], None]) -> None:
        super().__init__(["ssh"], ["ssh", "later"], Errand("simulated"), name="simulated")
        self.network, self.world, self.complain = network, world, complain
        self.runs = []

    async def check(self, timeout: float) -> None:
        """There is such a command."""

    def _line(self) -> bytes:
        return json.dumps({"nonce": self._nonce, "errand": not self.quiet}).encode() + b"\n"
