"""A caller, a listener, and several links between them at once, in memory."""

from __future__ import annotations

from bpipe.errors import LinkLost
from bpipe.protocol import waiting
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.slot_channel import SlotChannel
from tests.support.loopback import CALLER, EVERYTHING, LISTENER, SIDES, End, Link, Pair

LIMITS = Limits(heartbeat=2, connect_timeout=1e9, give_up_after=1e9, linger=1e6)


class Line(Link):
    """A link over which nothing may come any more, and nobody notices."""

    dark = False

    def darken(self) -> None:
        """From now on all that is sent is lost, and so is what is under way."""
        self.dark = True
        for end in self.ends:
            end.inbox = b""

    def send(self, side: int, now: float, limit: int = EVERYTHING) -> int:
        sent = super().send(side, now, limit)
        if self.dark:
            self.darken()
        return sent

    def arrive(self, side: int, now: float, limit: int = EVERYTHING) -> int:
        return 0 if self.dark else super().arrive(side, now, limit)


class Several(Pair):
    """The links of a session, by their slots. Time passes when a test says so."""

    def forget(self) -> None:
        listener = self.sessions[LISTENER]
        self.slots: dict[Link, int] = {}
        self.table = Sessions(self._drop_link, listener.secret, drop_slot=self._drop_slot)
        self.table.add(listener)

    def connect(self, slot: int = 0) -> Link:
        """A fresh link, over which nothing was said. Its verdict ends the others of its slot."""

        def answered(accepted: bool) -> None:
            for other in self.of(slot):
                if other is not link and (accepted or not other.ends[CALLER].greeting.done):
                    other.ends[CALLER].lose(LinkLost("another one is answered"), self.now)

        link = Line(self.caller, self.table, self.now, answered, slot)
        self.slots[link] = slot
        self.links.append(link)
        return link

    def of(self, slot: int) -> list[Link]:
        """The links of this slot, old ones, too."""
        return [link for link in self.links if self.slots[link] == slot]

    def _drop_slot(self, session: Session, slot: int) -> None:
        for link in self.of(slot):
            if link.ends[LISTENER].greeting.channel is not None:
                link.ends[LISTENER].lose(LinkLost("the peer has come back"), self.now)

    @property
    def alive(self) -> list[Link]:
        """The links of which one end at least knows nothing else."""
        return [link for link in self.links if any(end.cause is None for end in link.ends)]

    def run(self) -> int:
        """Move everything until all are silent; returns the number of bytes."""
        moved = 0
        while step := sum(
            link.send(side, self.now) + link.arrive(side, self.now)
            for link in self.alive
            for side in SIDES
        ):
            moved += step
        return moved

    def channels(self, side: int) -> list[tuple[End, SlotChannel]]:
        """What speaks at this end, over the links that are attached there."""
        ends = [link.ends[side] for link in self.alive]
        found = [(end, end.greeting.channel) for end in ends if end.cause is None]
        return [(end, channel) for end, channel in found if isinstance(channel, SlotChannel)]

    def tick(self) -> None:
        """Both ends look at the clock."""
        for side, session in enumerate(self.sessions):
            waiting.tick(session, self.now)
            for end, channel in self.channels(side):
                try:
                    channel.tick(self.now)
                except LinkLost as cause:
                    end.lose(cause, self.now)

    def deadline(self) -> float | None:
        """When one of them has to look again; that is later than now."""
        due = [waiting.deadline(session) for session in self.sessions if not session.over]
        for side in SIDES:
            if not self.sessions[side].over:
                due += [channel.deadline() for _, channel in self.channels(side)]
        times = [each for each in due if each is not None]
        assert all(each > self.now for each in times)
        return min(times, default=None)

    def leave(self) -> None:
        """An end that is over closes its links, and the other learns of it."""
        for side, session in enumerate(self.sessions):
            for link in self.alive if session.over else []:
                link.ends[side].lose(LinkLost("closed"), self.now)
                link.arrive(1 - side, self.now)


def several(
    links: int,
    *,
    buffers: tuple[int, int] = (300, 300),
    secret: Secret | None = None,
    limits: Limits = LIMITS,
) -> Several:
    """Two ends with so many links between them, over which everything was said that was due."""
    ends = [Session(size, limits, secret=secret, links=links) for size in buffers]
    both = Several(*ends)
    for slot in range(links):
        both.connect(slot)
        both.run()
    return both
