"""One attempt: what is said of it, and that what is behind its connection is let go."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bpipe.errors import LinkLost
from bpipe.net.address import parse
from bpipe.net.attempt import Attempts, Heard
from bpipe.net.carrier import Fate
from bpipe.net.clock import clock
from bpipe.net.connectors import Connection, Unix, connector
from bpipe.net.link import Link
from bpipe.net.resolve import Endpoint
from bpipe.protocol.caller import Caller
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Ended, Finish
from tests.support.listening import serving
from tests.support.pairs import run, until

DIED = Fate(Finish(Ended.EXITED, 255), "ssh exited with status 255", [])


class Given(Unix):
    """A connector whose connection is one end of a pair, and that notes what becomes of it."""

    def __init__(self, fate: Fate | None = None, endpoint: Endpoint | None = None) -> None:
        super().__init__("/given")
        self.name = "given"
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.released = 0
        self.good = 0
        self._fate = fate
        self._endpoint_given = endpoint

    async def connect(self, turn: int) -> Connection:
        return Connection(self.here, "somebody", self._endpoint_given, self._release, self._tell)

    def prefer(self, connection: Connection) -> None:
        self.good += 1

    def _release(self) -> None:
        assert self.here.fileno() == -1, "before it was closed"
        self.released += 1

    async def _tell(self) -> Fate | None:
        return self._fate


def ignore(*_: object) -> None:
    """Nothing is done."""


def attempt(
    calls: Given,
    secret: Secret | None = None,
    answered: Callable[[bool], None] = ignore,
    connected: Callable[[], None] = ignore,
) -> asyncio.Task[Link]:
    session = Session(1000, secret=secret)
    making = Attempts(Caller(session), calls, clock)
    return asyncio.create_task(making.make(0, math.inf, Heard(connected, answered, ignore)))


async def greeted(calls: Given) -> None:
    """It has said its first message."""
    calls.there.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(calls.there, 1000)


@pytest.mark.parametrize(
    ("secret", "fate", "said", "code"),
    [
        (None, None, "given: the connection was closed; is it bpipe, and without a", "stranger"),
        (Secret(bytes(32)), None, "is it bpipe, with the same secret and --name", "secret"),
        (None, DIED, "given: ssh exited with status 255", "carrier"),
        (Secret(bytes(32)), DIED, "given: ssh exited with status 255", "carrier"),
        (None, DIED._replace(said=["a", "ssh: no route"]), "given: ssh: no route$", "carrier"),
    ],
)
def test_what_is_said_of_one_that_nobody_answers(
    secret: Secret | None, fate: Fate | None, said: str, code: str
) -> None:
    async def check() -> None:
        calls = Given(fate)
        making = attempt(calls, secret)
        await greeted(calls)
        calls.there.close()
        with pytest.raises(LinkLost, match=said) as caught:
            await making
        assert caught.value.code == code
        await until(lambda: calls.released)
        assert (calls.released, calls.good) == (1, 0)

    run(check)


def test_one_that_is_cancelled_lets_go_of_its_connection() -> None:
    async def check() -> None:
        calls = Given()
        making = attempt(calls)
        await greeted(calls)
        making.cancel()
        await asyncio.wait([making])
        await until(lambda: calls.released)
        assert calls.released == 1
        calls.there.close()

    run(check)


def test_so_does_one_that_cannot_greet() -> None:
    def unwilling() -> None:
        raise LinkLost("not now")

    async def check() -> None:
        calls = Given()
        with calls.there, pytest.raises(LinkLost, match="not now"):
            await attempt(calls, connected=unwilling)
        assert calls.released == 1

    run(check)


def test_a_link_lets_go_of_it_once_it_is_lost(tmp_path: Path) -> None:
    async def check() -> None:
        async with serving(f"unix:{tmp_path}/s") as at:
            real = connector(parse(at.listener.name))

            class Joined(Given):
                async def connect(self, turn: int) -> Connection:
                    self.there.close()
                    self.here.close()
                    self.here = (await real.connect(0)).sock
                    return await super().connect(turn)

            calls = Joined()
            verdicts: list[bool] = []
            link = await attempt(calls, answered=verdicts.append)
            assert (verdicts, calls.good, calls.released) == ([True], 1, 0)
            assert link.peer == "somebody"
            link.fail(LinkLost("enough"))
            await until(lambda: calls.released)

    run(check)


@pytest.mark.parametrize("endpoint", [None, Endpoint(socket.AF_UNIX, "/x")])
def test_only_a_connection_to_an_address_is_prepared_here(endpoint: Endpoint | None) -> None:
    async def check() -> None:
        calls = Given(endpoint=endpoint)
        before = calls.here.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        making = attempt(calls)
        await greeted(calls)
        after = calls.here.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert (after > before) is (endpoint is not None)
        making.cancel()
        await asyncio.wait([making])
        calls.there.close()

    run(check)
