"""What was sent over several links, and is not known to have arrived.

Theory of operation. What was begun on a link is *owed* by it. Three things tell that it has
arrived: that the peer has received everything below some offset; that the link is in order, so that
whoever answers a question has heard all that was said before it; and that another link brought it.
What a link owes that is lost, or in doubt, is *given back*, and goes out before all else. So what
was begun and has not arrived is always owed by a link that lives, or given back.

Offsets are those of the stream; the end mark has one as well. Times are in seconds.
"""

from __future__ import annotations

from typing import Final, Optional

from bpipe.protocol.ranges import Ranges

MOST_OWED: Final = 128  # pieces that a link may owe: then it begins only what adjoins one of them
MOST_GIVEN: Final = 1024  # that are given back: then the gaps between them are sent again, too

Piece = Optional[tuple[int, int]]


class Debt:
    """What one link owes."""

    def __init__(self) -> None:
        self.all = Ranges()
        self.sent = 0  # bytes that were begun on it, ever
        self.acked = 0  # of the first of them, how many have arrived, as it has answered
        self.doubted = False
        self.since: float | None = None  # when the first was begun that it was not asked about
        self.asked_since: float | None = None  # of what it was: the same; None: nothing is asked
        self._asked = Ranges()
        self._asked_sent = 0

    def begin(self, start: int, end: int, now: float) -> None:
        """A frame is begun on it."""
        self.all.add(start, end)
        self.sent += end - start
        if self.since is None:
            self.since = now

    def ask(self) -> bool:
        """It is asked what it has brought: all that is begun so far goes before the answer.

        Returns whether that is of use: there is something, and no other answer to wait for.
        """
        if self.asked_since is not None or self.since is None:
            return False
        self._asked, self._asked_sent = self.all.copy(), self.sent
        self.asked_since, self.since = self.since, None
        return True

    def answered(self) -> Ranges:
        """The answer is here; returns what has arrived, as far as that was not known."""
        arrived, self._asked = self._asked, Ranges()
        self.acked, self.asked_since = self._asked_sent, None
        return arrived

    def arrived(self, what: Ranges) -> None:
        """This is not owed any more."""
        self.all.remove_all(what)
        self._asked.remove_all(what)

    def drop_below(self, offset: int) -> None:
        """All below has arrived."""
        self.all.drop_below(offset)
        self._asked.drop_below(offset)

    def older(self, age: float, now: float) -> Ranges:
        """What was begun so long ago, as far as that is kept apart."""
        if self.since is not None and self.since + age <= now:
            return self.all
        asked = self.asked_since
        return self._asked if asked is not None and asked + age <= now else _NONE

    def doubt(self, doubted: bool) -> None:
        """Whether nobody knows if it lives."""
        self.doubted = doubted

    def admits(self, start: int) -> bool:
        """Whether what begins there may be begun on it."""
        return len(self.all) < MOST_OWED or self.all.adjoins(start)


class Owed:
    """What all links of a session owe, by their slots."""

    def __init__(self) -> None:
        self.given = Ranges()  # back
        self._debts: dict[int, Debt] = {}

    def join(self, slot: int) -> Debt:
        """There is a link."""
        debt = self._debts[slot] = Debt()
        self._relieve(debt)
        return debt

    def leave(self, slot: int) -> None:
        """It is lost."""
        self._give_back(self._debts.pop(slot))

    def begin(self, debt: Debt, start: int, end: int, now: float) -> None:
        """A frame is begun on this link."""
        debt.begin(start, end, now)
        self.given.remove(start, end)

    def drop_below(self, offset: int) -> None:
        """All below has arrived."""
        self.given.drop_below(offset)
        for debt in self._debts.values():
            debt.drop_below(offset)

    def answered(self, debt: Debt) -> None:
        """This link has answered what it was asked."""
        arrived = debt.answered()
        self.given.remove_all(arrived)
        for each in self._debts.values():
            each.arrived(arrived)

    def doubt(self, debt: Debt) -> None:
        """This link may be dead: all that it owes may go out elsewhere."""
        debt.doubt(True)
        self._give_back(debt)

    def trust(self, debt: Debt) -> None:
        """It is not: it will bring what it owes."""
        debt.doubt(False)
        self.given.remove_all(debt.all)
        self._relieve(debt)

    def paused(self, debt: Debt) -> bool:
        """Whether this link should begin nothing, because there are better ones."""
        return debt.doubted and any(not each.doubted for each in self._debts.values())

    def next_given(self, debt: Debt) -> Piece:
        """The lowest that was given back, for this link."""
        return self._admitted(debt, self.given.lowest_outside(debt.all))

    def next_repeat(self, debt: Debt, age: float, now: float) -> Piece:
        """The lowest that the others have begun so long ago, for this link, once."""
        found = [each.older(age, now).lowest_outside(debt.all) for each in self._others(debt)]
        return self._admitted(debt, min((piece for piece in found if piece), default=None))

    def next_time(self, debt: Debt, age: float, now: float) -> float | None:
        """When something that the others owe is going to be so old."""
        times = [at for each in self._others(debt) for at in (each.since, each.asked_since)]
        old = [at + age for at in times if at is not None]
        return min((at for at in old if at > now), default=None)

    def _relieve(self, debt: Debt) -> None:
        """Here is one that is better than those in doubt, which may have begun something."""
        for each in self._others(debt):
            if each.doubted:
                self._give_back(each)

    def _others(self, debt: Debt) -> list[Debt]:
        return [each for each in self._debts.values() if each is not debt]

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


_NONE: Final = Ranges()
