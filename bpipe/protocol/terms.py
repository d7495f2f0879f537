"""What the two ends of a session state of themselves, and never change: their terms."""

from __future__ import annotations

from typing import Final

from bpipe.protocol.wire import FILE, RECORDS, Position, possible

SMALLEST_WINDOW: Final = 1024  # bytes, of both ends where one of them writes to a file


class Terms:
    """Of one session. ``needs`` are bits: what it has to have for this end; its window is bytes.

    ``records``: whether its streams are cut into records, as they are if either end needs that.
    ``to_file``: whether what this end sends goes to a file, as the peer states.
    Once they are known, which is with the first link at the latest, they stay as they are: the ends
    have begun accordingly. Nobody who needs something else suits then.
    ``whole``: a stream to a file is sent without asking what lies there.
    ``slots``: how many links there may be at once; each end states how many it would have, this
    one ``links``.
    """

    def __init__(self, needs: int = 0, window: int = SMALLEST_WINDOW, links: int = 1) -> None:
        self.needs = needs
        self.links = links
        self.slots = 1
        self._window = window
        self.records: bool | None = True if needs & RECORDS else None  # None: it depends
        self.to_file: bool | None = False if needs & FILE else None
        self.whole = False
        self._peers: tuple[int, ...] = ()

    def send_whole(self) -> None:
        """No end has begun yet: send all of what goes to a file."""
        self.whole = True

    def suit(self, position: Position) -> bool:
        """Whether this end can serve a peer that states these, as its first ones."""
        if not possible(position) or self.to_file not in (None, self._files(position)):
            return False
        file = (self.needs | position.needs) & FILE
        small = file and min(self._window, position.window) < SMALLEST_WINDOW
        return not small and self.records in (None, self._with(position))

    def fit(self, position: Position) -> bool:
        """The same, also if it has stated some before."""
        return self._peers in ((), position[2:]) and self.suit(position)

    def agree(self, position: Position) -> None:
        """The peer has stated these, and they fit."""
        self._peers, self.slots = position[2:], self.slots_with(position)
        self.records, self.to_file = self._with(position), self._files(position)

    def begin(self) -> bool:
        """An end begins to write: whether records. Where it does not know yet, it is bytes."""
        self.records, self.to_file = bool(self.records), bool(self.to_file)
        return self.records

    def forget(self) -> None:
        """There may be another peer."""
        self._peers, self.slots = (), 1

    def slots_with(self, position: Position) -> int:
        """How many links there may be at once with a peer that states these."""
        return min(self.links, position.links)

    def link(self, slot: int) -> str:
        """How what is told of one of several links begins; of the only one, it needs no name."""
        return f"link {slot}: " if self.slots > 1 else ""

    def _with(self, position: Position) -> bool:
        return (self.needs | position.needs) & RECORDS > 0

    @staticmethod
    def _files(position: Position) -> bool:
        """Whether that end writes what it receives to a file."""
        return position.needs & FILE > 0
