"""What the two ends of a session state of themselves, and never change: their terms."""

from __future__ import annotations

from bpipe.protocol.wire import RECORDS, Position, possible


class Terms:
    """Of one session. ``needs`` are bits: what it has to have for this end.

    ``records``: whether its streams are cut into records, as they are if either end needs that.
    Once it is known, which is with the first link at the latest, it stays as it is: the ends have
    begun accordingly. Nobody who needs something else suits then.
    """

    def __init__(self, needs: int = 0) -> None:
        self.needs = needs
        self.records: bool | None = True if needs & RECORDS else None  # None: it depends
        self._peers: tuple[int, ...] = ()

    def suit(self, position: Position) -> bool:
        """Whether this end can serve a peer that states these, as its first ones."""
        return possible(position) and self.records in (None, self._with(position))

    def fit(self, position: Position) -> bool:
        """The same, also if it has stated some before."""
        return self._peers in ((), position[2:]) and self.suit(position)

    def agree(self, position: Position) -> None:
        """The peer has stated these, and they fit."""
        self._peers = position[2:]
        self.records = self._with(position)

    def begin(self) -> bool:
        """An end begins to write: whether records. Where it does not know yet, it is bytes."""
        self.records = bool(self.records)
        return self.records

    def forget(self) -> None:
        """There may be another peer."""
        self._peers = ()

    def _with(self, position: Position) -> bool:
        return (self.needs | position.needs) & RECORDS > 0
