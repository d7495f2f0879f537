"""Command: a connector whose connections are runs of a command that the user has chosen.

``ssh HOST nc -U /run/bpipe``, for example: whatever joins its stdin and stdout to a bpipe that
listens. The first runs may ask on the terminal. When one was good, the later ones run apart from
it: there may be nobody any more who answers.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from typing import Final

from bpipe.errors import AddressError, LinkLost, code_of, explain
from bpipe.net.carrier import Carrier, Grace
from bpipe.net.connectors import Connection
from bpipe.net.schedule import CARRIER, Manners
from bpipe.net.utterance import Utterance

FAREWELL: Final = 1.0  # seconds until those are killed that have not ended at the end


class Command:
    """Runs ``argv`` for each connection: no shell, looked for in PATH.

    ``tell`` is called in the event loop with each line that it says on stderr: with all of the
    first run, and later with what the run before has not said. ``name`` is for people. The pauses
    and limits of ``manners`` count once a connection was good; before, there is no limit.

    To give later attempts another command, inherit and say so in ``argv_of``.
    """

    def __init__(
        self,
        argv: Sequence[str],
        tell: Callable[[str], None] = lambda line: None,
        *,
        name: str = "",
        manners: Manners = CARRIER,
        grace: Grace = Grace(),  # noqa: B008 - immutable
    ) -> None:
        self.name = name or shlex.join(argv)
        self.argv = tuple(argv)
        self.quiet = False  # a connection was good: later runs ask nobody
        self._tell = tell
        self._manners = manners
        self._grace = grace
        self._carriers: set[Carrier] = set()  # of which something may be left
        self._utterance: Utterance | None = None  # of the last run

    @property
    def manners(self) -> Manners:
        """As for a carrier; no limit of time as long as a run may be asking somebody."""
        return self._manners if self.quiet else self._manners.asking()

    def argv_of(self, turn: int) -> Sequence[str]:
        """What is run for this attempt of an outage, from 0 on; see ``quiet``, too."""
        return self.argv

    async def check(self, timeout: float) -> None:
        """Raise AddressError if there is no such command."""
        require_command(self.argv)

    async def connect(self, turn: int) -> Connection:
        """Start the command. What it is connected to is found out by who uses the connection.

        Raises LinkLost if it cannot be started.
        """
        argv = self.argv_of(turn)
        self._utterance = utterance = Utterance(self._tell, self._utterance)
        try:
            carrier = Carrier(argv, utterance, apart=self.quiet, grace=self._grace)
        except OSError as error:
            raise LinkLost(f"cannot start {argv[0]}: {explain(error)}", code_of(error)) from None
        self._carriers.add(carrier)
        carrier.gone.add_done_callback(lambda _: self._carriers.discard(carrier))
        return Connection(carrier.sock, self.name, None, carrier.release, carrier.fate)

    def prefer(self, connection: Connection) -> None:
        """A connection was good."""
        self.quiet = True

    async def close(self) -> None:
        """End all that run, and wait for that; who takes too long is killed."""
        carriers = set(self._carriers)
        for carrier in carriers:
            carrier.release()
        try:
            if carriers:
                await asyncio.wait([each.gone for each in carriers], timeout=FAREWELL)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Kill all that run."""
        for carrier in set(self._carriers):
            carrier.kill()


def require_command(argv: Sequence[str]) -> None:
    """AddressError if this is not a command that can be run, as far as that is known."""
    if not argv or not argv[0]:
        raise AddressError("a carrier is a command, and its arguments: this one is empty")
    if any("\0" in each for each in argv):
        raise AddressError("a command cannot have a null character in it")
    if shutil.which(argv[0]) is None:
        there = os.path.exists(argv[0])
        what = "this is no program that may be run" if there else "there is no such program"
        raise AddressError(f"{argv[0]}: {what}", "no-such-file")
