"""Two pipes of one event loop with several links between them, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

import bpipe
from bpipe.demo.faults import Cut, FaultProxy
from bpipe.net.address import parse
from bpipe.net.bind import bind
from bpipe.net.connectors import Tcp
from bpipe.net.dialers import Dialers
from bpipe.net.listener import Listener
from bpipe.protocol.session import Session
from tests.support.pipes import QUICK

BUFFER: Final = 1 << 18
CALM: Final = QUICK._replace(heartbeat=0.5)  # so that a busy machine loses no link that lives


class Both(NamedTuple):
    """The two ends, and what stands between them, for each slot."""

    caller: bpipe.BackedPipe
    listener: bpipe.BackedPipe
    proxies: list[FaultProxy]


@contextlib.asynccontextmanager
async def several(
    cuts: Sequence[Iterable[Cut]],
    most: int = 8,
    secret: bpipe.Secret | None = None,
    limits: bpipe.Limits = QUICK,
) -> AsyncIterator[Both]:
    """A caller that has a link for each of these rows of cuts; the listener has so many at most."""
    bound = await bind(parse("127.0.0.1:0"), anywhere=False)
    listener = Listener(bound, anywhere=False, secret=secret)
    answering = Session(BUFFER, limits, secret, links=most)
    answerer = bpipe.BackedPipe(answering, listener.source(answering))
    host, _, port = listener.name.rpartition(":")
    proxies = [FaultProxy((host, int(port)), each) for each in cuts]
    calls = [Tcp(parse("{}:{}".format(*proxy.start()))) for proxy in proxies]
    for slot, each in enumerate(calls):
        each.via = f"way {slot}"
    calling = Session(BUFFER, limits, secret, links=len(calls))
    caller = bpipe.BackedPipe(calling, Dialers(calling, calls, 0.05))
    try:
        await asyncio.gather(caller.connect(), answerer.connect())
        yield Both(caller, answerer, proxies)
    finally:
        for pipe in (caller, answerer):
            pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
            await pipe.wait_closed()
        for proxy in proxies:
            await proxy.close()
