"""Supervision: a session has its links, as long as it needs any and its source has some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bpipe.net.link import Link
from bpipe.net.source import LinkSource
from bpipe.protocol.session import Session


class Supervisor:
    """Asks the source for a link, hands it over, and waits until it is lost; again and again.

    That is done for each slot: for the first one until there is a link, then for all at once.
    ``take`` is called with a slot and each of its links, and with None when it is lost; ``drive``,
    when the source has begun to look for one, or something has ``happened`` there. ``over`` is done
    when the session is.
    """

    def __init__(
        self,
        session: Session,
        source: LinkSource,
        over: asyncio.Future[Any],
        take: Callable[[int, Link | None], None],
        drive: Callable[[], None],
    ) -> None:
        self._session = session
        self._source = source
        self._over = over
        self._take = take
        self._drive = drive
        self._slots: list[asyncio.Task[None]] = []  # a task for each
        self._end = asyncio.get_running_loop().create_future()  # of all of them, or of one too soon

    async def run(self) -> None:
        """Until the session is over, and its links and the source are closed."""
        self._look_after(0)
        self._look_after_links()  # one may have come already
        try:
            await self._end
        finally:
            for task in self._slots:
                task.cancel()
            await self._source.close()

    def happened(self) -> None:
        """Something has, at the source. It may be a link in a slot that nobody looks after.

        So it is where one is called, and the first link was lost as soon as it was there.
        """
        self._look_after_links()
        self._drive()

    def _look_after_links(self) -> None:
        """Those that are there; other slots have time until there is a first link."""
        while self._slots and self._session.slots.live >> len(self._slots):
            self._look_after(len(self._slots))

    def _look_after(self, slot: int) -> None:
        task = asyncio.create_task(self._supervise(slot))
        task.add_done_callback(self._ended)
        self._slots.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._end.done():
            return
        if error is not None:
            self._end.set_exception(error)
        elif all(each.done() for each in self._slots):
            self._end.set_result(None)

    async def _supervise(self, slot: int) -> None:
        """See to it that there is a link in this slot."""
        link: Link | None = None
        while not self._session.over:
            link = await self._next_link(slot)
            if link is None:
                break
            self._take(slot, link)
            while len(self._slots) < self._session.terms.slots:
                self._look_after(len(self._slots))
            await asyncio.wait([link.lost, self._over], return_when=asyncio.FIRST_COMPLETED)
            if link.cause is not None:
                link = None
                self._take(slot, None)
        if link is not None:
            await link.close()

    async def _next_link(self, slot: int) -> Link | None:
        """A link from the source; None if the session ends before there is one."""
        search = asyncio.ensure_future(self._source.next_link(slot))
        self._drive()
        await asyncio.wait([search, self._over], return_when=asyncio.FIRST_COMPLETED)
        if search.done():
            return search.result()
        search.cancel()
        await asyncio.wait([search])
        return None
