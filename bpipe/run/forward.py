"""Connections that are made here, each carried to the other end in a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

from bpipe.ends.local import Ends
from bpipe.ends.sockets import Connected, reset
from bpipe.errors import AddressError, LinkLost, SessionEnded
from bpipe.net.acceptor import Acceptor
from bpipe.net.address import Address
from bpipe.net.bind import bind
from bpipe.net.bound import Bound
from bpipe.pipe import BackedPipe

# With what nobody would guess: the secret protects only what is beyond this process.
_OPEN: Final = (
    "whoever reaches it would be carried, without a secret of his own: --from takes an address of"
    " this machine, as localhost:{} is (--insecure, with no secret at all, allows any)"
)

Dial = Callable[[], Awaitable[BackedPipe]]
Carry = Callable[[BackedPipe, Ends], Awaitable[None]]


class Forwarder:
    """Accepts at ``address``, ``most`` connections at once, and dials a pipe for each.

    It begins when it is entered, as an asynchronous context manager; leaving that ends what still
    is carried. ``carry`` is called for each connection, and closes it. Who is one too many waits in
    the kernel. Without ``anywhere`` the address has to be one that only this user can reach.
    """

    sealed: Final = False

    def __init__(
        self, address: Address, dial: Dial, carry: Carry, most: int, *, anywhere: bool = False
    ) -> None:
        self.most = most
        self.refused = 0  # connections of those who may not
        self._address = address
        self._dial = dial
        self._carry = carry
        self._anywhere = anywhere
        self._bound: Bound
        self._acceptor: Acceptor
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._tell: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Forwarder:
        await (await self._dial()).wait_closed()  # whether the other end may be called
        self._bound = await bind(
            self._address, anywhere=self._anywhere, why=_OPEN.format(self._address.port)
        )
        self._acceptor = Acceptor(self._bound, self, anywhere=self._anywhere)
        self._acceptor.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        for task in self._tasks:
            task.cancel()
        await self.wait_closed()

    @property
    def address(self) -> str:
        """Where it accepts, with the port that was really chosen."""
        return self._bound.name

    @property
    def reachable(self) -> bool:
        """Whether other machines can connect."""
        return self._bound.exposed

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this whenever a connection was refused."""
        self._tell = callback

    def stop(self) -> None:
        """Accept nobody any more."""
        self._stopped = True
        self._acceptor.close()

    async def wait_closed(self) -> None:
        """After ``stop``: wait until nothing is carried any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- what the acceptor tells: see ``Host`` ---

    def welcome(self, sock: socket.socket, peer: str) -> None:
        """One more connection."""
        sock.setblocking(False)
        task = asyncio.create_task(self._serve(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._served)
        if len(self._tasks) >= self.most:
            self._acceptor.pause()

    def turn_away(self) -> None:
        """One of another user."""
        self.refused += 1
        self._tell()

    def make_room(self, why: str) -> bool:
        """Nobody is let go of."""
        return False

    def hold_up(self, cause: LinkLost) -> None:
        """One has to wait for a descriptor."""
        self._tell()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._stopped:
            self._acceptor.open()

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            pipe = await self._dial()
        except (AddressError, OSError):  # a name has come to mean another address
            reset(sock)
            self.turn_away()
            return
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(contextlib.suppress(SessionEnded))  # which is told elsewhere
            stack.push_async_exit(pipe)
            await self._carry(pipe, Connected(sock, f"the connection from {peer}"))
