"""``--output``: what a stream to a file costs, with something of it there, and with nothing.

An image is sent of which 20 runs of 1 MiB have changed, beside rsync and a compressing pipe. Half
of it is random, a quarter is base32, and a quarter zeros. Every tool gets the same file to write
to: the two images are sent in turn, so what one leaves is what the next one finds. Only bpipe
waits until it is on the disk, and only bpipe encrypts.
"""

from __future__ import annotations

import base64
import contextlib
import filecmp
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.peers import LOOPBACK, bpipe, free_port
from tests.bench.processes import Child, Children, Stuck, wait_listening
from tests.bench.road import FAR, Road, missing
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import (
    Column,
    Sample,
    Table,
    show_middle_rate,
    show_seconds,
    show_size,
)

SIZE: Final = 2 << 30  # bytes
ROUNDS: Final = 3
SLOW: Final = 100_000_000  # bits per second
ROADS: Final = (1_000_000_000, None)  # the same; None: the loopback
RUNS: Final = 20  # that have changed
RUN: Final = 1 << 20  # bytes
HUGE: Final = 4 << 40  # bytes of a base
MOST_RANDOM: Final = 64 << 20  # bytes over that: all of them are written
PATIENCE: Final = 3600.0  # seconds for a transfer

CROSSING: Final = [
    Column("seconds", "time", show_seconds),
    Column("crossed", "on the line", show_size),
    Column("send", "CPU sender", show_seconds),
    Column("receive", "CPU receiver", show_seconds),
]
RATES: Final = [
    Column("rate", "median", show_middle_rate),
    Column("rate", "best", show_middle_rate, max),
    Column("receive", "CPU receiver", show_seconds),
]
MEMORY: Final = [
    Column("seconds", "time", show_seconds),
    Column("told", "digests", show_size, max),
    Column("send_memory", "RSS sender", show_size, max),
    Column("receive_memory", "RSS receiver", show_size, max),
]


class Way(NamedTuple):
    """Two commands in a shell: the receiver listens. In braces: image, file, host, port, key."""

    name: str
    receive: str
    send: str
    needs: tuple[str, ...] = ()


DAEMON: Final = """echo '
use chroot = no
[m]
path = {folder}
read only = no
uid = 0
gid = 0' > {folder}/rsyncd.conf
exec rsync --daemon --no-detach --address {host} --port {port} --config {folder}/rsyncd.conf"""
CALL: Final = "exec rsync --ignore-times {{image}} rsync://{{host}}:{{port}}/m/FILE {}"
LISTEN: Final = "exec {bpipe} listen -q --recv-only {trust} {host}:{port}"
CONNECT: Final = "exec {bpipe} connect -q {trust} {host}:{port} < {image}"

BPIPE: Final = Way("bpipe --output", LISTEN + " --output {file}", CONNECT)
RSYNC: Final = [
    Way(f"rsync {options}", DAEMON, CALL.format(options), ("rsync",))
    for options in ("--inplace", "--no-whole-file")
]
ZSTD: Final = Way(
    "zstd | nc",
    "nc -d -l {host} {port} | zstd -dqf -o {file}",
    "zstd -qc -T2 {image} | nc -N {host} {port}",
    ("zstd", "nc"),
)
PLAIN: Final = [
    BPIPE,
    Way("bpipe > FILE", LISTEN + " > {file}", CONNECT),
    Way("bpipe > FILE, sync", LISTEN.removeprefix("exec ") + " > {file}; sync {file}", CONNECT),
    Way("nc > FILE", "exec nc -d -l {host} {port} > {file}", "exec nc -N {host} {port} < {image}"),
]


def run(options: Options) -> Iterator[Table]:
    """The tables of this benchmark."""
    size = (options.sizes or (SIZE,))[0]
    rounds = options.rounds or ROUNDS
    with scratch(replace(options, sealed=True)) as folder:
        yield _changed(folder, size, rounds, options.only)
        for rate in ROADS:
            yield _new(folder, size, rounds, rate, options.only)
        yield _huge(folder, size, rounds)


# --- an image that has changed ---


def _changed(folder: Path, size: int, rounds: int, only: tuple[str, ...]) -> Table:
    title = f"{show_size(size)}, {RUNS} runs of {show_size(RUN)} changed, 100 Mbit/s"
    table = Table(title, CROSSING, [BPIPE.name], notes=[])
    if why := missing():
        table.notes.append(f"not measured: {why}")
        return table
    images = Images(folder, size)
    ways = _choose((BPIPE, *RSYNC, ZSTD), only, table)
    runs: dict[str, Callable[[], Sample]] = {
        way.name: partial(_send_next, way, images) for way in ways
    }
    interleave(table, rounds, runs)
    images.remove()
    return table


