"""What was sent over several links, and is not known to have arrived.

Theory of operation. What was begun on a link is *owed* by it. Three things tell that it has
arrived: that the peer has received everything below some offset; that the link is in order, so that
whoever answers a question has heard all that was said before it; and that another link brought it.
What a link owes that is lost, or in doubt, is *given back*, and goes out before all else. So what
was begun and has not arrived is always owed by a link that lives, or given back.

Offsets are those of the stream; the end mark has one as well. Times are in seconds.
"""

from __future__ import annotations

import math
from typing import Final, Optional

from bpipe.protocol.liveness import OWED
from bpipe.protocol.ranges import Ranges

MOST_OWED: Final = 128  # pieces that a link may owe: then it begins only what adjoins one of them
MOST_GIVEN: Final = 1024  # that are given back: then the gaps between them are sent again, too
ASK_EVERY: Final = 0.010  # seconds, at most: a question on each frame would cost more than it tells
REPEAT_AFTER: Final = 0.2  # seconds without an answer: then others may repeat what a link owes;
PRESSED_AFTER: Final = 0.05  # if something waits for just that;
REPEAT_TRIPS: Final = 2  # or round trips of either, if that is longer
SOON: Final = 0.05  # seconds in which links that were silent at once are all heard again
FADES: Final = 0.9  # of a rate that was seen is left after each answer that saw less
DOUBT_AFTER: Final = 0.2  # seconds without an answer, and without a byte: then it is in doubt,
DOUBT_TRIPS: Final = 3  # or round trips, if that is longer

Piece = Optional[tuple[int, int]]


class Debt:
    """What one link owes."""

    def __init__(self) -> None:
        self.all = Ranges()
        self.sent = 0  # bytes that were begun on it, ever
        self.acked = 0  # of the first of them, how many have arrived, as it has answered
        self.doubted = False
        self.round_trip = math.inf  # seconds, the shortest that was seen
        self.latest = 0.0  # and the last one
        self.rate = 0.0  # bytes a second that have arrived, the most in a while
        self.since: float | None = None  # when the first was begun that it was not asked about
        self.asked_since: float | None = None  # of what it was: the same; None: nothing is asked
        self._asked_at = -math.inf
        self._asked_before = -math.inf  # when it was asked what it answered last,
        self._answered_at = -math.inf  # and when it did
        self._asked = Ranges()
        self._asked_sent = 0

    def begin(self, start: int, end: int, now: float) -> None:
        """A frame is begun on it."""
        self.all.add(start, end)
        self.sent += end - start
        if self.since is None:
            self.since = now

    def ask(self, now: float) -> bool:
        """It is asked what it has brought: all that is begun so far goes before the answer.

        Returns whether that is of use: there is something, and no other answer to wait for.
        """
        if self.asked_since is not None or self.since is None:
            return False
        self._asked, self._asked_sent, self._asked_at = self.all.copy(), self.sent, now
        self.asked_since, self.since = self.since, None
        return True

    @property
    def ask_at(self) -> float:
        """When it should be asked again; infinite: there is nothing to ask, or it was asked."""
        if self.since is None or self.asked_since is not None:
            return math.inf
        return self._asked_at + ASK_EVERY

    def answered(self, now: float) -> Ranges:
        """The answer is here; returns what has arrived, as far as that was not known.

        It cannot have arrived faster than it was sent, however close two answers come.
        """
        seconds = max(ASK_EVERY, self._asked_at - self._asked_before, now - self._answered_at)
        self.rate = max(FADES * self.rate, (self._asked_sent - self.acked) / seconds)
        self._answered_at, self._asked_before = now, self._asked_at
        arrived, self._asked = self._asked, Ranges()
        self.acked, self.asked_since = self._asked_sent, None
        return arrived

    def timed(self, round_trip: float) -> None:
        """So long did some answer take."""
        self.round_trip, self.latest = min(self.round_trip, round_trip), round_trip

    def arrived(self, what: Ranges) -> None:
        """This is not owed any more."""
        self.all.remove_all(what)
        self._asked.remove_all(what)
        self._rest()

    def drop_below(self, offset: int) -> None:
        """All below has arrived."""
        self.all.drop_below(offset)
        self._asked.drop_below(offset)
        self._rest()

    def doubt(self, doubted: bool) -> None:
        """Whether nobody knows if it lives."""
        self.doubted = doubted

    def admits(self, start: int) -> bool:
        """Whether what begins there may be begun on it."""
        return len(self.all) < MOST_OWED or self.all.adjoins(start)

    def patience(self, now: float, least: float) -> float:
        """How long another link has for an answer, before this one repeats what that owes.

        That is ``least`` or more: where this one is slow itself, just now, it would be no sooner.
        """
        if self.round_trip == math.inf:
            return OWED
        return max(least, REPEAT_TRIPS * self.delay(now))

    def delay(self, now: float) -> float:
        """How long an answer takes just now, as far as is known."""
        waits = 0.0 if self.asked_since is None else now - self._asked_at
        return max(self.latest, waits)

    def late_at(self, patience: float) -> float:
        """When an answer is late, to who has this patience; infinite: none is owed.

        What it cannot even be asked about may be late as well.
        """
        at = self.since if self.asked_since is None else self._asked_at
        if at is None:
            return math.inf
        known = self.round_trip < math.inf
        return at + max(patience, REPEAT_TRIPS * self.round_trip if known else OWED)

    def doubted_at(self, heard_at: float) -> float:
        """When it is in doubt, if nothing is heard after this.

        Infinite: it is already, or owes no answer.
        """
        since = self.since if self.asked_since is None else self.asked_since
        if since is None or self.doubted:
            return math.inf
        known = self.round_trip < math.inf
        patience = max(DOUBT_TRIPS * self.round_trip, DOUBT_AFTER) if known else OWED
        return max(since, heard_at) + patience

    def _rest(self) -> None:
        """Where nothing is owed there is nothing to ask about."""
        if not self.all:
            self.since = None


