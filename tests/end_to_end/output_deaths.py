"""``python -m tests.end_to_end.output_deaths --deaths N``: the ends of a stream to a file, killed.

A receiver with ``--output``, a sender, and a proxy between them that counts bytes. In each run one
of them dies, or both: when a certain byte has crossed, or by itself at a certain act on the disk
(``disk_actor``). Often the power is cut as well (``power``). Then the same two commands are run
again, until all deaths of this story are over and it has to end well. FILE is always one of the
streams, whole, or what it was before; who exits 0 tells the truth, also after the power was cut;
and no more crosses the line than the blocks that differ from what lies there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from subprocess import PIPE
from typing import Final, NamedTuple

from bpipe.cli.keys import write_key
from bpipe.protocol.blocks import DIGEST, Base
from tests.end_to_end import disk_actor, power
from tests.end_to_end.data import until
from tests.end_to_end.helpers import Bpipe, Start
from tests.end_to_end.quota import Quota
from tests.end_to_end.recipes import free_port

PATIENCE: Final = 40.0  # seconds
ALONE: Final = 2.0  # seconds that one end goes on without the other, at most
MOST: Final = 1 << 20  # bytes of a stream
GREETING: Final = 250  # bytes that cross besides, each way, about
MODE: Final = 0o640  # of the old FILE
PIECE: Final = 1 << 16  # bytes: such a run of zeros can be a hole

ACTS: Final = {  # on the disk, at which a receiver dies, and how often each is drawn
    "write": 8,
    "copy": 1,
    "punch": 1,
    "truncate": 1,
    "sync_data": 1,
    "chmod": 1,
    "sync": 2,  # of the part, and of the folder
    "rename": 2,
    "open": 1,
}


class Story(NamedTuple):
    """What stays the same in all runs of one file."""

    window: int  # bytes
    unix: bool
    sealed: bool
    calls: bool  # the receiver does, else the sender
    keep: bool  # the receiver is to go on with the next sender
    syncs: float  # seconds between two of them
    old: bytes | None  # what FILE is in the beginning
    deaths: int


class Death(NamedTuple):
    """How a run is to go wrong."""

    victims: tuple[str, ...]
    at: str  # ``up:OFFSET``, ``down:OFFSET``, ``nowhere``, or an act of the disk
    number: int  # of the signal
    alone: bool  # who is left is left alone, until it gives up; else it is killed, too
    power: bool  # is cut


def draw_story(rng: random.Random) -> tuple[Story, bytes]:
    """A story, and the first stream of it."""
    stream = draw_stream(rng)
    old = rng.choice((None, changed(stream, rng), changed(stream, rng), draw_stream(rng)))
    calls = rng.random() < 0.3
    story = Story(
        window=1 << rng.randrange(12, 18),
        unix=rng.random() < 0.7,
        sealed=rng.random() < 0.1,
        calls=calls,
        keep=not calls and rng.random() < 0.2,
        syncs=rng.choice((0.03, 0.3, 5.0)),
        old=old,
        deaths=rng.randint(1, 5),
    )
    return story, stream


def draw_stream(rng: random.Random) -> bytes:
    """Some random bytes, with zeros among them."""
    length = rng.choice((0, 5000, *(rng.randrange(MOST) for _ in range(4)), MOST, MOST))
    stream = bytearray(rng.randbytes(length))
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(0, MOST, PIECE)
        count = min(rng.choice((4096, PIECE, 3 * PIECE)), max(length - at, 0))
        stream[at : at + count] = bytes(count)
    return bytes(stream)


def changed(stream: bytes, rng: random.Random) -> bytes:
    """Almost the same: some bytes are others, some are inserted, or the end is another."""
    other = bytearray(stream)
    for _ in range(rng.choice((0, 1, 5))):
        if other:
            other[rng.randrange(len(other))] ^= 1 << rng.randrange(8)
    manner = rng.randrange(4)
    if manner == 0:
        at = rng.randint(0, len(other))
        other[at:at] = b"inserted"
    elif manner == 1:
        other += rng.randbytes(rng.randrange(MOST // 4))
    elif manner == 2:
        del other[rng.randint(0, len(other)) :]
    return bytes(other)


def draw_death(rng: random.Random, story: Story, differs: int, block: int) -> Death:
    """How a run goes wrong in which so many bytes are to cross."""
    victims: tuple[str, ...] = ("receiver",)
    mild = False
    if not story.keep and rng.random() < 0.5:  # who is kept would die in a later run
        act = rng.choices(list(ACTS), list(ACTS.values()))[0]
        most = {"write": differs // story.window + 1, "sync": 2, "sync_data": 2}
        when = rng.choice(("before", "after", *(["half"] if act == "write" else [])))
        at = f"{act}:{rng.randint(1, most.get(act, 1))}:{when}"
    else:
        victims = rng.choice((("receiver",), ("sender",), ("receiver", "sender")))
        digests = MOST // block * DIGEST
        way, much = rng.choice((("up", differs), ("up", differs), ("down", digests)))
        at = f"{way}:{rng.randrange(much + GREETING)}"
        mild = not story.keep and rng.random() < 0.2
    number = signal.SIGTERM if mild else signal.SIGKILL
    cut = "receiver" in victims and not mild and rng.random() < 0.6
    return Death(victims, at, number, rng.random() < 0.4, cut)


WELL: Final = Death((), "nowhere", 0, alone=True, power=True)  # who exits 0 need not mind


class Told(NamedTuple):
    """What an end said last."""

    name: str  # sender, receiver
    status: int
    sent: int | None  # bytes of the stream; None: it said nothing
    lines: list[str]


class Run:
    """A receiver and a sender, once."""

    def __init__(self, folder: Path, story: Story, death: Death, stream: bytes) -> None:
        self.hit = False  # somebody has died
        self.differs, self.block = difference(folder / "out", story.window, stream)
        self._folder = folder
        self._story = story
        self._death = death
        self._stream = stream
        self._crossed = {"up": 0, "down": 0}  # to the receiver is up
        self._way, _, self._offset = death.at.partition(":")
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self.receiver: Bpipe
        self.sender: Bpipe

    def play(self, start: Start, port: int, receiver: Bpipe | None) -> list[Told]:
        """Returns what the ends said that have ended: the sender, and the receiver.

        A receiver may be there already; whoever is kept lives longer than this run.
        """
        story, folder = self._story, self._folder
        listens = f"unix:{folder / 's'}" if story.unix else f"127.0.0.1:{port}"
        path = folder / "p" if story.unix else None
        if path is not None:
            path.unlink(missing_ok=True)
        with Start() as mine:
            proxy = mine.proxy(listens, path=path, tamper=self._count)
            calls = ["connect", proxy.address, "--retry-max=50ms", "--connect-timeout=15s"]
            ways = [["listen", listens], calls]
            sends, receives = ways if story.calls else reversed(ways)
            self.receiver = receiver or self._receiver(start, receives)
            self.sender = mine.bpipe(*sends, *self._options("sender"), stdin=PIPE)
            self._feeder.start()
            self._wait()
            self._feeder.join()
        ends = {"sender": self.sender, "receiver": self.receiver}
        return [self._told(name, end) for name, end in ends.items() if not end.running]

    def _receiver(self, start: Start, where: list[str]) -> Bpipe:
        keep = ["-k"] if self._story.keep else []
        at = self._death.at if self._way in ACTS else "never"
        notes = str(self._folder / "notes")
        return start.bpipe(
            *(*where, *keep, "--output", str(self._folder / "out" / "F")),
            *self._options("receiver"),
            python=("-P", disk_actor.__file__, notes, str(self._story.syncs), at),
        )

    def _options(self, name: str) -> list[str]:
        log = self._folder / f"{name}.json"
        log.unlink(missing_ok=True)
        secret = ["--secret", str(self._folder.parent / "key")] if self._story.sealed else []
        buffer = f"--buffer={self._story.window}"
        return [buffer, "--give-up-after=500ms", "--log-json", str(log), *secret]

    def _feed(self) -> None:
        with contextlib.suppress(BrokenPipeError), self.sender.stdin as file:
            file.write(self._stream)

    def _count(self, connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        """For the proxy. Beyond the offset nothing crosses any more, in any direction."""
        way = "up" if upward is not self._story.calls else "down"
        self._crossed[way] += len(data)
        if self.hit:
            return b""
        if way != self._way or self._crossed[way] < int(self._offset):
            return data
        self.hit = True
        for name in self._death.victims:
            (self.receiver if name == "receiver" else self.sender).signal(self._death.number)
        return data[: len(data) - self._crossed[way] + int(self._offset)]

    def _wait(self) -> None:
        """Wait for both, unless one is kept; whoever is left alone gets some time, or none."""
        ends = self.sender, self.receiver
        until(lambda: not all(each.running for each in ends), "an end", PATIENCE)
        self.hit = self.hit or self.receiver.popen.poll() == -signal.SIGKILL
        kept = self._story.keep and self.receiver.running
        patience = PATIENCE if not self.hit else ALONE if self._death.alone else 0.0
        for each in ends:
            if each is self.receiver and kept:
                continue
            try:
                each.popen.wait(patience)
            except subprocess.TimeoutExpired:
                each.signal(signal.SIGTERM if self._death.alone else signal.SIGKILL)
            each.wait(PATIENCE)

    def _told(self, name: str, end: Bpipe) -> Told:
        log, status = self._folder / f"{name}.json", end.wait(PATIENCE)
        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        sent = [event["sent"] for event in events if event["event"] == "done"]
        return Told(name, status, sent[-1] if sent else None, end.lines[-2:])


def difference(out: Path, window: int, stream: bytes) -> tuple[int, int]:
    """The bytes of the blocks of this stream that do not lie there, and the size of a block."""
    part = contents(out / "F.part") or b""
    base = part + (contents(out / "F") or b"")[len(part) :]
    size = Base.of(len(base), window).block
    pieces = (range(at, min(at + size, len(stream))) for at in range(0, len(stream), size))
    there = memoryview(base)
    unlike = [
        at for at in pieces if stream[at.start : at.stop] != there[at.start : at.start + size]
    ]
    return sum(map(len, unlike)), size


def contents(path: Path) -> bytes | None:
    """All of it; None if there is no such file."""
    return path.read_bytes() if path.exists() else None


def judge(run: Run, told: list[Told], before: bytes | None, stream: bytes, out: Path) -> list[str]:
    """What was wrong, after the power may have been cut."""
    wrong, found = [], contents(out / "F")
    if found not in (before, stream):
        wrong.append("a FILE that is neither the old one nor the stream")
    for each in told:
        if each.status == 0 and found != stream:
            wrong.append(f"a false 0 of the {each.name}: {each.lines}")
        if each.status != 0 and not run.hit:
            wrong.append(f"the {each.name} exits {each.status}, and nobody died: {each.lines}")
    sent = told[0].sent
    if sent is not None and sent > run.differs + run.block:
        wrong.append(f"{sent} bytes crossed of {run.differs}")
    names = {each.name for each in out.iterdir()}
    if run.receiver.running and not contents(out / "F.part"):
        names -= {"F.part"}  # it waits for the next sender
    if not run.hit and (sent is None or names != {"F"}):
        wrong.append(f"there are {names}")
    return wrong


class Tally(Quota):
    """What came of all stories; what happens are deaths."""

    def __init__(self, deaths: int, seed: int) -> None:
        super().__init__(deaths, seed)
        self.cuts: Counter[str] = Counter()  # of the power, by what was lost
        self.well = self.named = self.exact = 0
        self.length = self.sent = self.differed = 0  # bytes

    def note(self, run: Run, death: Death, told: list[Told], stream: bytes, out: Path) -> None:
        """A run is over."""
        with self._lock:
            self.runs += 1
            self.well += not run.hit
            self.named += run.hit and contents(out / "F") == stream
            if run.hit:
                name, _, _ = death.at.partition(":")
                self.happened[" and ".join(death.victims) + f" at {name}"] += 1
            self.statuses.update(f"{each.name} {each.status}" for each in told)
            if told[0].sent is not None and not run.hit:
                self.exact += told[0].sent == run.differs
                self.length += len(stream)
                self.sent += told[0].sent
                self.differed += run.differs
            self._show()

    def cut(self, lost: str) -> None:
        """The power was cut."""
        with self._lock:
            self.cuts[lost] += 1

    def line(self) -> str:
        """Where it stands."""
        return (
            f"{self.happened.total()} deaths and {self.cuts.total()} power cuts"
            f" in {self.runs} runs; {self.named} came after FILE had its name,"
            f" {self.well} runs ended well; {self.seconds:.0f} s"
        )


class Play:
    """All runs of one story, from its number alone."""

    def __init__(self, number: int, tally: Tally, folder: Path) -> None:
        self._tally = tally
        self._rng = random.Random(f"{tally.seed}/{number}")
        self._story, self._stream = draw_story(self._rng)
        self._title = f"story {number}, {self._story._replace(old=None)}"
        self._folder = folder / str(number)
        self._out = self._folder / "out"
        self._port = free_port()
        self._wrong = False
        for name in ("out", "notes"):
            (self._folder / name).mkdir(parents=True)
        if self._story.old is not None:
            (self._out / "F").write_bytes(self._story.old)
            (self._out / "F").chmod(MODE)

    def play(self) -> None:
        """Until it has ended well."""
        with Start() as start:
            try:
                receiver = None
                for _ in range(self._story.deaths):
                    self._go_on()
                    sizes = difference(self._out, self._story.window, self._stream)
                    death = draw_death(self._rng, self._story, *sizes)
                    receiver = self._run(start, death, receiver)
                    if self._wrong:
                        break
                else:
                    self._run(start, WELL, receiver)
                    self._check_mode()
            except BaseException as error:  # what pytest raises is no Exception
                self._fail(repr(error))
        shutil.rmtree(self._folder)

    def _run(self, start: Start, death: Death, receiver: Bpipe | None) -> Bpipe | None:
        """Once; returns a receiver that goes on."""
        before = contents(self._out / "F")
        run = Run(self._folder, self._story, death, self._stream)
        told = run.play(start, self._port, receiver)
        if death.power and not run.receiver.running:
            self._tally.cut(power.cut(self._folder / "notes", self._out / "F", self._rng))
        for each in judge(run, told, before, self._stream, self._out):
            self._fail(f"{each}: {death}, {told}")
        self._tally.note(run, death, told, self._stream, self._out)
        return run.receiver if run.receiver.running else None

    def _go_on(self) -> None:
        """What is sent next: mostly the same again, but not if it lies there already."""
        if self._rng.random() < 0.2:
            self._stream = changed(self._stream, self._rng)
        if contents(self._out / "F") == self._stream:
            self._stream = draw_stream(self._rng)

    def _check_mode(self) -> None:
        mode = (self._out / "F").stat().st_mode & 0o777
        if self._story.old is not None and mode != MODE:
            self._fail(f"mode {mode:o}")

    def _fail(self, what: str) -> None:
        self._wrong = True
        self._tally.fail(f"{self._title}: {what}")


def die(tally: Tally, jobs: int, folder: Path, only: int | None = None) -> None:
    """Play until there were enough deaths; or one story, again."""
    write_key(folder / "key")
    tally.play(lambda number: Play(number, tally, folder).play(), jobs, only)


def main() -> int:
    """Parse the command line; returns the exit status."""
    name = "python -m tests.end_to_end.output_deaths"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--deaths", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--only", type=int, help="the number of the one story to play")
    options = parser.parse_args()
    tally = Tally(options.deaths, options.seed)
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        die(tally, options.jobs, Path(folder), options.only)
    print(f"seed      {options.seed}")
    print(f"total     {tally.line()}")
    kinds = {"deaths": tally.happened, "cuts": tally.cuts, "statuses": tally.statuses}
    for name, counts in kinds.items():
        print(f"{name:10}" + ", ".join(f"{each} {n}" for each, n in sorted(counts.items())))
    print(
        f"sent      {tally.sent} of {tally.length} bytes, where {tally.differed} differed;"
        f" exactly what differed in {tally.exact} runs of {tally.well}"
    )
    for each in tally.wrong:
        print(f"WRONG     {each}")
    print("verdict   " + ("failed" if tally.wrong else "never a wrong FILE, no false 0"))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
