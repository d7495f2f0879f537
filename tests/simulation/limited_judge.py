"""What must hold where there is a rate: of what leaves each process, and of what must not wait.

Of the streams, no more leaves in any time than the rate in it, and 0.05 s of the rate: so never
more than 1.05 times the rate in a second, wherever that second begins. This counts the headers and
tags of DATA and FIN; nothing else does. A byte is added, for what is not a whole one.
"""

from __future__ import annotations

from typing import ClassVar, Final

from bpipe.protocol.channel import ACK_DELAY, Channel
from bpipe.protocol.rate import SMALLEST_FRAME
from bpipe.protocol.wire import Kind
from tests.simulation.judge import Wrong
from tests.simulation.limited_ends import STREAM, End, Frame, Process
from tests.simulation.loop import World

EXCESS: Final = 0.05  # seconds of the rate: what a second may have more
LATE: Final = (
    0.05  # seconds that anything else may be late, and as long as the smallest frame takes
)
SETTLED: Final = 0.5  # seconds, from when all are connected, or a change, to a rate that is kept
LONG_ENOUGH: Final = 2.0  # seconds: shorter, an average tells nothing
FAIR_OVER: Final = 4.0  # seconds in which no session has less than half of its share


class Meter:
    """Of bytes at a rate, which must not be exceeded."""

    def __init__(self, name: str, rate: int, now: float) -> None:
        self.rate = rate
        self._name = name
        self._level = 0.0  # bytes beyond the rate
        self._now = now

    def change(self, rate: int, now: float) -> None:
        """From now on it is this one: what was too early for the old one is so for this one."""
        self._drain(now)
        self._level *= rate / self.rate if self.rate else 0.0
        self.rate = rate

    def add(self, count: int, now: float) -> None:
        """So many have left. Raises Wrong."""
        self._drain(now)
        self._level += count
        if self.rate and self._level > EXCESS * self.rate + 1:
            raise Wrong(f"{self._name}: {self._level:.0f} bytes too early at {self.rate} a second")

    def _drain(self, now: float) -> None:
        self._level = max(0.0, self._level - self.rate * (now - self._now))
        self._now = now


class Owed:
    """Something that one end has to say, and when."""

    def __init__(self, number: int, due: float) -> None:
        self.number = number
        self.due = due


