"""A caller, a listener, and several links between them at once, in memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from bpipe.errors import Forged, LinkLost
from bpipe.protocol import waiting
from bpipe.protocol.channel import Channel
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.owed import Debt
from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Hello, Opening
from tests.support.loopback import CALLER, EVERYTHING, LISTENER, SIDES, End, Link, Pair

LIMITS = Limits(heartbeat=2, connect_timeout=1e9, give_up_after=1e9, linger=1e6)

MOVED_ON = "the session has moved on"  # of who is refused with his CONFIRM


class Line(Link):
    """A link that may be slow, and over which nothing may come any more, and nobody notices."""

    dark = False
    lag = 0.0  # seconds from one end to the other
    said = b""  # what the caller has said first, up to CONFIRM
    echoed = False  # what was said is said again by somebody else, who may be sooner
    judged = False  # the listener has made up its mind, and that was looked at
    ahead: Sequence[Line] = ()  # greetings, until whose verdict the caller does not read here
    _late: tuple[deque[tuple[float, bytes]], ...] | None = None  # to each end, and when

    def darken(self) -> None:
        """From now on all that is sent is lost, and so is what is under way."""
        self.dark, self._late = True, None
        for end in self.ends:
            end.inbox = b""

    def hurry(self) -> None:
        """It is slow no more, and all that was under way is there."""
        for end, late in zip(self.ends, self._late or ((), ()), strict=True):
            end.inbox += b"".join(data for _, data in late)
        self.lag, self._late = 0.0, None

    def carry(self, side: int, data: bytes, now: float) -> None:
        if side == LISTENER and not self.ends[CALLER].greeting.done:
            self.said += data
        if self.dark:
            return
        if not self.lag:
            super().carry(side, data, now)
            return
        self._late = self._late or (deque(), deque())
        self._late[side].append((now + self.lag, data))

    def ended(self, side: int) -> bool:
        return not (self._late and self._late[side]) and super().ended(side)

    def arrive(self, side: int, now: float, limit: int = EVERYTHING) -> int:
        if self.dark or (self.ahead and side == CALLER and self._unread):
            return 0
        if self._late:
            late = self._late[side]
            while late and late[0][0] <= now:
                super().carry(side, late.popleft()[1], now)
        arrived = super().arrive(side, now, limit)
        greeting = self.ends[side].greeting
        assert isinstance(greeting, CallerGreeting | AnswererGreeting)
        if greeting.session is not None:  # as an engine does, before anything is sent
            greeting.session.settle(now)
        return arrived

    @property
    def _unread(self) -> bool:
        waits = any(each.ends[CALLER].cause is None for each in self.ahead)
        return waits and self.ends[CALLER].greeting.done

    def cut(self, now: float, noticed: Sequence[int] = SIDES) -> None:
        """What is in flight is lost; these ends learn of it now."""
        self._late = None
        for side, end in enumerate(self.ends):
            end.inbox = b""
            if side in noticed:
                end.lose(LinkLost("cut"), now)

    def judge(self) -> tuple[Hello | None, bool | None]:
        """What the caller said, if that is known, and whether it is let in; None: not decided."""
        end = self.ends[LISTENER]
        greeting = end.greeting
        assert isinstance(greeting, AnswererGreeting)
        if greeting.channel is not None:
            return greeting.hello, True
        refused = greeting.finished or MOVED_ON in str(end.cause)
        return greeting.hello, False if refused else None


class Echo(Line):
    """What a caller has said once comes again, from nobody; ``stays``: who does not close."""

    def __init__(self, said: bytes, sessions: Sessions, now: float, *, stays: bool) -> None:
        nobody, listener = (End(AnswererGreeting(sessions, now)) for _ in SIDES)
        nobody.lose(LinkLost("nobody"), now)
        listener.inbox = said
        self.ends = nobody, listener
        self.echoed, self._stays = True, stays

    def ended(self, side: int) -> bool:
        return not self._stays


class Several(Pair):
    """The links of a session, by their slots. Time passes when a test says so."""

    def __init__(self, caller: Session, listener: Session) -> None:
        super().__init__(caller, listener)
        self.lags: Sequence[float] = ()  # seconds, by slot; none: they are quick
        self.seen: Counter[str] = Counter()  # what has happened
        self._newest: Counter[int] = Counter()  # greetings that were let in, by slot
        self._dropped: list[Link] = []  # for others, although the caller holds them

    def forget(self) -> None:
        listener = self.sessions[LISTENER]
        self.slots: dict[Link, int] = {}
        self.table = Sessions(self._drop_link, listener.secret, drop_slot=self._drop_slot)
        self.table.add(listener)

    def connect(self, slot: int = 0) -> Line:
        """A fresh link, over which nothing was said. Its verdict ends the others of its slot."""

        def answered(accepted: bool) -> None:
            for other in self.of(slot):
                if other is not link and (accepted or not other.ends[CALLER].greeting.done):
                    other.ends[CALLER].lose(LinkLost("another one is answered"), self.now)

        link = Line(self.caller, self.table, self.now, answered, slot)
        link.lag = self.lags[slot] if self.lags else 0.0
        for old in self.of(slot) if self.caller.session.terms.slots == 1 else ():
            assert isinstance(old, Line)
            old.ahead = [*old.ahead, link]
        self._add(link, slot)
        return link

    def echo(self, link: Line, arrived: int, *, stays: bool) -> None:
        """What was said first over this one comes once more, and so much of it now."""
        echo, link.echoed = Echo(link.said, self.table, self.now, stays=stays), True
        self._add(echo, self.slots[link])
        echo.arrive(LISTENER, self.now, arrived)

    def _add(self, link: Link, slot: int) -> None:
        self.slots[link] = slot
        self.links.append(link)

    def of(self, slot: int) -> list[Link]:
        """The links of this slot, old ones, too."""
        return [link for link in self.links if self.slots[link] == slot]

    def _drop_slot(self, session: Session, slot: int) -> None:
        self._drop(self.of(slot))

    def _drop_link(self, session: Session) -> None:
        self._drop(self.links)

    def _drop(self, links: list[Link]) -> None:
        """They are closed for the sake of another: that is right where the caller has lost them."""
        for link in links:
            caller, listener = link.ends
            if listener.greeting.channel is not None and listener.cause is None:
                listener.lose(LinkLost("the peer has come back"), self.now)
                if caller.cause is None:
                    self._dropped.append(link)

    @property
    def alive(self) -> list[Link]:
        """The links of which one end at least knows nothing else."""
        return [link for link in self.links if _lives(link)]

    def bury(self) -> None:
        """Those of which both ends know that they are dead are of no interest any more."""
        for link in self.links:
            if not _lives(link):
                del self.slots[link]
                self.links = self.alive

    def look(self) -> list[str]:
        """What was not right since this was asked last: who was let in, who was not, and for whom
        links were closed.
        """
        refused, wrong, repeated = [], [], set()
        for link in self.links:
            assert isinstance(link, Line)
            if link.judged:
                continue
            hello, admitted = link.judge()
            link.judged = admitted is not None
            if isinstance(link.ends[LISTENER].cause, Forged):  # he has said it before
                link.judged = True
                self.seen["repeats refused"] += 1
            if hello is None or admitted is None:
                continue
            echo = isinstance(link, Echo)
            if not admitted:
                self.seen["repeats refused" if echo else "stale greetings"] += 1
                refused.append(hello)
                continue
            self.seen["repeats let in" if echo else "links"] += 1
            if hello.epoch <= self._newest[hello.slot]:
                wrong.append(f"an old greeting was let in: {hello}")
            self._newest[hello.slot] = max(self._newest[hello.slot], hello.epoch)
            if echo:
                repeated.add(hello.slot)
        dropped, self._dropped = self._dropped, []
        for link in dropped:
            if self.slots[link] not in repeated:
                wrong.append(f"a link in slot {self.slots[link]} was closed, and its caller has it")
        return wrong + [f"refused: {each}" for each in refused if self._is_newest(each)]

    def _is_newest(self, hello: Hello) -> bool:
        """Whether he may come in, as nobody has come after him in his slot."""
        listener = self.sessions[LISTENER]
        newest = hello.opening is Opening.RESUME and hello.epoch > self._newest[hello.slot]
        return newest and not listener.over and listener.fits(hello.position)

    def run(self) -> int:
        """Move everything until all are silent, one after the other; returns the bytes."""
        moved = silent = 0
        while alive := self.alive:
            for link in alive:
                for side in SIDES:
                    step = link.send(side, self.now) + link.arrive(side, self.now)
                    moved, silent = moved + step, 0 if step else silent + 1
                    if silent >= 2 * len(alive):
                        return moved
        return moved

    def slow_down(self, lags: Sequence[float]) -> None:
        """So many seconds do they need from now on, by their slots."""
        self.lags = lags
        for link, slot in self.slots.items():
            assert isinstance(link, Line)
            link.lag = lags[slot]

    def hurry(self) -> None:
        """No link is slow any more, and no end believes that it has no way."""
        self.lags = ()
        for link in self.links:
            assert isinstance(link, Line)
            link.hurry()
        for side in SIDES:
            for _, channel in self.channels(side):
                if channel.liveness.away:
                    channel.suspect(self.now, away=False)

    def watch_doubts(self) -> None:
        """From now on they are counted."""
        for session in self.sessions if self.sessions[CALLER].terms.slots > 1 else ():
            owed: Any = session.slots.owed
            owed.doubt = self._counting(owed.doubt)

    def _counting(self, doubt: Callable[[Debt], None]) -> Callable[[Debt], None]:
        def doubted(debt: Debt) -> None:
            self.seen["links doubted"] += 1
            doubt(debt)

        return doubted

    def channels(self, side: int) -> list[tuple[End, Channel]]:
        """What speaks at this end, over the links that are attached there."""
        ends = [link.ends[side] for link in self.links]
        found = [(end, end.greeting.channel) for end in ends if end.cause is None]
        return [(end, channel) for end, channel in found if channel is not None]

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


def _lives(link: Link) -> bool:
    near, far = link.ends
    return near.cause is None or far.cause is None


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
