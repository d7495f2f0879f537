"""One seed of a world in which processes have a rate, and their sessions several links each.

As in ``limited.py``, and the rate is for all links together: what leaves the process of its streams
is measured over all of them. Where nothing else is the limit, hardly anything may be sent twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from bpipe.net.dialers import Dialers
from bpipe.net.source import LinkSource
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Kind
from tests.simulation.ends import SeededManners, SimulatedConnector
from tests.simulation.judge import Wrong
from tests.simulation.limited import Limited
from tests.simulation.limited_ends import STREAM, End, Frame, Task
from tests.simulation.limited_judge import EndJudge, LimitedJudge, ProcessJudge
from tests.simulation.network import Network, Socket
from tests.simulation.weather import Weather

TWICE = 0.1  # of a stream may be sent again where nothing fails
A_LITTLE = 1 << 16  # bytes that each link may send again besides


class SharedEnd(End):
    """One end of a session, which looks at its links one by one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._on_links: dict[int, deque[Frame]] = {}
        self._watch(self.session)

    def _watch(self, session: Any) -> None:
        """See what goes onto each link."""
        attach = session.attach

        def attached(channel: Any, position: Any, now: float, slot: int = 0) -> None:
            sent = channel.sent
            frames = self._on_links[slot] = deque()

            def put(count: int, now: float) -> None:
                sent(count, now)
                self._put(frames, count)

            channel.sent = put
            attach(channel, position, now, slot)

        session.attach = attached

    def _put(self, frames: deque[Frame], count: int) -> None:
        while count > 0:
            if not frames:
                self.wrong = f"{self.name}: {count} bytes on a link that are of no frame"
                return
            frame = frames[0]
            part = min(count, frame.left)
            frame.left -= part
            count -= part
            if not frame.left:
                frames.popleft()
            self.watcher.left(self, frame, part)

    def _trace(self, sign: str, text: str) -> None:
        slot = 0
        if text.startswith("link "):
            link, _, text = text.partition(": ")
            slot = int(link.split()[1])
        word, _, rest = text.partition(" ")
        if sign == "=" and word == "attached:":
            self.watcher.attached(self)
        elif sign in "<>":
            number, _, count = rest.partition(" +")
            if sign == "<":
                self.watcher.heard(self, Kind[word], int(number))
            else:
                self._begin(slot, Kind[word], int(number), int(count or -1))

    def _begin(self, slot: int, kind: Kind, number: int, count: int) -> None:
        size = count + self.around if count >= 0 else self.small
        frame = Frame(kind, number, size, free=not self.session.rate.limit)
        self._on_links[slot].append(frame)

    def put(self, sock: Socket, count: int) -> None:
        pass

    @property
    def _all(self) -> Iterable[Frame]:
        return [frame for frames in self._on_links.values() for frame in frames]

    def release(self) -> None:
        for frame in self._all:
            frame.free = True

    @property
    def midway(self) -> bool:
        return any(each.kind in STREAM and each.left > 1 << 14 for each in self._all)


class SharedEndJudge(EndJudge):
    """Of one end: it is its rate that counts; an ACK has other ways."""

    def attached(self) -> None:
        self.note_limit()

    def look(self) -> None:
        if self.end.wrong:
            raise Wrong(self.end.wrong)


class SharedProcessJudge(ProcessJudge):
    OF = SharedEndJudge
    AVERAGE = 0.96  # links wait for the rate each by itself


class SharedJudge(LimitedJudge):
    OF = SharedProcessJudge

    def finish(self) -> None:
        super().finish()
        for end in self._ends if self.peaceful else ():
            again, links = end.session.history.replayed, end.session.terms.slots
            if again > TWICE * end.task.length + A_LITTLE * links:
                raise Wrong(f"{end.name} has sent {again} of {end.task.length} bytes again")


class Shared(Limited):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    END: ClassVar[type[End]] = SharedEnd
    JUDGE: ClassVar[type[LimitedJudge]] = SharedJudge

    def _make_ways(self, network: Network) -> list[Network]:
        others = [self._make_weather() for _ in range(self.rng.choice((0, 1, 1, 2)))]
        self._weathers += others
        return [network, *(self._make_network(each) for each in others)]

    def _buffer(self) -> int:
        return max(600, super()._buffer())  # each delivery is told on all links

    def _task(self, buffer: int, weather: Weather) -> Task:
        links = self.rng.choice((1, 2, 3, 4, 8))
        return super()._task(buffer, weather)._replace(links=links)

    def _tap(self, network: Network, caller: End, callee: End) -> None:
        """What leaves is seen link by link."""

    def _dial(self, end: End) -> Callable[[Session], LinkSource]:
        ways, cap = self._ways[end.network], self.rng.choice((0.3, 1.0))

        def dial(session: Session) -> LinkSource:
            connectors = [
                SimulatedConnector(ways[slot % len(ways)], SeededManners.of(self.fork()))
                for slot in range(session.terms.links)
            ]
            return Dialers(session, connectors, cap, self.world.clock)

        return dial