class Owed:
    """What all links of a session owe, by their slots."""

    def __init__(self) -> None:
        self.given = Ranges()  # back
        self.below = 0  # all that is below has arrived
        self.debts: dict[int, Debt] = {}
        self._relieve_at = math.inf  # when all that is in doubt goes out over others

    def join(self, slot: int) -> Debt:
        """There is a link."""
        self.debts[slot] = Debt()
        self._relieve()
        return self.debts[slot]

    def leave(self, slot: int) -> None:
        """It is lost."""
        self._give_back(self.debts.pop(slot))
        self._keep()

    def begin(self, debt: Debt, start: int, end: int, now: float) -> None:
        """A frame is begun on this link."""
        debt.begin(start, end, now)
        self.given.remove(start, end)

    def drop_below(self, offset: int) -> None:
        """All below has arrived; less than is known is no news."""
        if offset <= self.below:
            return
        self.below = offset
        self.given.drop_below(offset)
        for debt in self.debts.values():
            debt.drop_below(offset)

    def answered(self, debt: Debt, now: float) -> None:
        """This link has answered what it was asked."""
        arrived = debt.answered(now)
        self.given.remove_all(arrived)
        for each in self.debts.values():
            each.arrived(arrived)

    def doubt(self, debt: Debt) -> None:
        """This link may be dead: all that it owes may go out elsewhere."""
        debt.doubt(True)
        self._give_back(debt)
        self._keep()

    def trust(self, debt: Debt, now: float) -> None:
        """It is not: it will bring what it owes; and others that are in doubt, if not very soon."""
        debt.doubt(False)
        self.given.remove_all(debt.all)
        if any(each.doubted for each in self.debts.values()):
            self._relieve_at = now + SOON

    def tick(self, now: float) -> None:
        """Look at the clock."""
        if now >= self._relieve_at:
            self._relieve()

    def paused(self, debt: Debt) -> bool:
        """Whether this link should begin nothing, because there are better ones."""
        return debt.doubted and any(not each.doubted for each in self.debts.values())

    def holds_up(self, debt: Debt, spare: int, now: float) -> bool:
        """Whether others would stand still for what this link begins now.

        While that is under way they bring more than the ``spare`` bytes of the window. (So it is
        with BLEST: Ferlin et al., "BLEST: Blocking Estimation-based MPTCP Scheduler", IFIP
        Networking 2016.)
        """
        delay, wanted = debt.delay(now), 0.0
        for each in self._others(debt):
            if not each.doubted:
                wanted += each.rate * max(0.0, delay - each.latest)
        return wanted > spare

    def next_given(self, debt: Debt) -> Piece:
        """The lowest that was given back, for this link."""
        return self._admitted(debt, self.given.lowest_outside(debt.all))

    def next_repeat(
        self, debt: Debt, now: float, least: float = REPEAT_AFTER
    ) -> tuple[Piece, float]:
        """The lowest that others owe who are late with their answer, for this link, once.

        They have ``least`` seconds, or more. And when there may be more to repeat, if nothing else
        happens; infinite: never.
        """
        lowest: Piece = None
        again_at, patience = self._relieve_at, debt.patience(now, least)
        for each in self._others(debt):
            late_at = each.late_at(patience)
            if late_at > now:
                again_at = min(again_at, late_at)
            elif (piece := each.all.lowest_outside(debt.all)) is not None:
                lowest = piece if lowest is None else min(lowest, piece)
        return self._admitted(debt, lowest), again_at

    def _relieve(self) -> None:
        """There is one that is better than those in doubt."""
        self._relieve_at = math.inf
        for each in self.debts.values():
            if each.doubted:
                self._give_back(each)

    def _keep(self) -> None:
        """Where all are in doubt, it is the peer that is away: nothing is sent twice for that."""
        if all(each.doubted for each in self.debts.values()):
            for each in self.debts.values():
                self.given.remove_all(each.all)

    def _others(self, debt: Debt) -> list[Debt]:
        return [each for each in self.debts.values() if each is not debt]

    @staticmethod
    def _admitted(debt: Debt, piece: Piece) -> Piece:
        return piece if piece is not None and debt.admits(piece[0]) else None

    def _give_back(self, debt: Debt) -> None:
        """What it owes, and nobody else who is not in doubt."""
        back = debt.all.copy()
        for each in self._others(debt):
            if not each.doubted:
                back.remove_all(each.all)
        self.given.add_all(back)
        self.given.merge(MOST_GIVEN)
