"""The options that have to do with many sessions, and with what each of them is joined to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bpipe.cli import values
from bpipe.cli.completion import complete_path
from bpipe.cli.direction import Direction
from bpipe.cli.groups import MANY, flag, option, text

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.run.session import Wanted


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
        str | None,
        text(
            "--to",
            metavar="ADDRESS",
            help="Join the caller to the service that listens at this address.",
            panel=MANY,
            autocompletion=complete_path,
        ),
    ] = None
    from_: Annotated[
        str | None,
        text(
            "--from",
            metavar="ADDRESS",
            help="Listen here, and carry each connection in a session of its own.",
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

    def local(self) -> Address:
        """Where connections are made that are to be carried."""
        from bpipe.net.address import parse

        assert self.from_ is not None
        return parse(self.from_)

    def ends(self, direction: Direction, program: list[str] | None) -> Wanted:
        """What is joined to a pipe, or to each of many."""
        from bpipe.run.session import Wanted

        directions, output = direction.directions(), direction.path()
        wanted = Wanted(directions, program, self._service(), output=output, whole=direction.whole)
        self._require_sense(direction, wanted)
        if program is not None:
            _require_program(program)
        return wanted

    def _service(self) -> Address | None:
        from bpipe.net.address import parse, require_callable

        if self.to is None:
            return None
        service = parse(self.to)
        require_callable(service)
        return service

    def _require_sense(self, direction: Direction, wanted: Wanted) -> None:
        """Of all that could be joined to the pipe, one thing may be, and whole."""
        joined = [
            name
            for name, given in (
                ("--", wanted.program is not None),
                ("--to", self.to is not None),
                ("--from", self.from_ is not None),
                ("--output", wanted.output is not None),
            )
            if given
        ]
        if len(joined) > 1:
            raise typer.BadParameter(f"{joined[0]} and {joined[1]} contradict each other")
        if joined not in ([], ["--output"]) and (direction.send_only or direction.recv_only):
            what = "a program" if joined == ["--"] else "a connection"
            raise typer.BadParameter(f"{what} takes both streams: no --send-only, no --recv-only")
        if self.keep_open and not joined:
            raise typer.BadParameter(
                "-k serves each caller with a program (--), a service (--to) or a file (--output)"
            )
        if self.from_ is not None and direction.whole:
            raise typer.BadParameter("--whole is about one stream: no --from")
        many = self.keep_open or self.from_ is not None
        if not many and (self.max_sessions or self.drain) is not None:
            raise typer.BadParameter("--max-sessions and --drain are about many (-k, --from)")
        if wanted.output is not None and self.max_sessions is not None:
            raise typer.BadParameter("--output takes one session at a time: no --max-sessions")


def _require_program(program: list[str]) -> None:
    import shutil

    if not program or not program[0]:
        raise typer.BadParameter("-- is followed by a program, and its arguments")
    if shutil.which(program[0]) is None:
        there = os.path.exists(program[0])
        what = "this is no program that may be run" if there else "there is no such program"
        raise typer.BadParameter(f"{program[0]}: {what}")
