"""``python -m tests.end_to_end.storm``: a listener with a secret, and many who do not know it.

Two parts, each with the whole storm against one listener. In the first a session is up, and moves
bytes both ways. In the second the listener waits, and callers who know the secret greet it, one
after the other, up to READY: how long that takes is measured, including that they are dropped and
try again. The attacker is a process of its own; among what it repeats is the greeting of the
caller whose session is up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final, NamedTuple

from bpipe.cli.keys import load_secret, write_key
from bpipe.errors import LinkLost
from bpipe.net.clock import clock
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import CallerGreeting
from bpipe.protocol.sealed import SealedHandshake
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.report.format import format_size
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Bpipe, Start

LIMIT: Final = 0.050  # seconds: for 95 of 100 honest callers
RETRY: Final = 0.050  # seconds: the longest pause of a caller after its first failure
SEEN_OFF: Final = 80  # descriptors: 64 greetings, one for each of 8 links, and some just closing
GROWTH: Final = 8 * MIB  # of a listener's memory
PAUSE: Final = 0.010  # seconds between two honest callers: in 30 s, fewer than are remembered
RECORDED: Final = 20  # greetings that are repeated


class Size(NamedTuple):
    """How bad it is."""

    silent: int  # connections that say nothing, all at once
    slow: int  # connections that say five bytes a second, all at once
    rate: int  # of these, how many are made again in a second when they are dropped
    junk: int  # connections a second
    forged: int
    replay: int
    seconds: float  # of each part
    processor: int = -1  # the only one that the attacker uses; any: -1


FULL: Final = Size(3000, 200, rate=1000, junk=250, forged=250, replay=500, seconds=30.0)
SMALL: Final = Size(1000, 100, rate=250, junk=50, forged=50, replay=100, seconds=4.0)


class Recorder:
    """Keeps the first message of each caller that a proxy relays."""

    def __init__(self) -> None:
        self.hellos: dict[int, bytes] = {}

    def __call__(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        if upward and offset < SealedHandshake.hello_size:
            known = self.hellos.get(connection, b"")
            self.hellos[connection] = (known + data)[: SealedHandshake.hello_size]
        return data


class Outcome(NamedTuple):
    """What one part came to."""

    seen: dict[str, Any]  # by the attacker
    said: list[str]  # by the ends
    descriptors: int  # that the listener had more than before, at most
    memory: int  # bytes, the same
    load: float  # of one processor
    moved: int = 0  # bytes of the session
    times: tuple[float, ...] = ()  # seconds that honest callers took
    retries: int = 0

    @property
    def p95(self) -> float:
        """Seconds within which 95 of 100 honest callers were in."""
        return statistics.quantiles(self.times, n=20)[-1]

    @property
    def wrong(self) -> list[str]:
        """What must not be, however bad the storm and slow the machine."""
        heard = {kind: most for kind, most in self.seen["heard"].items() if most}
        told = [line for line in self.said if "refused" in line]
        wrong = []
        if self.descriptors > SEEN_OFF:
            wrong.append(f"{self.descriptors} descriptors")
        if self.memory > GROWTH:
            wrong.append(f"{self.memory} bytes of memory")
        if heard:
            wrong.append(f"outsiders were told something: {self.seen['heard']}")
        if len(told) > 2:
            wrong.append(f"{len(told)} lines about those who were refused")
        return wrong


class Storm:
    """The attacker, and an eye on its victim, from here to ``end``."""

    def __init__(self, start: Start, victim: Bpipe, size: Size, hellos: list[bytes]) -> None:
        self._victim = victim
        self._before = self._descriptors(), victim.peak_memory
        self._most = 0
        self._used, self._began = self._time_used(), time.monotonic()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._attacker = start.program(
            *(sys.executable, "-m", "tests.end_to_end.attacker"),
            *victim.address.rsplit(":", 1),
            *(f"--{name}={value}" for name, value in size._asdict().items() if name != "seconds"),
            *(f"--hello={hello.hex()}" for hello in hellos),
            stdin=PIPE,
            stdout=PIPE,
        )

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._victim.pid}/fd"))

    def _time_used(self) -> float:
        fields = Path(f"/proc/{self._victim.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._most = max(self._most, self._descriptors())

    def end(self) -> Outcome:
        """End it; returns what it came to."""
        load = (self._time_used() - self._used) / (time.monotonic() - self._began)
        self._attacker.stdin.close()
        seen = json.loads(self._attacker.read_all())
        assert self._attacker.wait() == 0
        self._over.set()
        self._watcher.join()
        descriptors, memory = self._before
        grown = self._victim.peak_memory - memory
        return Outcome(seen, self._victim.lines, self._most - descriptors, grown, load)


def endpoint(address: str) -> tuple[str, int]:
    """What a socket takes."""
    host, _, port = address.rpartition(":")
    return host, int(port)


async def greet(where: tuple[str, int], secret: Secret) -> float:
    """Be an honest caller up to READY, and leave; returns when that came."""
    loop = asyncio.get_running_loop()
    greeting = CallerGreeting(Caller(Session(1000, secret=secret)), clock())
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
        while not greeting.done:
            for view in greeting.outgoing(clock()):
                await loop.sock_sendall(sock, view)
                greeting.sent(len(view), clock())
            count = await loop.sock_recv_into(sock, greeting.incoming()[0])
            if not count:
                raise LinkLost("the connection was closed")
            greeting.received(count, clock())
        ready = clock()
        sock.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(sock, 1000):
            pass  # until the listener has noticed, and waits for the next
        return ready


async def call(where: tuple[str, int], secret: Secret, seconds: float) -> tuple[list[float], int]:
    """Call again and again; returns how long each took, and how often one had to try again."""
    times: list[float] = []
    retries = 0
    end = clock() + seconds
    while clock() < end:
        began = clock()
        while True:
            try:
                async with asyncio.timeout(5):
                    times.append(await greet(where, secret) - began)
                break
            except (LinkLost, OSError):
                retries += 1
                await asyncio.sleep(random.uniform(0, RETRY))
        await asyncio.sleep(PAUSE)
    return times, retries


def storm_a_session(size: Size, key: Path) -> Outcome:
    """Bytes go both ways meanwhile; fails if one is wrong, or if a link is lost."""
    secret = "--secret", str(key), "--buffer", "4M"
    with Start() as start:
        listener = start.bpipe("listen", "127.0.0.1:0", *secret, stdin=PIPE, stdout=PIPE)
        recorder = Recorder()
        proxy = start.proxy(listener.address, tamper=recorder)
        caller = start.bpipe("connect", proxy.address, *secret, stdin=PIPE, stdout=PIPE)
        producers = caller.feed(None), listener.feed(None, offset=7)
        consumers = listener.drain(), caller.drain(offset=7)
        for consumer in consumers:
            consumer.wait_count(16 * MIB)  # the memory of both buffers is in use
        before = sum(consumer.count for consumer in consumers)
        storm = Storm(start, listener, size, list(recorder.hellos.values()))
        time.sleep(size.seconds)
        moved = sum(consumer.count for consumer in consumers) - before
        outcome = storm.end()
        for producer, consumer in zip(producers, consumers, strict=True):
            producer.finish()
            assert consumer.wait_end() == producer.written
        assert [caller.wait(), listener.wait()] == [0, 0]
        said = listener.lines + caller.lines
        assert not [line for line in said if "lost" in line]
        return outcome._replace(said=said, moved=moved)


def storm_a_listener(size: Size, key: Path) -> Outcome:
    """Honest callers call meanwhile."""
    secret = load_secret(key)
    with Start() as start:
        listener = start.bpipe("listen", "127.0.0.1:0", "--secret", str(key))
        recorder = Recorder()
        proxy = endpoint(start.proxy(listener.address, tamper=recorder).address)
        for _ in range(RECORDED):
            asyncio.run(greet(proxy, secret))
        storm = Storm(start, listener, size, list(recorder.hellos.values()))
        times, retries = asyncio.run(call(endpoint(listener.address), secret, size.seconds))
        outcome = storm.end()
        assert listener.running
        return outcome._replace(times=tuple(times), retries=retries)


def report(name: str, outcome: Outcome, size: Size) -> None:
    """Print the figures."""
    made = ", ".join(f"{count} {kind}" for kind, count in outcome.seen["made"].items())
    print(f"{name}:")
    print(f"  outsiders      {made}; at most {outcome.seen['open']} at once")
    print(f"  heard          {outcome.seen['heard']} bytes at most by one")
    print(f"  left open      {outcome.seen['kept']} seconds at most")
    grown = format_size(max(0, outcome.memory))
    print(f"  listener       {outcome.load:.0%} of a processor, {grown} of memory more,")
    print(f"                 {outcome.descriptors} descriptors more")
    if outcome.moved:
        rate = format_size(outcome.moved / size.seconds)
        print(f"  session        {rate} a second, all compared; never lost")
    if outcome.times:
        marks = statistics.quantiles(outcome.times, n=100)
        told = ", ".join(f"p{mark} {marks[mark - 1] * 1000:.1f} ms" for mark in (50, 95, 99))
        print(f"  honest         {len(outcome.times)} callers: {told},", end="")
        print(f" longest {max(outcome.times) * 1000:.0f} ms; {outcome.retries} were dropped")
    for each in outcome.wrong:
        print(f"  WRONG          {each}")


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.storm")
    for name, value in FULL._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    size = Size(**vars(parser.parse_args()))
    print(re.sub(r"[()]", " ", str(size)))
    with tempfile.TemporaryDirectory(prefix="bpipe-storm-") as folder:
        key = Path(folder, "key")
        write_key(key)
        session = storm_a_session(size, key)
        report("a session is up", session, size)
        waiting = storm_a_listener(size, key)
        report("the listener waits", waiting, size)
    good = not session.wrong and not waiting.wrong and waiting.p95 < LIMIT
    print("verdict          " + ("nobody noticed" if good else "failed"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
