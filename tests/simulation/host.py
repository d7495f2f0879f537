"""A simulated process that serves many callers: the production server, and what is seen of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from bpipe.net.address import Address
from bpipe.net.bound import Bound
from bpipe.pipe import BackedPipe
from bpipe.protocol.session import Session
from bpipe.server import UNHEARD_FOR, Server, Terms
from tests.simulation.loop import Loop, World
from tests.simulation.network import ListeningSocket
from tests.simulation.visitors import Caller, Visit, limit_patience

CLOSING = 3.0  # seconds: a session that is over keeps its place no longer


@dataclass
class Guest:
    """A session that the server has made, and what became of it."""

    session: Session
    id: bytes | None = None  # by which it was known last
    was_up: bool = False  # its caller was heard
    visits: list[Visit] = field(default_factory=list)
    over_at: float | None = None
    links: int = 0  # that were attached, when it was looked at last
    unheard_since: float | None = None  # it was let in, was not heard, and is away

    def look_whether_away(self, now: float) -> None:
        """When it is over, what was seen before tells whether that was right."""
        session = self.session
        if not session.over and not (session.replaceable and self.links):
            self.unheard_since = None
        elif not session.over and self.unheard_since is None:
            self.unheard_since = now

    @property
    def occupied(self) -> bool:
        """Whether it still takes a place for sure."""
        return not self.session.over or any(visit.running for visit in self.visits)


class WatchedServer(Server):
    """The production server; tells ``made`` what it answers when it is asked for a session."""

    made: Callable[[Session | None], None]

    def more(self) -> Session | None:
        session = super().more()
        self.made(session)
        return session


class Host:
    """One process with a server."""

    def __init__(
        self, name: str, world: World, most: int, terms: Terms, callers: list[Caller]
    ) -> None:
        self.name = name
        self.most = most
        self.loop = Loop(world, name)
        self.guests: list[Guest] = []
        self.wrong: str | None = None
        self.killed = self.stopped = self.left = False
        self.over_at: float | None = None  # when it has ended by itself
        self.awake_since = world.now
        self.room_since: float | None = world.now  # there is room; None: there is none
        self.gave_way: set[bytes | None] = set()  # ids of sessions that did
        self.let_in: Callable[[bytes | None], None] = lambda id: None  # call this when one was
        self.listening = ListeningSocket(self.loop)
        self._patience = math.inf  # seconds
        self._callers = callers
        self._world = world
        self._rng = random.Random(len(callers))
        self.server = self.loop.run(self._start, terms)

    def _start(self, terms: Terms) -> WatchedServer:
        server = WatchedServer(
            Address(host="simulated"), self._serve, self.most, terms, self._world.clock
        )
        server.made = self._made
        server.open(Bound([cast(Any, self.listening)], "simulated"))
        return server

    def _made(self, session: Session | None) -> None:
        if any(session is each.session for each in self.guests):
            return  # one that gives way
        if session is not None:
            limit_patience(session, self._patience)
            self.guests.append(Guest(session))
        elif not self.stopped:
            taken = sum(self._may_take_a_place(each) for each in self.guests)
            if taken < self.most:
                self.wrong = f"{self.name} has no room beside {taken} of {self.most} sessions"

    async def _serve(self, pipe: BackedPipe) -> None:
        """The handler."""
        session = pipe.engine.session
        guest = next(each for each in self.guests if each.session is session)
        caller = next((each for each in self._callers if each.session.id == session.id), None)
        manner = "only_read" if caller is None else caller.order.manner
        visit = Visit(pipe, caller, manner, self._rng)
        guest.visits.append(visit)
        if not session.established:
            self.wrong = "a handler begins before its caller was heard"
        await visit.serve()

    # --- what is done to it ---

    def kill(self) -> None:
        """SIGKILL."""
        if not self.gone:
            self.killed = True
            self.loop.kill()

    def stop(self) -> None:
        """Serve who is here, and nobody else."""
        if not self.stopped and not self.gone:
            self.stopped = True
            self.loop.run(self._begin_to_end, self._drain)

    def leave(self) -> None:
        """End everything at once."""
        if not self.stopped and not self.gone:
            self.stopped = self.left = True
            self.loop.run(self._begin_to_end, self._interrupt)

    def give_up_after(self, seconds: float) -> None:
        """From now on, its sessions give up sooner."""
        self._patience = seconds
        for guest in self.guests:
            limit_patience(guest.session, seconds)
        for visit in self.visits:
            if not self.gone:
                self.loop.run(visit.pipe.engine.nudge)

    def pause(self, seconds: float, *, asleep: bool) -> None:
        """It runs nothing for a while; see ``Loop.pause``."""
        if not self.gone:
            self.awake_since = self._world.now + seconds
            self.loop.pause(seconds, asleep=asleep)

    def _begin_to_end(self, end: Callable[[], Any]) -> None:
        self.loop.create_task(end())

    async def _drain(self) -> None:
        self.server.stop()
        await self.server.wait_closed()
        self.over_at = self._world.now

    async def _interrupt(self) -> None:
        await self.server.__aexit__(None, None, None)
        self.over_at = self._world.now

    # --- what is seen of it ---

    @property
    def gone(self) -> bool:
        """Whether the process has ended, by itself or not."""
        return self.over_at is not None or self.killed

    @property
    def visits(self) -> list[Visit]:
        """The calls of its handler."""
        return [visit for guest in self.guests for visit in guest.visits]

    def look(self) -> None:
        """Note what has changed, and whether it may."""
        now = self._world.now
        for guest in self.guests:
            if guest.over_at is None:
                self._look_at(guest, now)
        living = [each for each in self.guests if each.occupied]
        if len(living) > self.most or len(self.server.pipes) > self.most:
            self.wrong = f"{self.name} has {len(living)} sessions, and {self.most} are allowed"
        room = len(living) < self.most or any(self._has_to_be_forgotten(each) for each in living)
        if not room or self.stopped or self.gone:
            self.room_since = None
        elif self.room_since is None:
            self.room_since = now

    def _look_at(self, guest: Guest, now: float) -> None:
        session = guest.session
        if session.id != guest.id:
            self._look_who_gave_way(guest)
            guest.id = session.id
        if session.history.links != guest.links:
            guest.links = session.history.links
            if not session.established:
                self.let_in(session.id)
        guest.was_up = guest.was_up or session.established
        guest.look_whether_away(now)
        if session.over:
            guest.over_at = now
            if not guest.was_up:
                self.gave_way.add(guest.id)
                if not (self.stopped or self.left):
                    self.wrong = "a session that nobody was heard in has ended"
        if len(guest.visits) > guest.was_up:
            heard = "was heard" if guest.was_up else "was not heard"
            self.wrong = f"handlers for a caller that {heard}: {len(guest.visits)}"

    def _look_who_gave_way(self, guest: Guest) -> None:
        if guest.was_up:
            self.wrong = "a session that was up gave way to another one"
        if guest.id is None:
            return
        self.gave_way.add(guest.id)
        if self._away(guest) < UNHEARD_FOR - 0.1:
            self.wrong = "a caller that was let in was forgotten too early"
        taken = sum(self._may_take_a_place(each) for each in self.guests)
        if taken < self.most:
            self.wrong = "a session gave way although there was room"

    def _has_to_be_forgotten(self, guest: Guest) -> bool:
        """Whether its caller had the time to come back and be heard, and this process to see it."""
        awake = self._world.now - self.awake_since
        return min(self._away(guest), awake) > UNHEARD_FOR + CLOSING

    def _away(self, guest: Guest) -> float:
        """For how many seconds its caller is away, which was let in, and not heard."""
        since = guest.unheard_since
        return 0.0 if since is None else self._world.now - since

    def _may_take_a_place(self, guest: Guest) -> bool:
        """Also when it is over its link may have to be closed still."""
        if guest.occupied or guest.over_at is None:
            return True
        return max(guest.over_at, self.awake_since) > self._world.now - CLOSING

    def left_behind(self) -> str | None:
        """What is there after its end, and must not be."""
        if self.server.pipes:
            return f"{self.name} has ended, and still serves somebody"
        if any(each.occupied for each in self.guests):
            return f"{self.name} has ended, and has a session left"
        if self.loop.unfinished:
            return f"{self.name} has ended, and has {self.loop.unfinished} tasks left"
        if self.loop.sockets:
            return f"{self.name} has ended, and has {len(self.loop.sockets)} sockets left"
        for guest in self.guests:
            if guest.was_up and not guest.visits and guest.session.failure is None:
                return "a session has succeeded, and no handler was called"
        return None
