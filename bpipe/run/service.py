"""A process that serves many: each in a session with ends of its own, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bpipe.ends.local import Ends
from bpipe.ends.streams import take_streams
from bpipe.pipe import BackedPipe
from bpipe.protocol.rate import Bucket
from bpipe.report.census import ServerView
from bpipe.report.service import ServiceWatch
from bpipe.report.settings import Settings
from bpipe.run.exits import decide
from bpipe.run.join import Join
from bpipe.run.limits import LACKING, allow_sessions
from bpipe.run.process import CANNOT_OPEN, Process, cannot_begin, tell_manager

if TYPE_CHECKING:
    from bpipe.ends.part import Target


class Sessions(ServerView, Protocol):
    """Where they come from: a ``Server``, or a ``Forwarder``."""

    def observe(self, callback: Callable[[], None]) -> None:
        """Call this when somebody was refused."""

    def stop(self) -> None:
        """No new ones."""

    async def wait_closed(self) -> None:
        """Wait until all of them are over."""


Serve = Callable[[BackedPipe, Ends], Awaitable[None]]


class Told(NamedTuple):
    """Who is to know of what happens outside of the sessions."""

    program: Callable[[str, int, str], None]  # what is odd about one: see ``ends/notices.py``
    carrier: Callable[[str], None]  # what a command says whose run is a connection


# With the file that takes what comes in one session after the other, if there is one.
Open = Callable[[Serve, Told, "Target | None"], AbstractAsyncContextManager[Sessions]]
Targets = AbstractContextManager["Target | None"]


class Plan(NamedTuple):
    """What is served, and for how long."""

    open: Open  # what has a function called for each session, while it is entered
    name: str  # the address where it is called, for people
    most: int  # sessions at once
    drain: float  # seconds that those who are served have to end, after SIGTERM
    peer: str | None = None  # the address to which it connects; None: its callers are the peers
    target: Callable[[], Targets] = contextlib.nullcontext
    tells: Callable[..., bool | None] = lambda *, exposed: True  # see ``Wanted``
    links: int = 1  # of each session, at most


def run_service(plan: Plan, settings: Settings) -> int:
    """Serve until a signal ends that; returns the exit status, or dies by the signal."""
    try:
        for descriptor in take_streams()[:2]:
            os.close(descriptor)
        allow_sessions(plan.most, plan.links)
        service = Service(plan, ServiceWatch(settings), settings.rate)
    except LACKING as error:
        return cannot_begin(error)
    listens = plan.peer is None
    return service.process.run(service.run(), plan.peer or plan.name, listens=listens)


class Service:
    """All sessions of a process."""

    def __init__(self, plan: Plan, watch: ServiceWatch, rate: Bucket | None = None) -> None:
        self.process = Process(watch, self._interrupted, rate=rate)
        self._plan = plan
        self._watch = watch
        self._sessions: Sessions
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Serve until it is told to end; returns the exit status."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                told = Told(self._watch.tell_of_program, self._watch.tell_of_carrier)
                target = stack.enter_context(self._plan.target())
                opened = self._plan.open(self._serve, told, target)
                self._sessions = await stack.enter_async_context(opened)
            except CANNOT_OPEN as error:
                return self.process.refuse(error, self._plan.name, listens=True)
            self.process.begin()
            self._watch.begin(self._sessions)
            if target is not None:
                self._tell_of_file(target)
            self._sessions.observe(self._refused)
            tell_manager("READY=1", f"listening on {self._sessions.address}")
            await self._ending.wait()
            await self._sessions.wait_closed()
        self.process.finish()
        deadly = self.process.deadly
        status = 0 if deadly is None else 128 + deadly
        self._watch.conclude(status, interrupted=deadly is not None)
        return status

    def _tell_of_file(self, target: Target) -> None:
        sessions, base, device = self._sessions, target.base, target.device
        told = self._plan.tells(exposed=sessions.reachable and not sessions.sealed)
        self._watch.tell_of_file(target.path, base, in_place=device, told=told)

    async def _serve(self, pipe: BackedPipe, ends: Ends) -> None:
        """One session, to its end."""
        process, engine = self.process, pipe.engine
        process.take(engine, ends)
        story = self._watch.came(engine)
        outcome = await Join(pipe, ends, process.scheduling).run()
        process.release(engine)
        status, failure = decide(outcome)
        interrupted, file = process.deadly is not None, outcome.file
        story.conclude(failure, outcome.status, status, interrupted=interrupted, filed=file)

    def _refused(self) -> None:
        self._watch.note_refused(self._sessions.refused)

    def _interrupted(self, number: int) -> None:
        """No new sessions; those that live may go on for a while, unless that was said before."""
        self._sessions.stop()
        if number == signal.SIGINT:
            self.process.die_by(number)
        if self._ending.is_set() or number == signal.SIGINT or not self._plan.drain:
            self.process.end_all(number)
        else:
            self._watch.draining(self._plan.drain)
            loop = asyncio.get_running_loop()
            loop.call_later(self._plan.drain, self.process.end_all, number)
        self._ending.set()
