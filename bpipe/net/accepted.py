"""The links of a session that is called, as its listener hands them over."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bpipe.errors import LinkLost
from bpipe.net.link import Link
from bpipe.net.sockets import leaves
from bpipe.protocol.session import Session

if TYPE_CHECKING:
    from bpipe.net.listener import Listener


class AcceptedLinks:
    """The links of one session that is called: a ``LinkSource``. Made by ``Listener.source``."""

    attempts: Final = 0  # it can only wait
    next_at: Final = None
    asks: Final = False
    ways: Final = ()

    def __init__(self, listener: Listener, session: Session) -> None:
        self._listener = listener
        self._session = session
        self._links: dict[int, Link] = {}  # those that are attached, by their slots
        self._taken: defaultdict[int, asyncio.Queue[Link]] = defaultdict(
            partial(asyncio.Queue, maxsize=1)
        )
        self._drive: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        """The address where it can be called."""
        return self._listener.name

    @property
    def exposed(self) -> bool:
        """Whether other machines can call there."""
        return self._listener.exposed

    @property
    def refused(self) -> int:
        """The callers that do not belong here; not told of one session among many."""
        return self._listener.refused if self._listener.supply is None else 0

    @property
    def change(self) -> int:
        """Is raised with everything that no link tells."""
        return self.refused

    def another(self, session: Session) -> AcceptedLinks:
        """The links of one more session at the same address, which is kept for it."""
        return self._listener.source(session)

    def start(self, drive: Callable[[], None]) -> None:
        """Begin to accept callers; call this after something has happened."""
        self._drive = drive
        self._listener.open(self._session)

    def drive(self) -> None:
        """Something has happened."""
        self._drive()

    async def next_link(self, slot: int = 0) -> Link:
        """The next link that is greeted and attached in this slot; waits until there is one."""
        while True:
            link = await self._taken[slot].get()
            if link.cause is None:
                return link

    def take(self, link: Link) -> None:
        """This one is attached."""
        slot = link.slot
        self._links[slot] = link
        link.watch(self._drive)
        if link.sock.family != socket.AF_UNIX and leaves(link.sock):
            from bpipe.net.lookout import look_out

            look_out(link)
        taken = self._taken[slot]
        while not taken.empty():
            taken.get_nowait()  # a link that was lost before anybody took it
        taken.put_nowait(link)

    def drop(self, slot: int, cause: LinkLost) -> None:
        """Close the link that is attached in this slot, if there is one."""
        if slot in self._links:
            self._links[slot].fail(cause)
        if self._session.over:
            self._drive()

    def hurry(self) -> None:
        """One can only wait."""

    def abandon(self) -> None:
        """There is nothing that would be left."""

    async def close(self) -> None:
        """The session needs no more links."""
        self._listener.release(self._session)
