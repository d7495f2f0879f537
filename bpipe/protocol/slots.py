"""Slots: which links a session has at once, and what is known of all of them together.

Each link has a slot, and the next one in this slot takes its place. A session whose ends have not
both asked for more has the slot 0, and nothing of the rest is used.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Final

from bpipe.protocol.driver import Driver
from bpipe.protocol.reader import BackedReader

if TYPE_CHECKING:  # loaded where there are several
    from bpipe.protocol.owed import Owed
    from bpipe.protocol.reassembly import Reassembly
    from bpipe.protocol.slot_channel import SlotChannel

PARTING: Final = 1.0  # seconds from the first BYE in answer to an ABORT, for those of other links


class Slots:
    """Of one session. Times are in seconds."""

    def __init__(self, reader: BackedReader) -> None:
        self._reader = reader
        self._channels: dict[int, Driver] = {}
        self._several: dict[int, SlotChannel] = {}  # the same, where there may be more than one
        self._epochs: dict[int, int] = {}  # of the last link that was attached in each
        self._fruitless: Counter[int] = Counter()  # links in a row, by slot: see ``fruitless``
        self._wrote: set[int] = set()  # this end's BYE is on the link
        self._brought: set[int] = set()  # the peer's has come over it
        self._first_bye: float | None = None  # this end's

    # --- the streams, where there are several links ---

    @functools.cached_property
    def owed(self) -> Owed:
        """What they owe."""
        from bpipe.protocol.owed import Owed

        return Owed()

    @functools.cached_property
    def reassembly(self) -> Reassembly:
        """What they bring, put together."""
        from bpipe.protocol.reassembly import Reassembly

        return Reassembly(self._reader)

    # --- links come and go ---

    @property
    def any(self) -> Driver | None:
        """What speaks over one of the links; None if there is none."""
        return next(iter(self._channels.values()), None)

    @property
    def live(self) -> int:
        """In which slots there are links: bits."""
        return sum(1 << slot for slot in self._channels)

    def holds(self, slot: int, channel: Driver) -> bool:
        """Whether it is this one that has the slot."""
        return self._channels.get(slot) is channel

    def attach(self, slot: int, channel: Driver, received: int) -> None:
        """This speaks over the link in this slot, which had none; the peer has ``received``."""
        assert slot not in self._channels
        self._channels[slot] = channel
        if slot in self._several:
            self.owed.drop_below(received)

    def join(self, slot: int, channel: SlotChannel) -> None:
        """This is going to be attached, where there may be others beside it."""
        self._several[slot] = channel

    def detach(self, slot: int) -> Driver | None:
        """There is no link in this slot any more; returns what speaks over another."""
        for of_links in (self._channels, self._several):
            of_links.pop(slot, None)
        self._wrote.discard(slot)
        self._brought.discard(slot)
        return self.any

    def forget(self) -> None:
        """There may be another caller; there is no link."""
        assert not self._channels
        self._epochs.clear()

    # --- greetings ---

    def epoch(self, slot: int) -> int:
        """That of the last link that was attached there, at an answerer; 0: there was none."""
        return self._epochs.get(slot, 0)

    def advance(self, slot: int, epoch: int) -> None:
        """A greeting with this epoch is the latest there."""
        self._epochs[slot] = epoch

    def dead(self, live: int, epoch: int) -> list[int]:
        """The slots whose links a caller does not hold any more, who has only these.

        It has said so with this epoch; of links that it may have made since, that tells nothing.
        """
        old = [slot for slot in self._channels if self.epoch(slot) < epoch]
        return [slot for slot in old if not live >> slot & 1]

    # --- what concerns all links ---

    def fruitless(self, slot: int, row: int) -> int:
        """A link is lost there to a protocol error, the ``row``-th in a row without progress.

        Returns how many of that row there were in this slot, or in another that has a link, if
        there were fewer: a path that spoils what goes over it does not end a session that has a
        better one.
        """
        if row == 1:
            self.forgive()
        self._fruitless[slot] += 1
        return min(self._fruitless[each] for each in {slot, *self._channels})

    def forgive(self) -> None:
        """Not every link was lost to a protocol error: that is counted anew."""
        self._fruitless.clear()

    def say_again(self) -> None:
        """A link is lost, and perhaps with it the last ACK."""
        for each in self._several.values():
            each.say_again()

    def limit(self) -> None:
        """There is a rate from now on, for all."""
        for each in self._several.values():
            each.limit()

    # --- the end ---

    def wrote_bye(self, slot: int, now: float) -> None:
        """This end's BYE is on that link."""
        self._wrote.add(slot)
        if self._first_bye is None:
            self._first_bye = now

    def brought_bye(self, slot: int) -> None:
        """The peer's has come over that link."""
        self._brought.add(slot)

    @property
    def part_at(self) -> float | None:
        """When an end leaves that answers an ABORT, whatever links have not been told."""
        return None if self._first_bye is None else self._first_bye + PARTING

    def parted(self, *, answering: bool, now: float) -> bool:
        """Whether BYE is said where it has to be: where the peer's came from, or on no link more.

        In answer to an ABORT: on every link.
        """
        if self._first_bye is None:
            return False
        if answering:
            late = now >= self._first_bye + PARTING
            return late or self._wrote.issuperset(self._channels)
        return not self._channels or not self._wrote.isdisjoint(self._brought)
