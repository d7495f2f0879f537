"""The options that say which of the two streams is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bpipe.cli.groups import DIRECTION, flag

if TYPE_CHECKING:
    from bpipe.ends.streams import Directions


class Direction(NamedTuple):
    """Which of the two streams is not wanted."""

    send_only: Annotated[
        bool, flag("--send-only", help="Take nothing from the peer.", panel=DIRECTION)
    ] = False
    recv_only: Annotated[bool, flag("--recv-only", help="Do not read stdin.", panel=DIRECTION)] = (
        False
    )

    def directions(self) -> Directions:
        """The same for those who start the ends."""
        from bpipe.ends.streams import Directions

        if self.send_only and self.recv_only:
            raise typer.BadParameter("--send-only and --recv-only leave nothing to do")
        return Directions(self.send_only, self.recv_only)
