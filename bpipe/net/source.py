"""LinkSource: where the links of one session come from, by dialling or by accepting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bpipe.net.link import Link


class LinkSource(Protocol):
    """Obtains greeted links for one session. ``start`` comes first, and ``close`` in any case."""

    @property
    def name(self) -> str:
        """The address, for people."""

    @property
    def ways(self) -> Sequence[str]:
        """From where its links go out, by their slots, for people; empty if that was not chosen."""

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach it."""

    @property
    def refused(self) -> int:
        """The greetings of those who do not belong here."""

    @property
    def asks(self) -> bool:
        """Whether an attempt may be asking something on the terminal, now or next."""

    @property
    def attempts(self) -> int:
        """How many were started in this outage; 0 where one can only wait."""

    @property
    def next_at(self) -> float | None:
        """When the next attempt starts; None where one can only wait."""

    @property
    def change(self) -> int:
        """A number that is raised with each of these, except the time of the next attempt."""

    def start(self, drive: Callable[[], None]) -> None:
        """Begin; ``drive`` is called after anything that has happened."""

    async def next_link(self, slot: int = 0) -> Link:
        """The next link that is greeted and attached in this slot; waits as long as it takes.

        In any but 0 once there was one; they may be waited for at the same time.
        """

    def hurry(self) -> None:
        """Try now, whatever the backoff says."""

    async def close(self) -> None:
        """The session needs no more links."""

    def abandon(self) -> None:
        """This process ends now, without ``close``: leave nothing behind."""
