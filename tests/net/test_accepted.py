"""The links of one session that is called."""

from __future__ import annotations

import asyncio

from bpipe.errors import LinkLost
from tests.support.listening import serving


def test_what_is_known_of_one_that_can_only_wait() -> None:
    async def check() -> None:
        async with serving() as at:
            source = at.source
            assert (source.name, source.exposed) == (at.listener.name, False)
            assert (source.attempts, source.next_at, source.refused) == (0, None, 0)
            source.hurry()
            source.drop(0, LinkLost("there is none"))

    asyncio.run(check())