class EndJudge:
    """Of one end of a session."""

    def __init__(self, end: End, world: World) -> None:
        self.end = end
        self.total = 0  # bytes of its stream that have left, on all links
        self.slowest = 0.0  # bytes a second, of all that it was held to over this link
        self._world = world
        self._told = Meter(f"{end.name}, as it was told", 0, world.now)
        self._owed: dict[Kind, Owed] = {}
        self._limit = 0  # bytes a second: what it is held to
        self._goes_on_by: float | None = None  # its stream, as there is more room for it
        self._stuck = False  # its link took nothing, when that was looked at last
        self._said: dict[Kind, int] = {}  # of each kind the last number, on this link

    @property
    def _late(self) -> float:
        return LATE + (SMALLEST_FRAME / self.slowest if self.slowest else 0.0)

    def attached(self) -> None:
        """Another link: it has to say anew what is so."""
        self._owed.clear()
        self._said.clear()
        self.slowest = 0.0
        self.note_limit()

    def note_limit(self) -> None:
        """The rate may have changed."""
        rate = self.end.session.rate
        self._note(rate.limit, rate.limit)

    def _note(self, limit: int, new: int) -> None:
        """So much was heard of, and so much is what counts from now on."""
        if limit:
            self.slowest = min(self.slowest, limit) if self.slowest else limit
        if self._limit and (not new or new > self._limit):  # who waits for it goes on
            turns = len(self.end.process.ends) * SMALLEST_FRAME / new if new else 0.0
            self._goes_on_by = self._world.now + LATE + turns
        self._limit = new

    def heard(self, kind: Kind, number: int) -> None:
        """A frame has come."""
        if kind is Kind.PING:
            self.owe(Kind.PONG, number)
        elif kind is Kind.RATE:
            self._told.change(number, self._world.now)
            self.end.release()
            both = [each for each in (number, self.end.process.rate) if each]
            self._note(number, min(both, default=0))

    def owe(self, kind: Kind, number: int, after: float = 0.0) -> None:
        """It has to say this, not much later than so many seconds from now."""
        if kind not in self._owed and self._said.get(kind) != number:
            self._owed[kind] = Owed(number, self._world.now + after)

    def left(self, frame: Frame, count: int) -> None:
        """So many bytes of a frame are on the wire."""
        if frame.kind in STREAM:
            self.total += count
            self._goes_on_by = None
            if self.end.process.bucket is not None and Kind.RATE not in self._said:
                raise Wrong(f"{self.end.name} begins its stream, and has not told its rate")
            if not frame.free:
                self._told.add(count, self._world.now)
        elif not frame.left:
            self._said[frame.kind] = frame.number
            owed = self._owed.get(frame.kind)
            if owed is not None and (frame.number >= owed.number or frame.kind is Kind.RATE):
                del self._owed[frame.kind]

    def look(self) -> None:
        """Raises Wrong if something is late."""
        end, now = self.end, self._world.now
        if end.wrong:
            raise Wrong(end.wrong)
        if end.gone or end.session.over or not end.session.attached:
            self._owed.clear()
            self._goes_on_by = None
            return
        self.owe(Kind.ACK, end.session.reader.delivered, ACK_DELAY)
        if end.process.bucket is not None and end.session.established:
            if self._said.get(Kind.RATE) == end.process.rate:  # it is so again, before it was told
                self._owed.pop(Kind.RATE, None)
            self.owe(Kind.RATE, end.process.rate)
        was_stuck, self._stuck = self._stuck, end.stuck or self._doubts()
        ready = end.session.established and end.session.writer.sendable
        if was_stuck or self._stuck or not ready:
            self._goes_on_by = None
        elif self._goes_on_by is not None and now > self._goes_on_by:
            raise Wrong(f"{end.name} waits on, and its rate has risen")
        for kind, owed in self._owed.items():
            if was_stuck or self._stuck:
                owed.due = max(owed.due, now)
            elif now > owed.due + self._late:
                late = now - owed.due
                raise Wrong(f"{end.name}: {kind.name} {owed.number} is {late:.3f} s late")

    def _doubts(self) -> bool:
        """Whether it may have asked for another link: then nothing is said over this one."""
        channel, now = self.end.session.channel, self._world.now
        return isinstance(channel, Channel) and now >= channel.liveness.doubted_at(now)


class Sample:
    """What has left so far, at one time."""

    def __init__(self, now: float, totals: list[int]) -> None:
        self.at = now
        self.totals = totals


