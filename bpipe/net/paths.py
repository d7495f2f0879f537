"""What changes in this machine's network mean to those who use it: pure, but for what it asks.

Theory of operation. A message of the kernel says that something has changed, and little of what
that means; some are lost, and often there are thousands. So they are only a reason to ask: which
way would packets to this peer go *now*? The answer is compared with the last one, and who watches
that path is told when it differs. One thing only messages tell: what was away for a moment, and is
back before anybody has asked. Packets were lost then, so that counts as a difference.

A path that the kernel never had a way for is not told to be gone: its answer may not be all that
there is to know, as there are rules that only hold for other packets than those it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from bpipe.net.netlink import Gone, Path, Way

Ask = Callable[[Path], Optional[Way]]
Tell = Callable[[bool], None]  # there is a way again, or another one; False: there is none any more


class Watched:
    """Somebody who is told of a path, and how it was when it was looked at last."""

    def __init__(self, path: Path, way: Way | None, tell: Tell) -> None:
        self.path = path
        self.tell = tell
        self._way = way

    def compare(self, way: Way | None, gone: Iterable[Gone]) -> bool | None:
        """This is how it is now; returns what there is to tell."""
        before, self._way = self._way, way
        if way is None:
            return None if before is None else False
        if way != before or any(self._concerns(each, way) for each in gone):
            return True
        return None

    def _concerns(self, gone: Gone, way: Way) -> bool:
        if gone.address:
            return gone.address == (self.path.local or way.source)
        return gone.device == way.device


class Paths:
    """All that are watched in a process. ``ask`` says which way each goes; None: there is none."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._watched: dict[Watched, None] = {}  # the oldest first

    def __bool__(self) -> bool:
        return bool(self._watched)

    def watch(self, path: Path, tell: Tell) -> Watched:
        """From now on, ``tell`` is called when there is something to tell of it."""
        watched = Watched(path, self._ask(path), tell)
        self._watched[watched] = None
        return watched

    def forget(self, watched: Watched) -> None:
        """Nobody is to be told any more. Again: no effect."""
        self._watched.pop(watched, None)

    def changed(self, gone: Iterable[Gone]) -> list[tuple[Watched, bool]]:
        """Something has; of that, this was away, for a moment at least. Returns what to tell."""
        return list(self._compare(set(gone)))

    def tell(self, news: Iterable[tuple[Watched, bool]]) -> None:
        """Tell it, to those who still want to know."""
        for watched, there in news:
            if watched in self._watched:  # who was told before may have ended it
                watched.tell(there)

    def _compare(self, gone: set[Gone]) -> Iterator[tuple[Watched, bool]]:
        answers: dict[Path, Way | None] = {}
        for watched in self._watched:
            path = watched.path
            if path not in answers:
                answers[path] = self._ask(path)
            there = watched.compare(answers[path], gone)
            if there is not None:
                yield watched, there
