"""Supervision: a session has a link, as long as it needs one and its source has any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bpipe.net.link import Link
from bpipe.net.source import LinkSource
from bpipe.protocol.session import Session


class Supervisor:
    """Asks the source for a link, hands it over, and waits until it is lost; again and again.

    ``take`` is called with each link, and with None when it is lost; ``drive``, when the source
    has begun to look for one. ``over`` is done when the session is.
    """

    def __init__(
        self,
        session: Session,
        source: LinkSource,
        over: asyncio.Future[Any],
        take: Callable[[Link | None], None],
        drive: Callable[[], None],
    ) -> None:
        self._session = session
        self._source = source
        self._over = over
        self._take = take
        self._drive = drive

    async def run(self) -> None:
        """Until the session is over, and its link and the source are closed."""
        link: Link | None = None
        try:
            while not self._session.over:
                link = await self._next_link()
                if link is None:
                    break
                self._take(link)
                await asyncio.wait([link.lost, self._over], return_when=asyncio.FIRST_COMPLETED)
                if link.cause is not None:
                    link = None
                    self._take(None)
            if link is not None:
                await link.close()
        finally:
            await self._source.close()

    async def _next_link(self) -> Link | None:
        """A link from the source; None if the session ends before there is one."""
        search = asyncio.ensure_future(self._source.next_link())
        self._drive()
        await asyncio.wait([search, self._over], return_when=asyncio.FIRST_COMPLETED)
        if search.done():
            return search.result()
        search.cancel()
        await asyncio.wait([search])
        return None