class Images:
    """Two that differ a little, and the file, which is as one of them is."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.file = folder / "FILE"
        self._images = folder / "image", folder / "image2"
        rng = random.Random(size)
        with self._images[0].open("wb") as file:
            for _ in range(0, size, 4 * RUN):
                text = base64.b32encode(rng.randbytes(RUN * 5 // 8))  # five bits in each byte
                file.write(rng.randbytes(2 * RUN) + text + bytes(RUN))
            file.truncate(size)
        shutil.copy(self._images[0], self._images[1])
        with self._images[1].open("r+b") as file:
            pieces = range(0, size, 4 * RUN)
            for at in rng.sample(pieces, min(RUNS, len(pieces))):  # both ways it is random
                file.seek(at)
                file.write(rng.randbytes(RUN))
        shutil.copy(self._images[0], self.file)
        self._number = 0

    def next(self) -> Path:
        """The one that the file is not."""
        self._number += 1
        return self._images[self._number % 2]

    def check(self, image: Path) -> None:
        """Whether this has arrived; if not, it is put there."""
        if not filecmp.cmp(self.file, image, shallow=False):
            shutil.copy(image, self.file)
            raise Stuck("the file is not what was sent")

    def remove(self) -> None:
        """They are large."""
        for path in (*self._images, self.file):
            path.unlink()


def _send_next(way: Way, images: Images) -> Sample:
    image = images.next()
    try:
        with Road(SLOW) as road:
            trust = f"--secret {images.folder / 'key'}"
            before = road.crossed
            sample = _transfer(way, images.file, image, FAR, trust, (road.far, road.near))
            sample["crossed"] = road.crossed - before
    finally:
        images.check(image)
    return sample


# --- a file that is new ---


def _new(folder: Path, size: int, rounds: int, rate: int | None, only: tuple[str, ...]) -> Table:
    where = "loopback" if rate is None else "1 Gbit/s"
    table = Table(f"A new file of {show_size(size)}, {where}", RATES, [BPIPE.name])
    if rate is not None and (why := missing()):
        table.notes.append(f"not measured: {why}")
        return table
    image = folder / "image"
    with image.open("wb") as file:
        for _ in range(0, size, 1 << 24):
            file.write(os.urandom(1 << 24))
        file.truncate(size)
    runs: dict[str, Callable[[], Sample]] = {
        way.name: partial(_send_new, way, image, rate) for way in _choose(PLAIN, only, table)
    }
    interleave(table, rounds, runs)
    image.unlink()
    return table


def _send_new(way: Way, image: Path, rate: int | None) -> Sample:
    file = image.with_name("FILE")
    with contextlib.ExitStack() as stack:
        stack.callback(file.unlink, missing_ok=True)
        if rate is None:
            sample = _transfer(way, file, image, LOOPBACK, "--insecure", ((), ()))
        else:
            road = stack.enter_context(Road(rate))
            sample = _transfer(way, file, image, FAR, "--insecure", (road.far, road.near))
        if not filecmp.cmp(file, image, shallow=False):
            raise Stuck("the file is not what was sent")
    return sample | {"rate": image.stat().st_size / sample["seconds"]}


# --- a base that is huge ---


def _huge(folder: Path, size: int, rounds: int) -> Table:
    title = f"{show_size(size)} over a base of {show_size(HUGE)}, all of it a hole"
    table = Table(title, MEMORY, [])
    runs: dict[str, Callable[[], Sample]] = {
        "random bytes": partial(_send_over, folder, "/dev/urandom", min(size, MOST_RANDOM)),
        "zeros": partial(_send_over, folder, "/dev/zero", size),
    }
    interleave(table, rounds, runs)
    return table


def _send_over(folder: Path, source: str, size: int) -> Sample:
    file, log = folder / "FILE", folder / "log"
    with file.open("wb") as opened:
        opened.truncate(HUGE)
    log.unlink(missing_ok=True)
    with Children() as children:
        address = f"unix:{folder / 's'}"
        listen = [*bpipe(), "listen", address, "--output", str(file)]
        receiver = children.start(listen)
        wait_listening(receiver, path=str(folder / "s"))
        began = time.monotonic()
        producer = children.start(["head", "-c", str(size), source], stdout=subprocess.PIPE)
        connect = [*bpipe(), "connect", address, "--log-json", str(log), "--log-interval", "100ms"]
        sender = children.start(connect, stdin=producer)
        while not receiver.ended(0.05):
            receiver.look()
            sender.look()
        _await(sender)
        seconds = time.monotonic() - began
        if sender.popen.wait() or receiver.popen.wait():
            raise Stuck(f"{sender.said}; {receiver.said}")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    file.unlink()
    return {
        "seconds": seconds,
        "told": -(-events[-1]["compared"] // (4 << 20)) * 32,
        "send_memory": sender.peak_memory,
        "receive_memory": receiver.peak_memory,
    }


# --- all of them ---


def _choose(ways: Iterable[Way], only: tuple[str, ...], table: Table) -> list[Way]:
    """Those that are wanted and can be run here."""
    found = []
    for way in ways:
        lacking = [program for program in way.needs if shutil.which(program) is None]
        table.notes += [f"without {way.name}: {program} is not installed" for program in lacking]
        if not lacking and (not only or way.name in only):
            found.append(way)
    return found


def _transfer(
    way: Way,
    file: Path,
    image: Path,
    host: str,
    trust: str,
    prefixes: tuple[Sequence[str], Sequence[str]],
) -> Sample:
    """The clock runs from the start of the sender until both have ended."""
    port = free_port()
    words = {
        "bpipe": shlex.join(bpipe()),
        "file": file,
        "folder": file.parent,
        "image": image,
        "host": host,
        "port": port,
        "trust": trust,
    }
    with Children() as children:
        receive, send = (
            [*prefix, "sh", "-c", command.format(**words)]
            for prefix, command in zip(prefixes, (way.receive, way.send), strict=True)
        )
        receiver = children.start(receive)
        wait_listening(receiver, port=port)
        began = time.monotonic()
        sender = children.start(send)
        _await(sender)
        if way in RSYNC:
            receiver.signal(signal.SIGTERM)  # it serves others, too
        _await(receiver)
        seconds = time.monotonic() - began
        cpu = {"send": sender.reap(), "receive": receiver.reap()}
        if sender.popen.returncode or (receiver.popen.returncode and way not in RSYNC):
            raise Stuck(f"{way.name}: {sender.said}; {receiver.said}")
    return {"seconds": seconds, **cpu}


def _await(child: Child) -> None:
    if not child.ended(PATIENCE):
        raise Stuck(f"{child.popen.args!r} does not end; it said: {child.said}")
