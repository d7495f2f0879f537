"""A program for an old Python with nothing but the standard library: both ends, and a cut between.

Some megabytes go each way, from pipe to pipe, through a proxy that drops the first connection in
the midst of them. It prints nothing, and exits with 0, if every byte has arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading

import bpipe
from bpipe.ends.sink_pump import SinkPump
from bpipe.ends.source_pump import SourcePump

SIZE = 8 << 20
CUT_AFTER = 3 << 20
LIMITS = bpipe.Limits(connect_timeout=20.0, give_up_after=20.0)


class Proxy:
    """Passes connections on to ``port``; the first one breaks after ``CUT_AFTER`` bytes."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._port = port

    async def serve(self, caller: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        limit = CUT_AFTER if self.connections == 1 else 1 << 40
        answer, there = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [self._pass(caller, there, limit), self._pass(answer, back, limit)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (back, there):
            each.transport.abort()
        await asyncio.wait(tasks)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int
    ) -> None:
        try:
            while limit > 0 and (data := await reader.read(1 << 14)):
                limit -= len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass


class End:
    """One end, with a program on each side of it: one that writes, and one that reads."""

    def __init__(self, pipe: bpipe.BackedPipe, seed: int) -> None:
        self.data = random.Random(seed).randbytes(SIZE)
        self.found = b""
        (stdin, self._feed), (self._drain, stdout) = os.pipe(), os.pipe()
        SourcePump(pipe.engine, stdin, "stdin")
        SinkPump(pipe.engine, stdout, "stdout")
        self.programs = [threading.Thread(target=self._write), threading.Thread(target=self._read)]
        for each in self.programs:
            each.start()

    def _write(self) -> None:
        with open(self._feed, "wb") as feed:
            feed.write(self.data)

    def _read(self) -> None:
        with open(self._drain, "rb") as drain:
            self.found = drain.read()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def main() -> None:
    listener = await bpipe.listen("127.0.0.1:0", limits=LIMITS)
    proxy = Proxy(int(listener.status().peer.rpartition(":")[2]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    caller = await bpipe.connect(f"127.0.0.1:{port}", limits=LIMITS)
    await asyncio.gather(caller.connect(), listener.connect())
    near, far = End(caller, 1), End(listener, 2)
    await asyncio.wait_for(asyncio.gather(caller.wait_closed(), listener.wait_closed()), 40)
    assert caller.failure is None, caller.failure
    assert listener.failure is None, listener.failure
    for each in near.programs + far.programs:
        each.join(10)
    assert digest(near.found) == digest(far.data)
    assert digest(far.found) == digest(near.data)
    assert proxy.connections > 1, "it was not cut"
    server.close()


asyncio.run(main())
