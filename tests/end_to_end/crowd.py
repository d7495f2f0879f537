"""``python -m tests.end_to_end.crowd``: many callers at one ``bpipe listen -k -- PROGRAM``.

The listener is a process, and so is each program; the callers share this one, by the Python
interface. Each has a proxy of its own that breaks its connections at random bytes, and goes on
sending until that has happened so often. The program makes a digest of what came, and ends with
the status that it was told. With ``--links N`` each caller has so many connections at once. Some
callers more than may be served at once wait for a place meanwhile, so that every one who comes back
does so while there is none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import bpipe
from bpipe.cli.keys import load_secret, write_key
from bpipe.demo.faults import Fault, FaultProxy, random_cuts
from bpipe.protocol.wire import Admission, Answer, Ended, Finish, Opening
from bpipe.report.format import format_size
from tests.end_to_end.data import pattern, until
from tests.end_to_end.helpers import Bpipe, Start
from tests.end_to_end.remains import GUARD, has, wait_nothing_left

PROGRAM: Final = ("sh", "-c", "read -r status; sha256sum; exit $status")
REACH: Final = 1 << 16  # bytes into a connection: the furthest cut
STEP: Final = 5000  # bytes in one write
BUFFER: Final = 1 << 16
HEARTBEAT: Final = 1.0  # seconds
AT_ONCE: Final = 30  # callers that call for the first time: all of them have one processor
WAITING: Final = 0.1  # of the callers are more than may be served at once
REASONS: Final = {each.value: each.name for each in Admission}
STUCK: Final = 60.0  # seconds without a cut, and without an end, after which something is wrong


class Size(NamedTuple):
    """How many, and how bad."""

    callers: int = 500
    cuts: int = 5  # of each
    sealed: bool = False
    seed: int = 0
    links: int = 1  # of each

    @property
    def most(self) -> int:
        """Who may be served at once."""
        return self.callers - int(self.callers * WAITING)


class Eye:
    """Sees, in what one proxy relays, how those who came back were answered.

    If the links are sealed, it does not see why they were refused.
    """

    def __init__(self, *, sealed: bool) -> None:
        self.resumed = 0
        self._reasons = {} if sealed else REASONS
        self.refused: Counter[str] = Counter()
        self._back: set[int] = set()

    def __call__(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        place = 5 - offset  # of the byte in M1 that says what is wanted
        if upward and 0 <= place < len(data) and data[place] == Opening.RESUME:
            self._back.add(connection)
        if not upward and not offset and connection in self._back:
            self.resumed += 1
            if data[0] == Answer.REFUSE:
                self.refused[self._reasons.get(data[1], "who knows why")] += 1
        return data


class Caller:
    """One of them, and what it saw."""

    def __init__(self, number: int, size: Size) -> None:
        self.made: Counter[Fault] = Counter()
        self.eye = Eye(sealed=size.sealed)
        self.wrong = ""
        self.sent = 0  # bytes
        self._rng = random.Random(size.seed * 10**6 + number)
        self._number = number
        self._cuts = size.cuts
        self._links = size.links
        self._status = self._rng.choice((0, self._rng.randrange(256)))

    async def run(
        self, where: tuple[str, int], secret: bpipe.Secret | None, turns: asyncio.Semaphore
    ) -> None:
        """Call, when it is this one's turn, be cut so often, and compare."""
        cuts = random_cuts(self._rng, self._cuts, REACH)
        proxy = FaultProxy(where, cuts, tamper=self.eye)
        limits = bpipe.Limits(heartbeat=HEARTBEAT, connect_timeout=600.0)
        try:
            address = "{}:{}".format(*proxy.start())
            async with turns:
                pipe = await bpipe.connect(
                    address,
                    secret=secret,
                    buffer_size=BUFFER,
                    limits=limits,
                    links=self._links,
                )
                await pipe.connect()
            async with pipe:
                await self._talk(pipe, proxy)
        except bpipe.SessionEnded as error:
            self.wrong = f"caller {self._number}: {error}"
        finally:
            self.made.update(cut.fault for cut in proxy.made)
            await proxy.close()

    async def _talk(self, pipe: bpipe.BackedPipe, proxy: FaultProxy) -> None:
        await pipe.write(f"{self._status}\n".encode())
        digest = hashlib.sha256()
        last = self._rng.randrange(1, STEP)
        while len(proxy.made) < self._cuts or last:
            count = STEP if len(proxy.made) < self._cuts else last
            last = 0 if count == last else last
            data = pattern(self.sent, count)
            digest.update(data)
            self.sent += count
            await pipe.write(data)
        pipe.finish()
        answer = b""
        while piece := await pipe.read():
            answer += piece
        if answer.split()[:1] != [digest.hexdigest().encode()]:
            self.wrong = f"caller {self._number}: a wrong digest: {answer!r}"
        elif pipe.reader.finish != Finish(Ended.EXITED, self._status):
            self.wrong = f"caller {self._number}: {pipe.reader.finish}, not {self._status}"


