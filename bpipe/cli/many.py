"""The options that have to do with many sessions, and with what each of them is joined to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bpipe.cli import values
from bpipe.cli.completion import complete_path
from bpipe.cli.direction import Direction
from bpipe.cli.groups import MANY, flag, option

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.run.session import Wanted
else:
    Address = Any  # typer looks at annotations, and has no use for what this one would load


class Many(NamedTuple):
    """What takes the place of our own stdin and stdout, for one session or for each of many."""

    keep_open: Annotated[
        bool,
        flag(
            "-k",
            "--keep-open",
            help="Serve many callers, each with a program (--) or a connection (--to) of its own,"
            " or one after the other (--output).",
            panel=MANY,
        ),
    ] = False
    to: Annotated[
        Address | None,
        option(
            values.service,
            "--to",
            "ADDRESS",
            "Join the caller to the service that listens at this address.",
            panel=MANY,
            autocompletion=complete_path,
        ),
    ] = None
    from_: Annotated[
        Address | None,
        option(
            values.address,
            "--from",
            "ADDRESS",
            "Listen here, and carry each connection in a session of its own.",
            panel=MANY,
            autocompletion=complete_path,
        ),
    ] = None
    max_sessions: Annotated[
        int | None,
        option(
            values.sessions,
            "--max-sessions",
            "N",
            "How many at once, at most; who is too many has to wait. [default: 64]",
            panel=MANY,
        ),
    ] = None
    drain: Annotated[
        float | None,
        option(
            values.duration,
            "--drain",
            "TIME",
            "How long those that are served may go on after SIGTERM. [default: 0s]",
            panel=MANY,
        ),
    ] = None

    @property
    def most(self) -> int:
        """How many sessions at once."""
        from bpipe.server import MAX_SESSIONS

        return self.max_sessions or MAX_SESSIONS

    def ends(self, direction: Direction, program: list[str] | None) -> Wanted:
        """What is joined to a pipe, or to each of many."""
        from bpipe.run.session import Wanted

        directions, output = direction.directions(), direction.path()
        wanted = Wanted(directions, program, self.to, output=output, whole=direction.whole)
        if program is not None:
            _require_program(program)
        return wanted


def _require_program(program: list[str]) -> None:
    import shutil

    if not program or not program[0]:
        raise typer.BadParameter("-- is followed by a program, and its arguments")
    if shutil.which(program[0]) is None:
        there = os.path.exists(program[0])
        what = "this is no program that may be run" if there else "there is no such program"
        raise typer.BadParameter(f"{program[0]}: {what}")
