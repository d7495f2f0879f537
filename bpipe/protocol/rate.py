"""Rate: how much of the streams may leave this process, in bytes a second. Times are in seconds.

Theory of operation. A *bucket* fills at its rate, and holds at most BURST of it, so a pause is not
made up for. Bytes are drawn from it when they are on a link, and not before: a link that takes none
for a while has saved none. A session goes on when there is a GRAIN. Less would be many small steps;
between a grain and what the bucket holds there is time to be late. All sessions of a process share
one bucket, and go on in the order in which they came: who has to wait is promised a time, for a
frame of so many bytes, and the next one a time after that.

What is not of a stream is free, and goes ahead of all that has not begun. So what has begun has to
be small, however slow it leaves.
"""

from __future__ import annotations

import math
from typing import Final

from bpipe.errors import ProtocolError
from bpipe.protocol.wire import LARGEST_PAYLOAD

SLOWEST: Final = 1 << 10  # bytes a second: less is no rate
FASTEST: Final = (1 << 64) - 1  # more cannot be told to the peer
SMALLEST_FRAME: Final = 256  # bytes that a frame may have at any rate, with all that is around it
BURST: Final = 0.04  # seconds: in each second it is at most 1.04 of the rate, and what is free
GRAIN: Final = 0.01
PIECE: Final = 0.005


class Bucket:
    """What leaves at ``rate`` bytes a second, SLOWEST or more; 0: nothing limits it."""

    def __init__(self, rate: int = 0) -> None:
        self.rate = 0
        self._empty_at = -math.inf  # since then it fills
        self._line = -math.inf  # the last time that was promised to somebody
        self.change(rate)

    def change(self, rate: int) -> None:
        """From now on it is this one. ValueError if it cannot be one."""
        if rate and rate < SLOWEST:
            raise ValueError(f"{rate} bytes a second are too few: at least {SLOWEST}, or 0")
        if rate > FASTEST:
            raise ValueError(f"{rate} bytes a second are too many: at most {FASTEST}, or 0")
        self.rate, self._line = rate, -math.inf

    def holds(self, now: float) -> int:
        """The bytes in it; less than 0 after more was drawn. Only where there is a rate."""
        return math.floor((now - self._since(now)) * self.rate)

    def draw(self, count: int, now: float) -> None:
        """So many bytes are on a link. Only where there is a rate."""
        self._empty_at = self._since(now) + count / self.rate

    def when(self, count: int, now: float) -> float:
        """When it holds so many bytes, if nobody draws any."""
        return self._since(now) + count / self.rate

    def book(self, count: int, now: float) -> float:
        """When somebody may begin a frame of so many bytes: not after ``now``, or it is his time.

        He comes then, and claims it.
        """
        least, waits = self._least(count), self._line > now
        at = max(self._line if waits else -math.inf, self._since(now)) + least / self.rate
        self._line = at + (count - least) / self.rate
        return at

    def claim(self, count: int, now: float) -> float:
        """The same for one whose time has come: nobody who comes after him is before him."""
        at = self.when(self._least(count), now)
        if at > now:
            self._line = max(self._line, at)
        return at

    def goes_on(self, count: int, now: float) -> float:
        """When so many bytes of a frame that has begun go on: sooner than another one begins."""
        return self.when(min(count, int(self.rate * PIECE)), now)

    def _least(self, count: int) -> int:
        return min(count, int(self.rate * GRAIN))

    def _since(self, now: float) -> float:
        return max(self._empty_at, now - BURST)


class Rate:
    """That of one session: what its process's bucket holds, ``own``, and what its peer allows."""

    def __init__(self, own: Bucket | None = None, told: Bucket | None = None) -> None:
        self.until: float | None = None  # it waits
        self.own = own
        self._told = told or Bucket()
        self._promised: tuple[float, int, int] | None = None  # when, how many bytes, at which rate
        self._shares: dict[int, Rate] = {}  # by slot, where there are several links

    def share(self, slot: int) -> Rate:
        """The part in it of the link in this slot, as each of several waits by itself."""
        share = self._shares[slot] = Rate(self.own, self._told)
        return share

    def leave(self, slot: int) -> None:
        """That link is lost."""
        del self._shares[slot]

    @property
    def limit(self) -> int:
        """The smaller of the two, in bytes a second; 0: there is none."""
        return min((each.rate for each in self._buckets()), default=0)

    @property
    def holds_up(self) -> int | None:
        """What it is, if something waits because of it."""
        waits = any(each.until is not None for each in (self, *self._shares.values()))
        return self.limit if waits else None

    @property
    def known(self) -> bool:
        """Whether there is one, or was, or may be."""
        return self.own is not None or self._told.rate > 0

    def forget(self) -> None:
        """There is another peer, which has not said anything yet."""
        self._told.change(0)

    def hear(self, number: int) -> None:
        """The peer allows so much. ProtocolError if that cannot be."""
        try:
            self._told.change(number)
        except ValueError as error:
            raise ProtocolError(f"RATE: {error}") from None

    # --- what a channel asks ---

    def begin(self, wanted: int, now: float) -> int:
        """How many bytes the frame may have that begins now; 0: none does, it waits.

        ``wanted``: how many there are to send, with what is around them.
        """
        at, count, own, promised = now, min(wanted, self._frame), self.own, self._promised
        if own is not None and own.rate:
            if promised is None or promised[2] != own.rate:
                at = own.book(count, now)
            else:
                at, count = promised[0], min(count, promised[1])
                at = at if at > now else own.claim(count, now)
            self._promised = at, count, own.rate
        if self._told.rate:
            at = max(at, self._told.claim(count, now))
        self._wait(at, now)
        if self.until is not None:
            return 0
        self._promised = None
        return count

    def allow(self, count: int, now: float) -> int:
        """How many of so many bytes, of a frame that has begun, may go now; if none, it waits."""
        buckets = self._buckets()
        self._wait(max((each.goes_on(count, now) for each in buckets), default=now), now)
        if self.until is not None:
            return 0
        return min([count, *(max(1, each.holds(now)) for each in buckets)])

    def draw(self, count: int, now: float) -> None:
        """So many bytes of frames are on a link."""
        for each in self._buckets():
            each.draw(count, now)

    def rest(self) -> None:
        """There is nothing that would wait."""
        self.until = None

    def tick(self, now: float) -> None:
        """Look at the clock: what was waited for has come, or it is waited for anew."""
        if self.until is not None and now >= self.until:
            self.until = None

    @property
    def _frame(self) -> int:
        return max(SMALLEST_FRAME, int(self.limit * GRAIN)) if self.limit else LARGEST_PAYLOAD

    def _wait(self, at: float, now: float) -> None:
        self.until = at if at > now else None

    def _buckets(self) -> list[Bucket]:
        """Those that limit it."""
        return [each for each in (self.own, self._told) if each is not None and each.rate]