class Outcome(NamedTuple):
    """What a crowd came to."""

    cuts: Counter[Fault]
    moved: int  # bytes
    resumed: int  # times that somebody came back
    refused: Counter[str]  # of these, by the reason
    wrong: list[str]


async def call(size: Size, listener: Bpipe, secret: bpipe.Secret | None) -> Outcome:
    """All of them."""
    host, _, port = listener.address.rpartition(":")
    callers = [Caller(number, size) for number in range(size.callers)]
    turns = asyncio.Semaphore(AT_ONCE)
    where = host, int(port)
    running = [asyncio.create_task(each.run(where, secret, turns)) for each in callers]
    before, since = 0, time.monotonic()
    while not all(task.done() for task in running):
        await asyncio.wait(running, timeout=1.0)
        now = sum(task.done() for task in running) + sum(each.eye.resumed for each in callers)
        if now > before:
            before, since = now, time.monotonic()
        if time.monotonic() - since > STUCK:
            break
    stuck = sum(not task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    for task in running:
        if not task.cancelled():
            task.result()
    wrong = [each.wrong for each in callers if each.wrong]
    return Outcome(
        cuts=sum((each.made for each in callers), Counter()),
        moved=sum(each.sent for each in callers),
        resumed=sum(each.eye.resumed for each in callers),
        refused=sum((each.eye.refused for each in callers), Counter()),
        wrong=wrong + ([f"{stuck} callers are stuck"] if stuck else []),
    )


def crowd(size: Size, folder: Path) -> Outcome:
    """One crowd; fails if the listener is left with anything."""
    key = folder / "key"
    write_key(key)
    options = ("--secret", str(key)) if size.sealed else ()
    secret = load_secret(key) if size.sealed else None
    with Start() as start, descriptors(size.callers):
        listener = start.bpipe(
            *("listen", "127.0.0.1:0", "-k", "--max-sessions", str(size.most)),
            *("--buffer", "64K", "--heartbeat", str(HEARTBEAT), *options, "--", *PROGRAM),
        )
        listener.wait_line("^bpipe: listening")
        fresh = has(listener.pid)
        asyncio.run(call(size._replace(callers=1, cuts=0), listener, secret))
        until(lambda: has(listener.pid).besides(fresh) == GUARD, "the first session to be gone")
        before = has(listener.pid)
        outcome = asyncio.run(call(size, listener, secret))
        wait_nothing_left(listener.pid, before)
        return outcome


@contextlib.contextmanager
def descriptors(callers: int) -> Iterator[None]:
    """Meanwhile this process may have so many as callers and proxies need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1000 + 50 * callers)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.crowd")
    parser.add_argument("--callers", type=int, default=Size().callers)
    parser.add_argument("--cuts", type=int, default=Size().cuts, help="of each")
    parser.add_argument("--links", type=int, default=Size().links, help="of each")
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    size = Size(**vars(parser.parse_args()))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bpipe-crowd-") as folder:
        outcome = crowd(size, Path(folder))
    kinds = ", ".join(f"{count} {fault}" for fault, count in outcome.cuts.most_common())
    print(f"seed           {size.seed}, {'sealed' if size.sealed else 'plain'}")
    print(f"callers        {size.callers} with {size.links} links, {size.most} at once")
    print(f"cuts           {outcome.cuts.total()} ({kinds})")
    print(f"bytes          {format_size(outcome.moved)}, by their digests")
    refused = ", ".join(f"{count} {why}" for why, count in outcome.refused.items()) or "none"
    print(f"came back      {outcome.resumed} times; refused: {refused}")
    print(f"time           {time.monotonic() - began:.0f} s")
    for each in outcome.wrong:
        print(f"WRONG          {each}")
    good = not outcome.wrong and not outcome.refused[Admission.FULL.name]
    verdict = "every digest and status is right, nothing is left" if good else "failed"
    print(f"verdict        {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