class ProcessJudge:
    """Of one process. ``plenty``: nothing but the rates limits what leaves it."""

    AVERAGE: ClassVar[float] = 0.98  # of the rate, where nothing else is the limit
    OF: ClassVar[type[EndJudge]] = EndJudge

    def __init__(self, process: Process, world: World, *, plenty: bool) -> None:
        self.process = process
        self.ends = [self.OF(end, world) for end in process.ends]
        self._world = world
        self._plenty = plenty
        self._meter = Meter(process.name, process.rate, world.now)
        self._samples: list[Sample] = []  # one a second, since nothing has changed
        self._steady_at: float | None = None
        self._rate = 0  # bytes a second: what it was held to since then

    def changed(self) -> None:
        """Its rate has."""
        self.finish_average()
        self._meter.change(self.process.rate, self._world.now)
        for end in self.ends:
            end.note_limit()
            end.end.release()

    def left(self, end: EndJudge, frame: Frame, count: int) -> None:
        """So many bytes of a frame are on the wire."""
        end.left(frame, count)
        if frame.kind in STREAM and not frame.free:
            self._meter.add(count, self._world.now)

    def look(self) -> None:
        """Raises Wrong."""
        for end in self.ends:
            end.look()
        if self._plenty and self.process.rate:
            self._look_at_averages()

    def _look_at_averages(self) -> None:
        now = self._world.now
        if not all(self._is_ready(each.end) for each in self.ends):
            self.finish_average()
            return
        if self._steady_at is None:
            self._steady_at = now + SETTLED
            told = self.process.ends[0].peer.process.rate if len(self.ends) == 1 else 0
            self._rate = min(self.process.rate, told or self.process.rate)
        last = self._samples[-1].at if self._samples else self._steady_at - 1.0
        if now >= last + 1.0:
            self._samples.append(Sample(now, [each.total for each in self.ends]))
            self._look_at_shares()

    def _is_ready(self, end: End) -> bool:
        """Whether it has something to send, and its peer allows more than it can have."""
        session, told = end.session, end.peer.process.rate
        alone = len(self.process.ends) == 1
        held = told and not (alone or told >= 2 * self.process.rate)
        awake = session.writer.mark is None and not end.asleep
        return session.attached and session.established and awake and not held

    def _look_at_shares(self) -> None:
        samples, count = self._samples, len(self.ends)
        first, last = samples[0], samples[-1]
        since = [each for each in samples if each.at <= last.at - FAIR_OVER]
        if since:
            first = since[-1]
        if last.at - first.at < FAIR_OVER:
            return
        moved = [b - a for a, b in zip(first.totals, last.totals, strict=True)]
        least = sum(moved) / count / 2 - SMALLEST_FRAME
        if min(moved) < least:
            raise Wrong(f"{self.process.name}: its sessions have {moved} bytes in {FAIR_OVER} s")

    def finish_average(self) -> None:
        """What was is over: was it enough? Raises Wrong."""
        samples, self._samples, self._steady_at = self._samples, [], None
        if len(samples) < 2 or samples[-1].at - samples[0].at < LONG_ENOUGH:
            return
        first, last = samples[0], samples[-1]
        rate = self._rate
        moved = sum(last.totals) - sum(first.totals)
        wanted = self.AVERAGE * rate * (last.at - first.at)
        if moved < wanted - SMALLEST_FRAME:
            share = moved / rate / (last.at - first.at)
            raise Wrong(f"{self.process.name}: only {share:.3f} of the rate {rate}")


class LimitedJudge:
    """Of all processes of a world."""

    OF: ClassVar[type[ProcessJudge]] = ProcessJudge

    def __init__(self, processes: list[Process], world: World, *, plenty: bool) -> None:
        self.peaceful = plenty
        self._wrong: Wrong | None = None  # the first
        self._processes = {each: self.OF(each, world, plenty=plenty) for each in processes}
        self._ends = {each.end: each for judge in self._processes.values() for each in judge.ends}

    def changed(self, process: Process) -> None:
        """The rate of one has; what its peers send is another matter now, too."""
        self._processes[process].changed()
        for end in process.ends:
            self._processes[end.peer.process].finish_average()

    def left(self, end: End, frame: Frame, count: int) -> None:
        """A ``Watcher``. What is wrong is raised when the process has had its turn."""
        try:
            self._processes[end.process].left(self._ends[end], frame, count)
        except Wrong as wrong:
            self._wrong = self._wrong or wrong

    def heard(self, end: End, kind: Kind, number: int) -> None:
        """A ``Watcher``."""
        self._ends[end].heard(kind, number)

    def attached(self, end: End) -> None:
        """A ``Watcher``."""
        self._ends[end].attached()

    def look(self) -> None:
        """Raises Wrong if anything is not as it must be now."""
        if self._wrong is not None:
            raise self._wrong
        for process, judge in self._processes.items():
            judge.look()
            if process.loop.errors:
                raise Wrong(f"{process.name}: {process.loop.errors[0]!r}")

    def finish(self) -> None:
        """All have ended. Raises Wrong."""
        for end in self._ends:
            if end.error is not None:
                raise Wrong(f"{end.name} reports: {end.error!r}")
            if self.peaceful and end.session.history.links > end.session.terms.slots:
                raise Wrong(f"{end.name} had {end.session.history.links} links, and nothing fails")
