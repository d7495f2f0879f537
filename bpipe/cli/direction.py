"""The options that say which of the two streams is wanted, and whether one becomes a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bpipe.cli.groups import DIRECTION, FILES, flag, text

if TYPE_CHECKING:
    from bpipe.ends.streams import Directions


class Direction(NamedTuple):
    """Which of the two streams is not wanted, and the file that may take the place of stdout."""

    send_only: Annotated[
        bool, flag("-S", "--send-only", help="Take nothing from the peer.", panel=DIRECTION)
    ] = False
    recv_only: Annotated[
        bool, flag("-R", "--recv-only", help="Do not read stdin.", panel=DIRECTION)
    ] = False
    output: Annotated[
        str | None,
        text(
            "-o",
            "--output",
            metavar="FILE",
            help="Write what comes to FILE.part, which becomes FILE when all of it is on the disk;"
            " what lies there already is not sent. A disk is written in place. stdin is not read.",
            panel=FILES,
        ),
    ] = None
    whole: Annotated[
        bool,
        flag("--whole", help="Send all of it, also what lies there already.", panel=FILES),
    ] = False

    def directions(self) -> Directions:
        """The same for those who start the ends."""
        from bpipe.ends.streams import Directions

        return Directions(self.send_only, self.recv_only)

    def require_apart(self, log: str | None) -> None:
        """Nothing else is to be written to the file."""
        if log is not None and (output := self.path()) is not None:
            if _place(log) in (_place(output), _place(f"{output}.part")):
                raise typer.BadParameter("--log-json needs another file than --output")

    def path(self) -> str | None:
        """Where the file is to be, if there is to be one."""
        if self.output is None:
            return None
        if self.output in ("", "-"):
            raise typer.BadParameter("--output takes the name of a file; without it, it is stdout")
        if self.output.startswith("~/"):
            return os.path.expanduser(self.output)  # behind a = no shell has done it
        return self.output


def _place(path: str) -> str:
    """The same for all names of one folder. What is in it is no link, neither log nor file."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)
