"""Driver: the one interface by which a link's bytes are moved.

A greeting is one, and so is the channel that it ends in. Both *lend memory*: they say where the
next bytes from the link belong and which go out next, and are told what has happened. Neither ever
waits. All times are in seconds.
"""

from __future__ import annotations

from typing import Protocol

from bpipe.protocol.ring import Views


class Driver(Protocol):
    """What speaks over one link."""

    def incoming(self) -> Views:
        """Where the next bytes from the link belong, in order; empty before any may come."""

    def received(self, count: int, now: float) -> None:
        """``count`` bytes (at least 1) arrived there. LinkLost if they may not be said now."""

    def outgoing(self, now: float) -> Views:
        """What to put on the link next, in order; ``[]`` when there is nothing to say."""

    def sent(self, count: int, now: float) -> None:
        """The first ``count`` bytes of that are on the link."""

    def deadline(self) -> float:
        """When ``tick`` has to be called, if nothing else happens before."""

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the link has to be given up."""
