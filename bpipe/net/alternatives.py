"""Which way each of several links goes, and where else one may be tried.

Each slot has a way of its own. Those for which the peer has no slot are tried by all in turn; and
before there is a link, nobody knows how many slots there are: so the first link goes the first way
that leads there. A way that has led to the peer is the slot's own from then on.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from bpipe.errors import AddressError, LinkLost
from bpipe.net.connectors import Connection, Connector, Unresolved
from bpipe.net.schedule import Manners
from bpipe.protocol.session import Session


class Ways:
    """Those of the links of ``session``: there is a connector for each link that it would have."""

    def __init__(self, session: Session, connectors: Sequence[Connector]) -> None:
        self._session = session
        self._connectors = list(connectors)  # by slots, and then those for which there is none

    @property
    def names(self) -> list[str]:
        """From where each slot goes out, for people."""
        return [each.via for each in self._connectors]

    def own(self, slot: int) -> Connector:
        """The one of this slot."""
        return self._connectors[slot]

    def all_of(self, slot: int) -> list[Connector]:
        """Its own, and those that no slot has, if they are other ways."""
        found = {self._connectors[slot].via: self._connectors[slot]}
        for each in self._connectors[self._session.terms.slots :]:
            found.setdefault(each.via, each)
        return list(found.values())

    def prefer(self, slot: int, connector: Connector) -> None:
        """This one is the slot's own from now on, if no other has a link by it."""
        order = self._connectors
        other = order.index(connector)
        if not self._session.slots.live >> other & 1:
            order[slot], order[other] = order[other], order[slot]


class Alternatives:
    """Connects for one slot: a ``Connector``, which is several in turn."""

    def __init__(self, ways: Ways, slot: int) -> None:
        self.name = ways.own(slot).name
        self._ways = ways
        self._slot = slot
        self._makers: WeakKeyDictionary[socket.socket, Connector] = WeakKeyDictionary()

    @property
    def via(self) -> str:
        """From where its own goes out."""
        return self._ways.own(self._slot).via

    @property
    def manners(self) -> Manners:
        """How the next attempt is made."""
        return self._ways.own(self._slot).manners

    async def check(self, timeout: float) -> None:
        """Raise AddressError if it is known within ``timeout`` seconds that it may not be used."""
        await self._ways.own(self._slot).check(timeout)

    async def connect(self, turn: int) -> Connection:
        """A connection by one of those that may be tried; the last error if none leads there."""
        candidates = self._ways.all_of(self._slot)
        turn, first = divmod(turn, len(candidates))
        candidates = candidates[first:] + candidates[:first]  # a silent one does not hide others
        for maker in candidates:
            try:
                connection = await maker.connect(turn)
            except (OSError, LinkLost, AddressError, Unresolved):
                if maker is candidates[-1]:
                    raise
            else:
                self._makers[connection.sock] = maker
                return connection
        raise AssertionError("a slot has at least one way")

    def prefer(self, connection: Connection) -> None:
        """This one was good."""
        maker = self._makers[connection.sock]
        maker.prefer(connection)
        self._ways.prefer(self._slot, maker)

    async def close(self) -> None:
        """No more connections are needed. Waits for a second at most."""
        for each in self._ways.all_of(self._slot):
            await each.close()

    def abandon(self) -> None:
        """This process ends now: nothing is to be left of any connection."""
        for each in self._ways.all_of(self._slot):
            each.abandon()
