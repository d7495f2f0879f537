"""What is told of a rate that is in a file."""

from __future__ import annotations

from typing import NamedTuple

from bpipe.report.format import format_size


class Rate(NamedTuple):
    """The file of --rate says something else now."""

    limit: int | None  # bytes a second; None: no limit any more

    def words(self) -> str:
        return f"{at_most(self.limit)} from now on" if self.limit else "no limit from now on"


class RateUnread(NamedTuple):
    """The file of --rate has changed, and does not say a rate; told once."""

    reason: str
    limit: int | None  # which stays

    def words(self) -> str:
        stays = at_most(self.limit) if self.limit else "no limit"
        return f"--rate: {self.reason}; as before: {stays}"


def at_most(rate: int) -> str:
    """A rate, in bytes a second, for people."""
    return f"at most {format_size(rate)}/s"
