"""One attempt of a dialer: a connection, and a greeting over it, to its end."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.errors import LinkLost, NobodyListens, code_of, explain
from bpipe.net.connectors import Connection, Connector
from bpipe.net.link import Link
from bpipe.net.schedule import ATTEMPT_TIMEOUT
from bpipe.net.sockets import prepare
from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import CallerGreeting

SECOND_HALF: Final = 1.0  # seconds that the second half of a greeting may take, or
ROUND_TRIPS: Final = 3  # times as long as the first, if that is more; but not longer than this:
LONGEST_HALF: Final = ATTEMPT_TIMEOUT  # the first may have asked somebody for a password

_ADVICE: Final = {  # for a first greeting that nobody answers, by whether it is sealed
    True: ("is it bpipe, with the same secret and --name?", "secret"),
    False: ("is it bpipe, and without a secret?", "stranger"),
}
_AGAIN: Final = 3  # greetings that nobody has answered; a sealed one is not told of another version
_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)
_VERSION: Final = " And of the same version?"


class Heard(NamedTuple):
    """Who is to know of an attempt, each called in the event loop."""

    connected: Callable[[], None]  # there is a connection, over which is greeted next
    answered: Callable[[bool], None]  # by a verdict, whether it is good; may raise LinkLost
    moved: Callable[[], None]  # something has happened


class Attempts:
    """Makes attempts to connect ``caller``'s session by ``connector``, for a link in ``slot``."""

    def __init__(
        self, caller: Caller, connector: Connector, clock: Callable[[], float], slot: int = 0
    ) -> None:
        self._caller = caller
        self._session = caller.session
        self._connector = connector
        self._clock = clock
        self._slot = slot
        self._unheard = 0  # greetings that nobody has answered

    async def make(self, turn: int, patience: float, heard: Heard) -> Link:
        """A link that is greeted and attached.

        ``turn`` is as for the connector. ``patience`` is for the greeting, in seconds. Raises what
        the connector raises, or LinkLost.
        """
        connection = await self._connector.connect(turn)
        try:
            link, verdict = self._begin(connection, patience, heard)
        except BaseException:
            connection.sock.close()
            connection.released()
            raise
        try:
            await self._greet(link, verdict)
        except asyncio.CancelledError:
            connection.hush()
            link.fail(LinkLost("not needed any more"))
            raise
        except LinkLost as error:
            if link.greeting.answered:
                raise
            raise await self._unanswered(connection, error) from None
        self._connector.prefer(connection)
        return link

    def _begin(
        self, connection: Connection, patience: float, heard: Heard
    ) -> tuple[Link, asyncio.Future[None]]:
        """A link that greets, and what is done when it is answered."""
        if connection.endpoint is not None:
            prepare(connection.sock, self._session.patience.limits.heartbeat)
        verdict: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(accepted: bool) -> None:
            heard.answered(accepted)
            verdict.set_result(None)

        heard.connected()
        greeting = CallerGreeting(self._caller, self._clock(), answered, patience, self._slot)
        link = Link(connection.sock, greeting, connection.peer, self._clock)
        link.lost.add_done_callback(lambda _: connection.released())
        link.watch(heard.moved)
        return link, verdict

    async def _greet(self, link: Link, verdict: asyncio.Future[None]) -> None:
        """Wait until it is done; LinkLost if it fails, or the second half of it takes too long."""
        began = self._clock()
        await asyncio.wait([verdict, link.greeted], return_when=asyncio.FIRST_COMPLETED)
        first_half = min(ROUND_TRIPS * (self._clock() - began), LONGEST_HALF)
        await asyncio.wait([link.greeted], timeout=max(SECOND_HALF, first_half))
        if not link.greeted.done():
            link.fail(LinkLost("no answer to the greeting", "silent"))
        if (error := link.greeted.exception()) is not None:
            raise error

    async def _unanswered(self, connection: Connection, error: LinkLost) -> LinkLost:
        """What is said of it: in the first greetings it may not be bpipe that is there."""
        if (fate := await connection.fate()) is not None:
            return LinkLost(f"{self._connector.name}: {fate.why}", "carrier")
        if self._session.established:
            return error
        self._unheard += 1
        sealed = self._session.secret is not None
        advice, code = _ADVICE[sealed]
        if sealed and self._unheard >= _AGAIN:
            advice += _VERSION
        return LinkLost(f"{self._connector.name}: {error}; {advice}", code)


def in_vain(error: OSError, name: str) -> LinkLost:
    """What has become of an attempt to call there."""
    kind = NobodyListens if error.errno in _NOBODY else LinkLost
    return kind(f"{name}: {explain(error)}", code_of(error))


def let_go(attempt: asyncio.Task[Link]) -> None:
    """An attempt that nobody needs any more may have succeeded anyway."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().fail(LinkLost("not needed any more"))
