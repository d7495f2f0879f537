"""The links of a session that calls and may have several at once: a dialer for each slot.

Each has a connector of its own, so they may go different ways (``alternatives.py``). The first one
opens the session; the others are asked once there are slots for them. They share one caller, which
counts the greetings over all slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from bpipe.net.alternatives import Alternatives, Ways
from bpipe.net.clock import clock as system_clock
from bpipe.net.connectors import Connector
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.protocol.caller import Caller
from bpipe.protocol.session import Session


class Dialers:
    """Obtains greeted links for the slots of ``session``: a ``LinkSource``.

    There is a connector for each, and each waits as its connector's manners say, ``retry_max``
    seconds at most, if that is given.
    """

    exposed: Final = False
    refused: Final = 0

    def __init__(
        self,
        session: Session,
        connectors: Sequence[Connector],
        retry_max: float | None = None,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        caller = Caller(session)
        self.name = connectors[0].name
        self._ways = Ways(session, connectors)
        self._dialers = [
            Dialer(
                session,
                Alternatives(self._ways, slot),
                each.manners.backoff(retry_max),
                clock,
                caller,
                slot,
            )
            for slot, each in enumerate(connectors)
        ]

    @property
    def ways(self) -> list[str]:
        """From where each slot goes out, for people."""
        return self._ways.names

    @property
    def asks(self) -> bool:
        """Whether an attempt may be asking something on the terminal, now or next."""
        return any(each.asks for each in self._dialers)

    @property
    def attempts(self) -> int:
        """How many were started in this outage, at most in one slot."""
        return max(each.attempts for each in self._dialers)

    @property
    def next_at(self) -> float:
        """When the next attempt starts, where no slot has a link."""
        return min(each.next_at for each in self._dialers)

    @property
    def change(self) -> int:
        """Is raised with every attempt."""
        return sum(each.change for each in self._dialers)

    def start(self, drive: Callable[[], None]) -> None:
        """Call this after something has happened."""
        for each in self._dialers:
            each.start(drive)

    async def next_link(self, slot: int = 0) -> Link:
        """A link that is greeted and attached in this slot. Waits as long as it takes."""
        return await self._dialers[slot].next_link(slot)

    def hurry(self) -> None:
        """Try now, in every slot."""
        for each in self._dialers:
            each.hurry()

    async def close(self) -> None:
        """Forget attempts that nobody waits for any more. Waits for a second at most."""
        await asyncio.gather(*(each.close() for each in self._dialers))

    def abandon(self) -> None:
        """This process ends now: leave nothing behind."""
        for each in self._dialers:
            each.abandon()
