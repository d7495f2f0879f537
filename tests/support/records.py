"""Two pipes of one event loop whose streams are cut into records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import bpipe
from bpipe.net.address import parse
from bpipe.net.backoff import Backoff
from bpipe.net.bind import bind
from bpipe.net.connectors import connector
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.protocol.session import Session
from bpipe.protocol.wire import RECORDS
from tests.support.pairs import QUICK

BUFFER = 1 << 20


@contextlib.asynccontextmanager
async def pair(
    needs: tuple[int, int] = (RECORDS, 0), secret: bpipe.Secret | None = None
) -> AsyncIterator[list[bpipe.BackedPipe]]:
    """A caller and a listener that are not connected yet; what each of them needs."""
    where = parse("127.0.0.1:0")
    listener = Listener(await bind(where, anywhere=False), anywhere=False, secret=secret)
    sessions = [Session(BUFFER, QUICK, secret, needs=each) for each in needs]
    answerer = bpipe.BackedPipe(sessions[1], listener.source(sessions[1]))
    calls = connector(parse(answerer.status().peer), anywhere=False)
    caller = bpipe.BackedPipe(sessions[0], Dialer(sessions[0], calls, Backoff(0.1)))
    try:
        yield [caller, answerer]
    finally:
        for pipe in (caller, answerer):
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
            await pipe.wait_closed()


@contextlib.asynccontextmanager
async def both(
    needs: tuple[int, int] = (RECORDS, 0), secret: bpipe.Secret | None = None
) -> AsyncIterator[list[bpipe.BackedPipe]]:
    """The same, connected."""
    async with pair(needs, secret) as pipes:
        await asyncio.gather(*(pipe.connect() for pipe in pipes))
        yield pipes
