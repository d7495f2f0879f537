"""What ``ssh`` and ``run`` do: join stdin, stdout and stderr to a command on another machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from bpipe.cli.complain import complain
from bpipe.cli.direction import Direction
from bpipe.cli.groups import CONNECTION, text
from bpipe.cli.tuning import Tuning
from bpipe.errors import explain
from bpipe.report.settings import Settings
from bpipe.run.exits import OF_BPIPE

if TYPE_CHECKING:
    from bpipe.cli.ssh import Call
    from bpipe.net.launch import Launched
    from bpipe.pipe import BackedPipe

GIVE_UP_AFTER: Final = 3600.0  # seconds, also for the far side: locks and disks wait for that


class Via(NamedTuple):
    """How a command is started elsewhere."""

    via: Annotated[
        str | None,
        text(
            "--via",
            metavar="COMMAND",
            help="What starts a command elsewhere, as in 'docker exec -i NAME'; no shell.",
            panel=CONNECTION,
        ),
    ] = None

    def words(self) -> list[str]:
        """The same as words, split as a shell does it."""
        try:
            words = shlex.split(self.via or "")
        except ValueError as error:
            raise typer.BadParameter(f"--via: {str(error).lower()}: {self.via}") from None
        if not words:
            raise typer.BadParameter("--via is missing: what starts a command elsewhere?")
        return words


class There(NamedTuple):
    """A command, and how the machine is reached where it is to run."""

    host: str  # for people
    first: Sequence[str]  # what starts a program there
    later: Sequence[str]  # the same when nobody can be asked any more
    command: str | list[str]  # for the shell of the login, or as words
    reads_stdin: bool = True
    begun: Launched | None = None  # the first, if it was started already

    def run(self, direction: Direction, tuning: Tuning, settings: Settings) -> int:
        """Join ours to it, until it has ended; returns the exit status."""
        from bpipe.api import BUFFER_SIZE
        from bpipe.cli.runs import collect_garbage
        from bpipe.protocol.patience import Limits
        from bpipe.run.session import Wanted, run_session

        direction.require_apart(settings.log)
        directions = direction.directions()._replace(recv_only=not self.reads_stdin)
        output, whole = direction.path(), direction.whole
        wanted = Wanted(directions, host=self.host, output=output, whole=whole)
        terms = tuning.terms(BUFFER_SIZE, Limits(give_up_after=GIVE_UP_AFTER), wanted.needs)
        collect_garbage()
        settings = settings._replace(rate=tuning.bucket())
        links = tuning.links or 1
        opened = partial(self._open, {**terms, "rate": settings.rate}, links)
        return run_session(opened, wanted, settings, self.host, listens=False)

    def _open(
        self, terms: dict[str, Any], links: int, hear: Callable[[str], None]
    ) -> Awaitable[BackedPipe]:
        """A pipe to it; ``hear`` is told what is said by what starts it."""
        from bpipe.remote.carrier import Errand, Remote, open_pipe

        limits, size = terms["limits"], terms["buffer_size"]
        errand = Errand(self.command, limits.heartbeat, limits.give_up_after, size, links)
        remote = Remote(self.first, self.later, errand, hear, name=self.host, begun=self.begun)
        return open_pipe(remote, limits, size, terms["needs"], terms["rate"])


def over_ssh(call: Call, begun: Launched | None = None) -> There:
    """The command that ssh was to run; ``begun``: an ssh for it that was started already."""
    return There(call.host, call.first(), call.later(), call.command, call.reads_stdin, begun)


def by(via: Via, command: list[str] | None) -> There:
    """The command that another one is to start elsewhere."""
    words = via.words()
    if not command or not command[0]:
        raise typer.BadParameter("-- is followed by the command, and its arguments")
    return There(" ".join(words), words, words, command)


def execute(words: list[str]) -> int:
    """Become this program; returns the exit status if that cannot be."""
    try:
        os.execvp(words[0], words)
    except OSError as error:
        complain(f"{words[0]}: {explain(error)}")
        return OF_BPIPE
