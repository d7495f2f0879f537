"""One file to another machine, by what people have for that: how fast, and what a cut makes of it.

The other machine is an sshd of its own, or whoever listens there. In the middle of the file all
connections are cut; who says that he has failed is started again, until the file is there.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.peers import LOOPBACK, bpipe, free_port
from tests.bench.processes import PATIENCE, Child, Children, Stuck, wait_listening
from tests.bench.recovery import wait
from tests.bench.road import FAR, Road, missing
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import (
    Column,
    Sample,
    Table,
    show_count,
    show_seconds,
    show_size,
)
from tests.end_to_end import sshd
from tests.end_to_end.data import until
from tests.end_to_end.remains import children as children_of

SIZE: Final = 256 << 20  # bytes; a quarter of it on the slow road
SLOW: Final = 100_000_000  # bits per second
ROADS: Final = {"loopback": None, "1 Gbit/s": 1_000_000_000, "100 Mbit/s": SLOW}
ROUNDS: Final = 3
RUNS: Final = 3  # of one tool after a cut, at most
LIMIT: Final = 600.0  # seconds for one run
ALONE: Final = "unshare", "--pid", "--fork", "--mount-proc"  # so sshd inherits its orphans

SPEED: Final = [
    Column("seconds", "time", show_seconds),
    Column("seconds", "best", show_seconds, min),
    Column("send", "CPU here", show_seconds),
    Column("receive", "CPU there", show_seconds),
]
CUT: Final = [
    Column("status", "exit status", show_count, max),
    Column("whole", "then the file is", lambda whole: "whole" if whole else "not whole", min),
    Column("runs", "runs until it is", show_count),
    Column("crossed", "crossed, of the file", "{:.2f}".format),
]


class Way(NamedTuple):
    """Commands in a shell, with the words of ``Place`` in braces."""

    name: str
    send: str
    receive: str = ""  # who listens there; empty: sshd
    again: str = ""  # what goes on after a failure; empty: ``send``
    needs: tuple[str, ...] = ()


WAYS: Final = (
    Way("bpipe ssh", "exec {bpipe} ssh -q -F {conf} {far} 'cat > FILE' < {image}"),
    Way("ssh", "exec ssh -F {conf} {far} 'cat > FILE' < {image}"),
    Way(
        "rsync --inplace",
        "exec rsync --inplace -e 'ssh -F {conf}' {image} {far}:FILE",
        needs=("rsync",),
    ),
    Way(
        "mscp",
        "exec mscp -q -F {conf} -W {image}.state {image} {far}:FILE",
        again="exec mscp -q -F {conf} -R {image}.state",
        needs=("mscp",),
    ),
    Way(
        "bbcp -a -k",
        "exec bbcp -n -k -a {there} -S bbcp -T 'ssh -F {conf} -l %U %H {there}/bbcp'"
        " {image} {far}:{there}/FILE",
        needs=("bbcp",),
    ),
    Way(
        "bpipe --output, sealed",
        "exec {bpipe} connect -q --secret {key} {host}:{port} < {image}",
        "exec {bpipe} listen -q --recv-only --secret {key} --output {file} {host}:{port}",
    ),
    Way("nc", "exec nc -N {host} {port} < {image}", "exec nc -d -l {host} {port} > {file}"),
    Way(
        "mbuffer",
        "exec mbuffer -q -m 64M -i {image} -O {host}:{port}",
        "exec mbuffer -q -m 64M -f -I {port} -o {file}",
        needs=("mbuffer",),
    ),
)


def run(options: Options) -> Iterator[Table]:
    """The tables of this benchmark."""
    size = (options.sizes or (SIZE,))[0]
    with scratch(replace(options, sealed=True)) as folder:
        for name, rate in ROADS.items():
            title = f"{show_size(_part(size, rate))} to another machine, {name}"
            yield _table(title, SPEED, options, folder, size, rate, _bring)
        title = f"{show_size(_part(size, SLOW))} over {SLOW // 10**6} Mbit/s, cut in the middle"
        yield _table(title, CUT, options, folder, size, SLOW, _suffer)


def _part(size: int, rate: int | None) -> int:
    return size // 4 if rate == SLOW else size


def _table(
    title: str,
    columns: list[Column],
    options: Options,
    folder: Path,
    size: int,
    rate: int | None,
    sample: Callable[[Way, Place], Sample],
) -> Table:
    table = Table(title, columns, [WAYS[0].name] if columns is SPEED else [])
    if why := sshd.missing() or (rate and missing()):
        table.notes.append(f"not measured: {why}")
        return table
    with contextlib.ExitStack() as stack:
        place = Place(stack, folder, _part(size, rate), rate)
        runs: dict[str, Callable[[], Sample]] = {
            way.name: partial(sample, way, place) for way in _choose(options.only, table)
        }
        interleave(table, options.rounds or ROUNDS, runs)
    return table


def _choose(only: Sequence[str], table: Table) -> Iterator[Way]:
    """Those that are wanted and can be run here."""
    for way in WAYS:
        if only and way.name not in only:
            continue
        lacking = [program for program in way.needs if shutil.which(program) is None]
        table.notes += [f"without {way.name}: {program} is not installed" for program in lacking]
        if not lacking:
            yield way


class Place:
    """Two machines, and a file that is to be brought from here to there."""

    def __init__(
        self, stack: contextlib.ExitStack, folder: Path, size: int, rate: int | None
    ) -> None:
        self.road = None if rate is None else stack.enter_context(Road(rate))
        self._near = () if self.road is None else self.road.near
        self._far = () if self.road is None else self.road.far
        host = LOOPBACK if self.road is None else FAR
        server = sshd.Sshd(address=host, within=(*self._far, *ALONE))
        stack.callback(server.end)
        user = server.far()
        self.image, self.file = folder / "image", user.home / "FILE"
        self.image.write_bytes(os.urandom(size))
        conf = folder / "ssh.conf"
        conf.write_text(sshd.SSH.format(address=host, port=server.port, key=server.key))
        if program := shutil.which("bbcp"):
            shutil.copy(program, user.home)
        [self._server] = children_of(server.pid)
        self._words = {
            **{"bpipe": shlex.join(bpipe()), "conf": conf, "far": f"{user.name}@{host}"},
            **{"there": sshd.THERE / user.name, "host": host, "key": folder / "key"},
            **{"image": self.image, "file": self.file},
        }

    def clear(self) -> None:
        """Nothing of the file is there."""
        for path in (*self.file.parent.glob("*FILE*"), *self.image.parent.glob("image.*")):
            path.unlink()

    def receive(self, way: Way, children: Children) -> Child | None:
        """Start the listener of this way, if it has one."""
        if not way.receive:
            return None
        self._words["port"] = free_port()
        receiver = children.start(self._command(self._far, way.receive))
        wait_listening(receiver, port=int(str(self._words["port"])))
        return receiver

    def send(self, command: str, children: Children) -> Child:
        """Start the sender."""
        return children.start(self._command(self._near, command))

    def _command(self, prefix: Sequence[str], command: str) -> list[str]:
        return [*prefix, "sh", "-c", command.format(**self._words)]

    def cut(self) -> None:
        """Every connection of this side ends with an error, and the other side hears of it."""
        killed = subprocess.run([*self._near, "ss", "-KtnH"], capture_output=True, check=False)
        if not killed.stdout:
            raise Stuck("no connection could be cut: this needs ss -K")

    @property
    def whole(self) -> bool:
        """Whether all of it is there, under its name."""
        return self.file.exists() and filecmp.cmp(self.file, self.image, shallow=False)

    @property
    def sshd_cpu(self) -> float:
        """CPU seconds of all that sshd has ever started; waits for its end."""
        until(lambda: not children_of(self._server), "the end of what sshd has started")
        fields = Path(f"/proc/{self._server}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _bring(way: Way, place: Place) -> Sample:
    """The clock runs from the start of the sender until both have ended."""
    place.clear()
    before = place.sshd_cpu
    with Children() as children:
        receiver = place.receive(way, children)
        began = time.monotonic()
        sender = place.send(way.send, children)
        for each in (sender, receiver):
            if each is not None and not each.ended(LIMIT):
                raise Stuck(f"{way.name} does not end; it said: {each.said}")
        seconds = time.monotonic() - began
        send = sender.reap()
        receive = receiver.reap() if receiver else place.sshd_cpu - before
        if sender.popen.returncode or not place.whole:
            raise Stuck(f"{way.name}: status {sender.popen.returncode}; {sender.said}")
    return {"seconds": seconds, "send": send, "receive": receive}


def _suffer(way: Way, place: Place) -> Sample:
    """One cut, and what has to be done until the file is there."""
    place.clear()
    size = place.image.stat().st_size
    road = place.road
    assert road is not None
    before = road.crossed
    with Children() as children:
        receiver = place.receive(way, children)
        sender = place.send(way.send, children)
        wait(lambda: road.crossed - before > size // 2 or sender.ended(0), LIMIT)
        place.cut()
        status = _status(way, sender, receiver)
        sample = {"status": status, "whole": place.whole}
        runs = 1
        while status and runs < RUNS:
            runs += 1
            status = _again(way, place)
    if place.whole:
        sample["runs"] = runs
    return sample | {"crossed": (road.crossed - before) / size}


def _again(way: Way, place: Place) -> int:
    """Run it once more; returns its exit status."""
    with Children() as children:
        receiver = place.receive(way, children)
        return _status(way, place.send(way.again or way.send, children), receiver)


def _status(way: Way, sender: Child, receiver: Child | None) -> int:
    """What the sender says, when both have ended, or the receiver does not."""
    if not sender.ended(LIMIT):
        raise Stuck(f"{way.name} does not end; it said: {sender.said}")
    if receiver is not None:
        receiver.ended(PATIENCE)
    status: int = sender.popen.wait()
    return status
