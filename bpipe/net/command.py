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
from bpipe.net.launch import Launched
from bpipe.net.schedule import CARRIER, Manners
from bpipe.net.utterance import Utterance

FAREWELL: Final = 1.0  # seconds until those are killed that have not ended at the end


class Lesson:
    """What the runs of a command have taught, which the next one may need to know."""

    def __init__(self) -> None:
        self.quiet = False  # a connection was good: later runs ask nobody
        self._last: Utterance | None = None

    def good(self) -> None:
        """A connection was good."""
        self.quiet = True

    def listen(self, tell: Callable[[str], None]) -> Utterance:
        """What the next run says; ``tell`` is called with what the last one has not said."""
        self._last = Utterance(tell, self._last)
        return self._last


class Command:
    """Runs ``argv`` for each connection: no shell, looked for in PATH.

    ``tell`` is called in the event loop with each line that it says on stderr: with all of the
    first run, and later with what the run before has not said. ``name`` is for people. The pauses
    and limits of ``manners`` count once a connection was good; before, there is no limit. Sessions
    that run the same command may share their ``lesson``. ``begun`` is the first run, if that was
    started already.

    To give later attempts another command, or to talk before a connection is used, inherit and say
    so in ``argv_of``, or ``begin``.
    """

    via: Final = ""

    def __init__(
        self,
        argv: Sequence[str],
        tell: Callable[[str], None] = lambda line: None,
        *,
        name: str = "",
        manners: Manners = CARRIER,
        grace: Grace = Grace(),  # noqa: B008 - immutable
        lesson: Lesson | None = None,
        begun: Launched | None = None,
    ) -> None:
        self.name = name or shlex.join(argv)
        self.argv = tuple(argv)
        self._tell = tell
        self._lesson = lesson or Lesson()
        self._manners = manners
        self._grace = grace
        self._begun = begun
        self._carriers: set[Carrier] = set()  # of which something may be left

    @property
    def quiet(self) -> bool:
        """Whether a connection was good: later runs have no terminal, and ask nobody."""
        return self._lesson.quiet

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
        """Start the command. Raises LinkLost if it cannot be started, and what ``begin`` raises."""
        argv = self.argv_of(turn)
        utterance = self._lesson.listen(self._tell)
        begun, self._begun = self._begun, None
        try:
            carrier = Carrier(argv, utterance, apart=self.quiet, grace=self._grace, launched=begun)
        except OSError as error:
            raise LinkLost(f"cannot start {argv[0]}: {explain(error)}", code_of(error)) from None
        self._carriers.add(carrier)
        carrier.gone.add_done_callback(lambda _: self._carriers.discard(carrier))
        about = carrier.release, carrier.fate, utterance.hush
        connection = Connection(carrier.sock, self.name, None, *about)
        try:
            await self.begin(connection)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                connection.hush()
            carrier.sock.close()
            carrier.release()
            raise
        return connection

    async def begin(self, connection: Connection) -> None:
        """What comes before it is used: here nothing, as who uses it finds out who is there."""

    def prefer(self, connection: Connection) -> None:
        """A connection was good."""
        self._lesson.good()

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
        if self._begun is not None:
            self._begun.abandon()
        for carrier in set(self._carriers):
            carrier.kill()


class Via:
    """A command as it is typed in place of an address; ``text`` is split as a shell splits words.

    What a run of it has taught counts for all sessions. Raises AddressError if there is no such
    command.
    """

    def __init__(self, text: str) -> None:
        try:
            self._argv = shlex.split(text)
        except ValueError as error:
            reason = str(error)
            raise AddressError(f"{text!r}: {reason[:1].lower()}{reason[1:]}") from None
        require_command(self._argv)
        self._text = text
        self._lesson = Lesson()

    def __str__(self) -> str:
        return self._text

    def command(self, tell: Callable[[str], None]) -> Command:
        """The connector of one session; ``tell`` is as for ``Command``."""
        return Command(self._argv, tell, name=self._text, lesson=self._lesson)


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
