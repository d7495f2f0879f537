"""How many links a session may have at once, and which ways they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bpipe.protocol.wire import MOST_LINKS as MOST_LINKS

if TYPE_CHECKING:
    import socket


class Links(NamedTuple):
    """At most ``most`` at once, 1 to 8; None: one for each of ``bind``, or one.

    ``bind``: from where they go out, in turn: addresses of this machine, or names of its
    interfaces. ``congestion``: how TCP deals with that, by the name that the system has for it.
    """

    most: int | None = None
    bind: Sequence[str] = ()
    congestion: str = ""

    def total(self) -> int:
        """How many there may be. ValueError if there cannot be so many, or one has no link."""
        count = self.most if self.most is not None else len(self.bind) or 1
        if not 1 <= count <= MOST_LINKS:
            raise ValueError(f"there can be 1 to {MOST_LINKS} links, not {count}")
        if count < len(self.bind):
            raise ValueError(f"{len(self.bind)} of them need as many links, not {count}")
        return count

    def to_accept(self) -> int:
        """How many a listener allows. ValueError if it cannot, or they are to go out."""
        if self.bind:
            raise ValueError("what is accepted goes out from nowhere: no bind")
        return self.total()

    def prepare(self, listening: Iterable[socket.socket]) -> None:
        """Have what comes in there deal with congestion so."""
        if self.congestion:
            from bpipe.net.congestion import use_congestion

            use_congestion(self.congestion, listening)

    def require_congestion(self) -> None:
        """ValueError if it cannot be dealt with so here."""
        if self.congestion:
            from bpipe.net.congestion import require_congestion

            require_congestion(self.congestion)


def links_of(links: int | Links) -> Links:
    """So many, or these."""
    return links if isinstance(links, Links) else Links(links)
