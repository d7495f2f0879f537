"""What is told of the links of a session that may have several at once.

Theory of operation. As long as there is one, nothing has stopped. So what becomes of each is for
the log, and for who asks (-v). That some are down explains why it is slower, and why the next loss
may be an outage: people are told that once, if it lasts, with the cause; and when all are up again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bpipe.net.clock import clock
from bpipe.report.events import Event
from bpipe.report.flood import Flood
from bpipe.report.hints import UNANSWERED
from bpipe.report.reporter import Teller
from bpipe.report.settings import Level
from bpipe.report.totals import count
from bpipe.status import SlotStatus, State, Status

AFTER: Final = 2.0  # seconds for which links are down before people hear of it
EVERY: Final = 30.0  # seconds between two times that they do
MOST: Final = 10  # losses in a minute of which each is told

_ADDRESS: Final = re.compile(r"^[^ ]*:\d+: ")  # before a reason: where all of them go
_GOING_ON: Final = (State.CONNECTING, State.CONNECTED, State.RECONNECTING)


class LinkUp(NamedTuple):
    """There is a link in this slot."""

    slot: int
    peer: str
    via: str | None  # from where it goes out, if that was chosen
    up: int  # links that there are now
    slots: int  # that there may be

    def words(self) -> str:
        way = _way(self.via)
        return f"link {self.slot} is up{way}, to {self.peer}: {self.up} of {self.slots}"


class LinkDown(NamedTuple):
    """The link in this slot is lost."""

    slot: int
    peer: str
    via: str | None
    reason: str
    code: str
    up: int
    slots: int

    def words(self) -> str:
        what = f"link {self.slot} is down{_way(self.via)}, to {self.peer}"
        return f"{what}: {self.reason}; {self.up} of {self.slots} are up"


class Links(NamedTuple):
    """Some links are down for a while, and others go on; or, after that was told, none is."""

    up: int
    slots: int
    peer: str | None = None  # of one that is down: who was there last
    via: str | None = None
    reason: str | None = None
    code: str | None = None
    where: str = ""  # for people: which it is, if that tells them anything

    def words(self) -> str:
        down = self.slots - self.up
        if not down:
            return f"{'both' if self.slots == 2 else f'all {self.slots}'} links are up"
        are = f"{down} of {self.slots} links are" if down > 1 else f"one of {self.slots} links is"
        others = f"{self.up} go on" if self.up > 1 else "one goes on"
        why = f": {_ADDRESS.sub('', self.reason)}" if self.reason else ""
        return f"{are} down{self.where * (down == 1)}{why}; {others}"


class LinksUnsteady(NamedTuple):
    """Links were lost so often that not each time is told, but once a minute how often."""

    losses: int  # that were not told
    up: int
    slots: int

    def words(self) -> str:
        times = count(self.losses, "more time")
        return f"links were lost {times} in the last minute; {self.up} of {self.slots} are up"


class LinksLimited(NamedTuple):
    """The other end allows fewer links than this one asked for."""

    slots: int
    wanted: int

    def words(self) -> str:
        return f"the far side allows {count(self.slots, 'link')}, not {self.wanted} (--max-links)"


class LinkNarrator:
    """Compares the links of each status with those before, and tells what is new. In the loop.

    ``level``: from which on people hear that some are down.
    """

    def __init__(self, teller: Teller, status: Callable[[], Status], level: Level) -> None:
        self._teller = teller
        self._status = status
        self._level = level
        self._last: Sequence[SlotStatus] = ()
        self._peers: dict[int, str] = {}  # by slots, the last ones
        self._losses = Flood(MOST)
        self._mute: set[int] = set()  # slots whose loss was not told
        self._timer: asyncio.TimerHandle | None = None  # while some are down
        self._due = 0.0  # people are told of that no sooner
        self._told: int | None = None  # of so many that are up

    def look(self, now: Status) -> None:
        """Something may have changed."""
        if now.state not in _GOING_ON:  # links end with the session
            return
        before = self._last or [each._replace(up=False, links=0) for each in now.slots]
        self._last = now.slots
        for slot, (old, new) in enumerate(zip(before, now.slots)):  # noqa: B905 - it may begin anew
            if old.up and (not new.up or new.links > old.links):
                self._lost(slot, now)
            if new.up and (not old.up or new.links > old.links):
                self._found(slot, now)
        self._consider(now)

    # --- each of them ---

    def _lost(self, slot: int, now: Status) -> None:
        lost, unsteady, counts = now.slots[slot], self._losses.untold, (_up(now), len(now.slots))
        if self._losses.count(clock()):
            way, why = (self._peers[slot], lost.via or None), (lost.cause, lost.cause_code)
            self._teller.tell(LinkDown(slot, *way, *why, *counts), Level.VERBOSE)
            return
        self._mute.add(slot)
        if not unsteady:
            due_in = self._losses.due_in(clock())
            asyncio.get_running_loop().call_later(due_in, self._sum_up)

    def _found(self, slot: int, now: Status) -> None:
        self._peers[slot] = now.slots[slot].peer
        if slot not in self._mute:
            found = now.slots[slot]
            up = LinkUp(slot, found.peer, found.via or None, _up(now), len(now.slots))
            self._teller.tell(up, Level.VERBOSE)

    def _sum_up(self) -> None:
        self._mute.clear()
        if losses := self._losses.sum_up(clock()):
            unsteady = LinksUnsteady(losses, sum(each.up for each in self._last), len(self._last))
            self._teller.tell(unsteady, Level.VERBOSE)

    # --- all together ---

    def _consider(self, now: Status) -> None:
        up, slots = _up(now), len(now.slots)
        if up == slots and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if up == slots and self._told is not None:
            self._told = None
            self._teller.tell(Links(up, slots), self._level)
        elif 0 < up < slots and self._timer is None:
            delay = max(AFTER, self._due - clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._later)

    def _later(self) -> None:
        """Some were down; if some are, tell so."""
        self._timer, now = None, self._status()
        up, slots = _up(now), len(now.slots)
        if now.state is State.CONNECTED and 0 < up < slots and up < (self._told or slots):
            self._told, self._due = up, clock() + EVERY
            down = [slot for slot, each in enumerate(now.slots) if not each.up]
            slot = min(down, key=lambda slot: not now.slots[slot].cause)
            told, peer = now.slots[slot], self._peers.get(slot)
            way, why = (peer, told.via or None), (told.cause or None, told.cause_code or None)
            if not told.cause and now.retry_in is not None:  # it is called
                why = UNANSWERED
            self._teller.tell(Links(up, slots, *way, *why, self._where(told, peer)), self._level)

    def _where(self, link: SlotStatus, peer: str | None) -> str:
        """The way of this one, or who was at its other side, if those of others are elsewhere."""
        hosts = {each.rpartition(":")[0] for each in self._peers.values()}
        return _way(link.via) or (f", to {peer}" if peer and len(hosts) > 1 else "")


class Limited:
    """Tells once if there may be fewer links than were ``wanted``."""

    def __init__(self, tell: Callable[[Event], None], wanted: int) -> None:
        self._tell = tell
        self._wanted = wanted
        self._told = False

    def look(self, status: Status) -> None:
        """Something may have changed."""
        slots = len(status.slots) or 1
        if status.state is State.CONNECTED and not self._told:
            self._told = True
            if slots < self._wanted:
                self._tell(LinksLimited(slots, self._wanted))


def _way(via: str | None) -> str:
    return f", from {via}" if via else ""


def _up(status: Status) -> int:
    return sum(each.up for each in status.slots)
